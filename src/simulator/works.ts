import { randomUUID } from 'node:crypto'
import type { PendingQuery, Row, Sql } from 'postgres'
import type { Body } from './answers.ts'
import { refusal } from './refusals.ts'
import type { Refusal, RefusalCode } from './refusals.ts'

/** The four kinds of work: what is checked before the transaction, and what the answer shows. books.ts does it. */

export type Done = { body: Body }
export type Worked = Refusal | Done

export type Work = {
  key: string
  body: Record<string, unknown>
  authExpiryHours: number
  /** A database fault while looking up the card, or the authorization or capture. */
  lookupFails: boolean
  /** False: once it is done, it is rolled back. */
  isKept: boolean
}

/** Rejects with the database's error when the transaction does not begin, or when it may have been committed. */
export type Run = (sql: Sql, work: Work) => Promise<Worked>
/** By endpoint. */
export const WORKS: ReadonlyMap<string, Run> = new Map([
  ['authorizations', authorize],
  ['captures', capture],
  ['voids', voidHold],
  ['refunds', refund],
])

async function authorize(sql: Sql, work: Work): Promise<Worked> {
  const { number, cvv } = { number: text(work.body['card_number']), cvv: text(work.body['cvv']) }
  const amount = cents(work.body['amount'])
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
  const booked = sql`bank_authorize(${number}, ${cvv}, ${amount}, ${id}, ${at}::text::timestamptz, ${expiresAt}::text::timestamptz, ${work.key})`
  return await carriedOut(sql, work, { id, booked, body, notFound: 'invalid_card' })
}

async function capture(sql: Sql, work: Work): Promise<Worked> {
  const { id, at } = booking('cap')
  const { hold, amount } = { hold: text(work.body['authorization_id']), amount: cents(work.body['amount']) }
  const booked = sql`bank_capture(${hold}, ${amount}, ${id}, ${at}::text::timestamptz, ${work.key})`
  const body = {
    capture_id: id,
    authorization_id: hold,
    status: 'captured',
    amount,
    currency: 'USD',
    captured_at: at,
  }
  return await carriedOut(sql, work, { id, booked, body, notFound: 'authorization_not_found' })
}

async function voidHold(sql: Sql, work: Work): Promise<Worked> {
  const { id, at } = booking('void')
  const hold = text(work.body['authorization_id'])
  const booked = sql`bank_void(${hold}, ${id}, ${at}::text::timestamptz, ${work.key})`
  const body = {
    void_id: id,
    authorization_id: hold,
    status: 'voided',
    voided_at: at,
  }
  return await carriedOut(sql, work, { id, booked, body, notFound: 'authorization_not_found' })
}

async function refund(sql: Sql, work: Work): Promise<Worked> {
  const { id, at } = booking('ref')
  const { taken, amount } = { taken: text(work.body['capture_id']), amount: cents(work.body['amount']) }
  const booked = sql`bank_refund(${taken}, ${amount}, ${id}, ${at}::text::timestamptz, ${work.key})`
  const body = {
    refund_id: id,
    capture_id: taken,
    status: 'refunded',
    amount,
    currency: 'USD',
    refunded_at: at,
  }
  return await carriedOut(sql, work, { id, booked, body, notFound: 'capture_not_found' })
}

/** In one transaction. `notFound`: what the bank says when it cannot look for the card, the authorization or capture. */
async function carriedOut(
  sql: Sql,
  { lookupFails, isKept }: Work,
  {
    id,
    booked,
    body,
    notFound,
  }: { id: string; booked: PendingQuery<Row[]>; body: Body; notFound: RefusalCode },
): Promise<Worked> {
  if (lookupFails) return refusal(notFound)
  try {
    const [row] = await sql<{ code: RefusalCode | null }[]>`select bank_keep(${booked}, ${isKept}) as code`
    const code = row?.code ?? null
    return code === null ? { body } : refusal(code)
  } catch (error) {
    if (await isRolledBack(sql, id, error)) return refusal(notFound)
    throw error
  }
}

/**
 * The statement was canceled, or the server closed its session, which it does when the transaction is over, and the books
 * have nothing of it. (The driver does not pass on why a session was ended, SQLSTATE 57P01.)
 */
async function isRolledBack(sql: Sql, id: string, error: unknown): Promise<boolean> {
  const { code } = Object(error) as { code?: unknown }
  if (code === '57014') return true
  if (code !== 'CONNECTION_CLOSED') return false
  return await sql`select from transactions where id = ${id}`.then(
    ({ length }) => length === 0,
    () => false,
  )
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
