import { randomUUID } from 'node:crypto'
import type { TransactionSql } from 'postgres'
import type { Body } from './answers.ts'

/**
 * The four kinds of work. Each runs in one database transaction, as in the bank, guarded by the bank's row lock (its
 * unique index stands behind): of a capture and a void at once one wins, the other finds the authorization used.
 */

export type Refusal = { status: number; error: string; message: string }
export type Done = { body: Body }
export type Worked = Refusal | Done

type Tx = TransactionSql
export type Work = {
  key: string
  body: Record<string, unknown>
  authExpiryHours: number
  /** A database fault while looking up the card, or the authorization or capture. */
  lookupFails: boolean
}

const refuse = (error: string, message: string, status = 400): Refusal => ({ status, error, message })

export type Run = (tx: Tx, work: Work) => Promise<Worked>
/** By endpoint. */
export const WORKS: ReadonlyMap<string, Run> = new Map([
  ['authorizations', authorize],
  ['captures', capture],
  ['voids', voidHold],
  ['refunds', refund],
])

async function authorize(tx: Tx, { key, body, authExpiryHours, lookupFails }: Work): Promise<Worked> {
  const {
    card_number: number = '',
    cvv = '',
    amount = 0,
  } = body as { card_number?: string; cvv?: string; amount?: number }
  if (!/^\d{13,19}$/.test(number) || !passesLuhn(number)) return refuse('invalid_card', 'invalid card number')
  if (!/^\d{3,4}$/.test(cvv)) return refuse('invalid_cvv', 'invalid cvv')
  if (amount < 1) return refuse('invalid_amount', 'amount must be at least 1')
  const [account] = await tx<AccountRow[]>`select * from accounts where card_number = ${number} for update`
  if (account === undefined || lookupFails) return refuse('invalid_card', 'card not found or invalid')
  if (account.cvv !== cvv) return refuse('invalid_cvv', 'cvv does not match')
  // The account's expiry counts; the request's is not compared with it.
  if (new Date(Date.UTC(account.expiry_year, account.expiry_month, 1)) <= new Date())
    return refuse('card_expired', 'card has expired')
  if (Number(account.available_cents) < amount) return refuse('insufficient_funds', 'insufficient funds', 402)
  const id = `auth_${randomUUID()}`
  const at = now()
  const expiresAt = now(authExpiryHours * 3_600_000)
  await tx`update accounts set available_cents = available_cents - ${amount} where card_number = ${number}`
  await tx`insert into transactions values (${id}, 'AUTHORIZATION', null, ${number}, ${amount}, 'ACTIVE', ${at}::text::timestamptz, ${expiresAt}::text::timestamptz, ${key})`
  return {
    body: {
      authorization_id: id,
      status: 'approved',
      amount,
      currency: 'USD',
      expires_at: expiresAt,
      created_at: at,
    },
  }
}

async function capture(tx: Tx, { key, body, lookupFails }: Work): Promise<Worked> {
  const hold = lookupFails ? undefined : await lockTransaction(tx, 'AUTHORIZATION', body['authorization_id'])
  if (hold === undefined) return refuse('authorization_not_found', 'authorization not found')
  if (hold.status !== 'ACTIVE')
    return refuse('authorization_already_used', 'authorization has already been used')
  if (hold.expires_at <= new Date()) return refuse('authorization_expired', 'authorization has expired')
  if (Number(hold.amount_cents) !== body['amount'])
    return refuse('amount_mismatch', 'amount must equal the authorized amount')
  const { id, at } = await book(tx, key, 'CAPTURE', 'cap', hold)
  await tx`update transactions set status = 'CAPTURED' where id = ${hold.id}`
  await tx`update accounts set balance_cents = balance_cents - ${hold.amount_cents} where card_number = ${hold.card_number}`
  return {
    body: {
      capture_id: id,
      authorization_id: hold.id,
      status: 'captured',
      amount: Number(hold.amount_cents),
      currency: 'USD',
      captured_at: at,
    },
  }
}

/** Works after the expiry too: only this releases a hold. */
async function voidHold(tx: Tx, { key, body, lookupFails }: Work): Promise<Worked> {
  const hold = lookupFails ? undefined : await lockTransaction(tx, 'AUTHORIZATION', body['authorization_id'])
  if (hold === undefined) return refuse('authorization_not_found', 'authorization not found')
  if (hold.status !== 'ACTIVE')
    return refuse('authorization_already_used', 'authorization has already been used')
  const { id, at } = await book(tx, key, 'VOID', 'void', hold)
  await tx`update transactions set status = 'VOIDED' where id = ${hold.id}`
  await tx`update accounts set available_cents = available_cents + ${hold.amount_cents} where card_number = ${hold.card_number}`
  return { body: { void_id: id, authorization_id: hold.id, status: 'voided', voided_at: at } }
}

async function refund(tx: Tx, { key, body, lookupFails }: Work): Promise<Worked> {
  const taken = lookupFails ? undefined : await lockTransaction(tx, 'CAPTURE', body['capture_id'])
  if (taken === undefined) return refuse('capture_not_found', 'capture not found')
  if (taken.status !== 'ACTIVE') return refuse('already_refunded', 'capture has already been refunded')
  if (Number(taken.amount_cents) !== body['amount'])
    return refuse('amount_mismatch', 'amount must equal the captured amount')
  const { id, at } = await book(tx, key, 'REFUND', 'ref', taken)
  await tx`update transactions set status = 'REFUNDED' where id = ${taken.id}`
  await tx`update accounts set balance_cents = balance_cents + ${taken.amount_cents}, available_cents = available_cents + ${taken.amount_cents} where card_number = ${taken.card_number}`
  return {
    body: {
      refund_id: id,
      capture_id: taken.id,
      status: 'refunded',
      amount: Number(taken.amount_cents),
      currency: 'USD',
      refunded_at: at,
    },
  }
}

type AccountRow = {
  card_number: string
  cvv: string
  expiry_month: number
  expiry_year: number
  available_cents: number | string
}
type TransactionRow = {
  id: string
  reference_id: string | null
  card_number: string
  amount_cents: number | string
  status: string
  created_at: Date
  expires_at: Date
}

async function lockTransaction(tx: Tx, type: string, id: unknown): Promise<TransactionRow | undefined> {
  const [row] = await tx<
    TransactionRow[]
  >`select * from transactions where id = ${String(id)} and type = ${type} for update`
  return row
}

async function book(
  tx: Tx,
  key: string,
  type: string,
  prefix: string,
  of: TransactionRow,
): Promise<{ id: string; at: string }> {
  const id = `${prefix}_${randomUUID()}`
  const at = now()
  await tx`insert into transactions values (${id}, ${type}, ${of.id}, ${of.card_number}, ${of.amount_cents}, 'ACTIVE', ${at}::text::timestamptz, null, ${key})`
  return { id, at }
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
