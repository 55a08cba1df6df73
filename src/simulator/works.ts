import { randomUUID } from 'node:crypto'
import type { PendingQuery, Row, Sql } from 'postgres'
import type { Body } from './answers.ts'

/** The four kinds of work: what is checked before the transaction, and what the answer shows. books.ts does it. */

export type Refusal = { status: number; error: string; message: string }
export type Done = { body: Body }
/** `failed`: an error of the database, rolled back. */
export type Worked = Refusal | Done | 'failed'

export type Work = {
  key: string
  body: Record<string, unknown>
  authExpiryHours: number
  /** A database fault while looking up the card, or the authorization or capture. */
  lookupFails: boolean
  /** False: once it is done, it is rolled back. */
  isKept: boolean
}

/** Rejects with the database's error when the transaction does not begin or does not commit. */
export type Run = (sql: Sql, work: Work) => Promise<Worked>
/** By endpoint. */
export const WORKS: ReadonlyMap<string, Run> = new Map([
  ['authorizations', authorize],
  ['captures', capture],
  ['voids', voidHold],
  ['refunds', refund],
])

async function authorize(sql: Sql, work: Work): Promise<Worked> {
  const {
    card_number: number = '',
    cvv = '',
    amount = 0,
  } = work.body as { card_number?: string; cvv?: string; amount?: number }
  if (!/^\d{13,19}$/.test(number) || !passesLuhn(number))
    return { status: 400, error: 'invalid_card', message: 'invalid card number' }
  if (!/^\d{3,4}$/.test(cvv)) return refusal('invalid_cvv')
  if (amount < 1) return { status: 400, error: 'invalid_amount', message: 'amount must be at least 1' }
  const { id, at } = booking('auth')
  const expiresAt = now(work.authExpiryHours * 3_600_000)
  const body = {
    authorization_id: id,
    status: 'approved',
    amount,
    currency: 'USD',
    expires_at: expiresAt,
    created_at: at,
  }
  if (work.lookupFails) return refusal('invalid_card')
  const booked = sql`bank_authorize(${number}, ${cvv}, ${amount}, ${id}, ${at}::text::timestamptz, ${expiresAt}::text::timestamptz, ${work.key})`
  return await carriedOut(sql, work, booked, body)
}

async function capture(sql: Sql, work: Work): Promise<Worked> {
  const { id, at } = booking('cap')
  const { hold, amount } = { hold: text(work.body['authorization_id']), amount: cents(work.body['amount']) }
  if (work.lookupFails) return refusal('authorization_not_found')
  const booked = sql`bank_capture(${hold}, ${amount}, ${id}, ${at}::text::timestamptz, ${work.key})`
  return await carriedOut(sql, work, booked, {
    capture_id: id,
    authorization_id: hold,
    status: 'captured',
    amount,
    currency: 'USD',
    captured_at: at,
  })
}

async function voidHold(sql: Sql, work: Work): Promise<Worked> {
  const { id, at } = booking('void')
  const hold = text(work.body['authorization_id'])
  if (work.lookupFails) return refusal('authorization_not_found')
  const booked = sql`bank_void(${hold}, ${id}, ${at}::text::timestamptz, ${work.key})`
  return await carriedOut(sql, work, booked, {
    void_id: id,
    authorization_id: hold,
    status: 'voided',
    voided_at: at,
  })
}

async function refund(sql: Sql, work: Work): Promise<Worked> {
  const { id, at } = booking('ref')
  const { taken, amount } = { taken: text(work.body['capture_id']), amount: cents(work.body['amount']) }
  if (work.lookupFails) return refusal('capture_not_found')
  const booked = sql`bank_refund(${taken}, ${amount}, ${id}, ${at}::text::timestamptz, ${work.key})`
  return await carriedOut(sql, work, booked, {
    refund_id: id,
    capture_id: taken,
    status: 'refunded',
    amount,
    currency: 'USD',
    refunded_at: at,
  })
}

async function carriedOut(
  sql: Sql,
  { isKept }: Work,
  booked: PendingQuery<Row[]>,
  body: Body,
): Promise<Worked> {
  const [row] = await sql<
    { refused: keyof typeof REFUSALS | 'failed' | null }[]
  >`select bank_keep(${booked}, ${isKept}) as refused`
  const refused = row?.refused ?? null
  if (refused === null) return { body }
  return refused === 'failed' ? refused : refusal(refused)
}

const REFUSALS = {
  invalid_card: 'card not found or invalid',
  invalid_cvv: 'invalid cvv',
  card_expired: 'card has expired',
  insufficient_funds: 'insufficient funds',
  authorization_not_found: 'authorization not found',
  authorization_already_used: 'authorization has already been used',
  authorization_expired: 'authorization has expired',
  amount_mismatch: 'amount must equal the one before',
  capture_not_found: 'capture not found',
  already_refunded: 'capture has already been refunded',
}

function refusal(error: keyof typeof REFUSALS): Refusal {
  return { status: error === 'insufficient_funds' ? 402 : 400, error, message: REFUSALS[error] }
}

/** request.ts has seen to the types; what is left out is the type's zero. */
const text = (field: unknown) => (typeof field === 'string' ? field : '')
const cents = (field: unknown) => (typeof field === 'number' ? field : 0)

function booking(prefix: string): { id: string; at: string } {
  return { id: `${prefix}_${randomUUID()}`, at: now() }
}

/** As POST answers have it: nanoseconds and an offset. */
function now(plusMs = 0): string {
  const nanoseconds = String(process.hrtime.bigint() % 1_000_000n).padStart(6, '0')
  return new Date(Date.now() + plusMs).toISOString().replace('Z', `${nanoseconds}+00:00`)
}

function passesLuhn(number: string): boolean {
  const sum = number
    .split('')
    .toReversed()
    .reduce((total, digit, index) => {
      const value = Number(digit) * (index % 2 === 0 ? 1 : 2)
      return total + (value > 9 ? value - 9 : value)
    }, 0)
  return sum % 10 === 0
}
