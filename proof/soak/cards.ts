import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Cards of rich customers, and the search for what may be found of them nowhere in the gateway. */

/** A CVV with a leading zero is no number that anything else prints. */
export const CARDS = [
  { number: '4000056655665556', cvv: '0917', expiryMonth: 12, expiryYear: 2030 },
  { number: '5200828282828210', cvv: '0836', expiryMonth: 11, expiryYear: 2031 },
  { number: '378282246310005', cvv: '0759', expiryMonth: 10, expiryYear: 2032 },
] as const

/** As people write them, too. Inside a UUID or a fraction of a second four digits mean nothing. */
const NUMBER = new RegExp(CARDS.map(({ number }) => number.split('').join('[ -]?')).join('|'))
const CVV = new RegExp(`(?<![0-9A-Za-z._:-])(${CARDS.map(({ cvv }) => cvv).join('|')})(?![0-9A-Za-z-])`)

/** What was found in a text, or null. */
export function cardDataIn(text: string): string | null {
  if (NUMBER.test(text)) return 'a card number'
  return CVV.test(text) ? 'a CVV' : null
}

/**
 * The files of the receipts' server, write-ahead log and server log included: what was never committed or has been
 * deleted is there, too. Four bytes turn up among random ones now and then, so there a CVV counts when all of them do.
 */
export async function leaksInFiles(folder: string): Promise<{ place: string; found: string }[]> {
  const leaks: { place: string; found: string }[] = []
  const cvvs = new Set<string>()
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const place = join(entry.parentPath, entry.name)
    // A file may be removed meanwhile: temporary, or a segment of the log.
    const bytes = await readFile(place).catch(() => Buffer.alloc(0))
    if (CARDS.some(({ number }) => bytes.includes(number))) leaks.push({ place, found: 'a card number' })
    for (const { cvv } of CARDS) if (holdsAlone(bytes, cvv)) cvvs.add(cvv)
  }
  if (cvvs.size === CARDS.length) leaks.push({ place: folder, found: 'every CVV' })
  return leaks
}

/** Not among the digits of an id. */
function holdsAlone(bytes: Buffer, cvv: string): boolean {
  const isOfAnId = (byte = 0) => /[0-9a-f._-]/.test(String.fromCharCode(byte))
  for (let at = bytes.indexOf(cvv); at !== -1; at = bytes.indexOf(cvv, at + 1)) {
    if (!isOfAnId(bytes[at - 1]) && !isOfAnId(bytes[at + cvv.length])) return true
  }
  return false
}
