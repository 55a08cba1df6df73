import cardTypes from 'credit-card-type'

/** What makes a row of digits the number of a card: an issuer's range, and a check digit. */

/**
 * Each brand's ranges of first digits. The library's own search copies each brand that it finds and turns three hundred
 * numbers into text, a fortieth of the gateway's CPU; a test compares this one with it.
 */
const BRANDS = Object.values(cardTypes.types).map((brand) => ({
  brand,
  ranges: cardTypes.getTypeInfo(brand).patterns.map((pattern) => {
    const [from, to] = [pattern].flat()
    return { digits: String(from).length, from: Number(from), to: Number(to ?? from) }
  }),
}))
const DIGITS_MAX = Math.max(...BRANDS.flatMap(({ ranges }) => ranges.map(({ digits }) => digits)))

/** The brand whose first range that fits is the longest. */
export function brandOf(number: string): string {
  const starts = Array.from({ length: DIGITS_MAX + 1 }, (_, digits) => Number(number.slice(0, digits)))
  let best = { brand: 'unknown', digits: 0 }
  for (const { brand, ranges } of BRANDS) {
    const range = ranges.find(({ digits, from, to }) => {
      const start = starts[digits]
      return start !== undefined && from <= start && start <= to
    })
    if (range !== undefined && range.digits > best.digits) best = { brand, digits: range.digits }
  }
  return best.brand
}

const ZERO = '0'.charCodeAt(0)

/** Every second digit from the right counts double, its own digits summed; the whole is a multiple of ten. */
export function passesLuhn(digits: string): boolean {
  let sum = 0
  for (let place = 0; place < digits.length; place += 1) {
    const value = (digits.charCodeAt(digits.length - 1 - place) - ZERO) * (place % 2 === 0 ? 1 : 2)
    sum += value > 9 ? value - 9 : value
  }
  return sum % 10 === 0
}
