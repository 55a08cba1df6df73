import { randomFillSync } from 'node:crypto'
import { V7Generator } from 'uuidv7'

/**
 * Ids as the API shows them: a prefix that says what it is, and the row's UUIDv7, which sorts by time (by that
 * of the process that made it, also where its clock steps back by less than 10 s). A cursor is a payment's id in another
 * dress, so that nobody takes it for one.
 */

/** A new UUIDv7. */
export const timeOrderedId = (): string => generator.generate().toString()

/**
 * A UUID that sorts by time as well, of this version, and whose last twelve digits are the digest's first: the same
 * whenever it is made for the same thing.
 */
export function derivedId(version: 7 | 8, digest?: string): string {
  const id = timeOrderedId()
  return `${id.slice(0, 14)}${version}${id.slice(15, 24)}${(digest ?? id.slice(24)).slice(0, 12)}`
}

const random = { bytes: Buffer.alloc(4_096), read: 4_096 }
/** Its own source asks for 32 bytes at a time, which took a hundredth of the gateway's CPU. */
const generator = new V7Generator({
  nextUint32: () => {
    if (random.read === random.bytes.length) {
      randomFillSync(random.bytes)
      random.read = 0
    }
    random.read += 4
    return random.bytes.readUInt32LE(random.read - 4)
  },
})

export const paymentId = (uuid: string) => `pay_${uuid}`
export const operationId = (uuid: string) => `op_${uuid}`
export const bankCallId = (uuid: string) => `call_${uuid}`

export const reconciliationId = (uuid: string) => `rec_${uuid}`
export const discrepancyId = (uuid: string) => `dis_${uuid}`

/** The UUID of `pay_<uuid>`, or null when it is no payment's id. */
export const uuidOfPaymentId = (text: string) => uuidOf('pay', text)
export const uuidOfOperationId = (text: string) => uuidOf('op', text)
export const uuidOfReconciliationId = (text: string) => uuidOf('rec', text)
export const uuidOfDiscrepancyId = (text: string) => uuidOf('dis', text)

function uuidOf(prefix: string, text: string): string | null {
  const [, found, uuid = null] = /^([a-z]+)_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/.exec(text) ?? []
  return found === prefix ? uuid : null
}

/** A transition as FicMart is told of it: the same whenever it is told. */
export const eventId = (paymentUuid: string, version: number) => `evt_${paymentUuid}_${version}`

/** The payment's UUID and the version of `evt_<uuid>_<version>`, or null when it is no event's id. */
export function transitionOfEventId(text: string): { paymentId: string; version: number } | null {
  const [, uuid, version] =
    /^evt_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})_([1-9]\d{0,8})$/.exec(text) ?? []
  return uuid === undefined ? null : { paymentId: uuid, version: Number(version) }
}

/** The place of an event in a list. */
export function cursorOfEvent(id: string): string {
  return Buffer.from(id).toString('base64url')
}

/** The transition in a cursor, or null when it is none of ours. */
export function transitionOfCursor(cursor: string): { paymentId: string; version: number } | null {
  const id = Buffer.from(cursor, 'base64url').toString()
  return cursorOfEvent(id) === cursor ? transitionOfEventId(id) : null
}

export function cursorOf(uuid: string): string {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex').toString('base64url')
}

/** The UUID in a cursor, or null when it is none of ours. */
export function uuidOfCursor(cursor: string): string | null {
  const hex = Buffer.from(cursor, 'base64url').toString('hex')
  if (hex.length !== 32) return null
  const uuid = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  return cursorOf(uuid) === cursor ? uuid : null
}

/** When a UUIDv7 was made, in milliseconds since 1970. */
export function momentOf(uuid: string): number {
  return Number.parseInt(uuid.replaceAll('-', '').slice(0, 12), 16)
}

/** The least UUIDv7 of a moment: ids from then on are not smaller. */
export function leastUuidAt(epochMs: number): string {
  const hex = Math.min(Math.max(0, Math.trunc(epochMs)), 2 ** 48 - 1)
    .toString(16)
    .padStart(12, '0')
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`
}
