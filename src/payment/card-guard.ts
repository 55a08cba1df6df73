import { brandOf, passesLuhn } from './card-number.ts'

/**
 * The guard of every text that is stored, sent on or logged. It looks for 13 to 19 digits with a right check digit in an
 * issuer's range, in any script, whatever stands between them; docs/security.md says what it cannot see.
 *
 * Most texts have digits that are no card's, so it weighs. Digits in a row are one number: an order number of 24 digits
 * is no card, though a part of it may look like one. Signs, blanks and up to three letters do not divide a number
 * ("4111x1111"). Words do, unless it is spelled evenly ("4111 whatever 1111 stands 1111 between 1111"), and so do the
 * letters of a hexadecimal id. UUIDs, hashes and dates are looked at no further.
 *
 * Its time is linear in the text's length: from each number on it looks at 19 digits.
 */
export function mayHoldCard(text: string): boolean {
  const plain = inPlainDigits(text).toLowerCase()
  if (!HAS_ENOUGH_DIGITS.test(plain)) return false
  const rest = OPAQUE.reduce((left, opaque) => left.replaceAll(opaque, ' word '), plain)
  const numbers = numbersIn(rest.replaceAll(HEXADECIMAL_ID, withWordsBetween))
  return numbers.some((_, first) => beginsCard(numbers.slice(first, first + CARD_DIGITS_MAX)))
}

/** For a log: no digits where they could be a card's. */
export function withoutCard(text: string): string {
  return mayHoldCard(text) ? inPlainDigits(text).replaceAll(/\d/g, '#') : text
}

/** All of a text's digits, whatever stands between them. */
export function digitsOf(text: string): string {
  return inPlainDigits(text).replaceAll(/\D/g, '')
}

const CARD_DIGITS_MIN = 13
const CARD_DIGITS_MAX = 19
const HAS_ENOUGH_DIGITS = new RegExp(`^(?:[^0-9]*[0-9]){${CARD_DIGITS_MIN}}`)

const OPAQUE = [
  // SHA-1, SHA-256, SHA-512, and UUIDs without their dashes.
  /(?<![a-z\d])(?:[\da-f]{40}|[\da-f]{64}|[\da-f]{128}|[\da-f]{12}[1-8][\da-f]{3}[89ab][\da-f]{15})(?![a-z\d])/g,
  /(?<!\d)[\da-f]{8}-[\da-f]{4}-[1-8][\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}(?!\d)/g,
  // 2026-11-24T16:45:50.123456, 24.11.2026 16:45, 11/24/2026, 20261124.
  /(?<!\d)(?:20\d\d(-?)[01]\d\1[0-3]\d|[0-3]?\d[./][0-3]?\d[./]20\d\d)(?:[t, ]{1,2}[0-2]?\d:[0-5]\d(?::[0-5]\d(?:[.,]\d{1,9})?)?)?(?!\d)/g,
]
/** Of a document of MongoDB, of a trace: two thirds of its digits are decimal ones. */
const HEXADECIMAL_ID = /(?<![a-z\d])[\da-f]{24,}(?![a-z\d])/g
const withWordsBetween = (id: string) => ` word ${id.replaceAll(/[a-f]+/g, ' word ')} word `

/** `gap`: what stands before it, back to the number before. */
type Numeral = { digits: string; gap: string }

function numbersIn(plain: string): Numeral[] {
  let end = 0
  return [...plain.matchAll(/\d+/g)].map(({ 0: digits, index }) => {
    const gap = plain.slice(end, index)
    end = index + digits.length
    return { digits, gap }
  })
}

function beginsCard(numbers: readonly Numeral[]): boolean {
  let digits = ''
  for (const [at, numeral] of numbers.entries()) {
    digits += numeral.digits
    if (digits.length > CARD_DIGITS_MAX) return false
    if (!isCardNumber(digits)) continue
    const card = numbers.slice(0, at + 1)
    if (!card.slice(1).some(hasWordsBefore) || isEven(card)) return true
  }
  return false
}

function isCardNumber(digits: string): boolean {
  return digits.length >= CARD_DIGITS_MIN && passesLuhn(digits) && brandOf(digits) !== 'unknown'
}

function hasWordsBefore({ gap }: Numeral): boolean {
  return /(?:\p{L}\P{L}*){4}/u.test(gap)
}

/** In groups of one size, as on cards, or digit by digit. */
function isEven(numbers: readonly Numeral[]): boolean {
  const sizes = numbers.map(({ digits }) => digits.length)
  const [size = 0] = sizes
  const last = sizes.pop() ?? 0
  return size <= 4 && last <= size && sizes.every((other) => other === size)
}

/** NFKC, and the digits of all scripts as 0 to 9. */
function inPlainDigits(text: string): string {
  if (!NOT_ASCII.test(text)) return text
  // NFKC would sort ten thousand accents upon one letter for 100 ms.
  const normal = text.replaceAll(/\p{M}/gu, '-').normalize('NFKC')
  return normal.replaceAll(FOREIGN_DIGIT, (sign) => String(valueOf(sign)))
}

const NOT_ASCII = /[^\0-\x7f]/

/** By place; what Unicode does not count as decimal digits, Chinese ones and those in circles. */
const OTHER_DIGITS = [
  '〇一二三四五六七八九',
  '零',
  '⓿❶❷❸❹❺❻❼❽❾',
  '🄋➀➁➂➃➄➅➆➇➈',
  '🄌➊➋➌➍➎➏➐➑➒',
  '_⓵⓶⓷⓸⓹⓺⓻⓼⓽',
  '_፩፪፫፬፭፮፯፰፱',
]
const values = new Map(
  OTHER_DIGITS.flatMap((row) => Array.from(row, (sign, value) => [sign, value] as const)),
)
/** With the invisible copies of ASCII, tags. */
const FOREIGN_DIGIT = new RegExp(
  `(?!\\d)[\\p{Nd}\\u{e0030}-\\u{e0039}${OTHER_DIGITS.join('').replaceAll('_', '')}]`,
  'gu',
)

function valueOf(sign: string): number {
  const known = values.get(sign)
  if (known !== undefined) return known
  const code = sign.codePointAt(0) ?? 0
  // Unicode has them in tens, from 0 to 9.
  let first = code
  while (isDecimal(first - 1)) first -= 1
  const value = isDecimal(code) ? (code - first) % 10 : code - FIRST_TAG
  values.set(sign, value)
  return value
}

const FIRST_TAG = 0xe0030
const isDecimal = (code: number) => /\p{Nd}/u.test(String.fromCodePoint(code))
