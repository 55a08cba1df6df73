import { randomUUID } from 'node:crypto'
import type { Sql, TransactionSql } from 'postgres'

/**
 * The bank's books: accounts with balance and available balance, transactions, and the answers stored by idempotency
 * key. Each kind of work is one database transaction, as in the bank, guarded by the bank's row lock and unique index.
 */

/** Sql as the gateway's connect makes it, or any other. */
type Books = Sql<{ bigint: number }> | Sql

export async function prepareLedger(sql: Books): Promise<void> {
  await sql.unsafe(`
    select pg_advisory_xact_lock(8787);
    create table if not exists accounts (
      card_number text primary key, cvv text not null, expiry_month int not null, expiry_year int not null,
      balance_cents bigint not null, available_cents bigint not null);
    create table if not exists transactions (
      id text primary key, type text not null, reference_id text, card_number text not null references accounts,
      amount_cents bigint not null, status text not null, created_at timestamptz not null, expires_at timestamptz,
      idempotency_key text not null);
    -- An authorization is captured or voided once, a capture refunded once.
    create unique index if not exists one_use_per_reference on transactions (reference_id) where reference_id is not null;
    create table if not exists idempotency_keys (
      key text not null, path text not null, body text not null, created_at timestamptz not null default clock_timestamp(),
      primary key (key, path));
    insert into accounts values
      ('4111111111111111', '123', 12, 2030, 1000000, 1000000),
      ('4242424242424242', '456', 6, 2030, 50000, 50000),
      ('5555555555554444', '789', 9, 2030, 0, 0),
      ('5105105105105100', '321', 3, 2020, 500000, 500000)
    on conflict do nothing;`)
}

export type Refusal = { status: number; error: string; message: string }
export type Done = { body: Record<string, string | number> }
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

export const WORKS: Record<string, (tx: Tx, work: Work) => Promise<Worked>> = {
  authorizations: authorize,
  captures: capture,
  voids: voidHold,
  refunds: refund,
}

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

/** As GET answers have it: microseconds, rounded. A hold is "approved" for ever, whatever became of it. */
export async function lookUp(
  sql: Sql,
  path: string,
  id: string,
): Promise<Record<string, string | number> | null> {
  const [kind] = LOOKUPS.filter((lookup) => lookup.path === path)
  if (kind === undefined) return null
  const [row] = await sql<
    { id: string; reference_id: string | null; amount_cents: string; at: string; expires: string | null }[]
  >`
    select id, reference_id, amount_cents,
           to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USZ') as at,
           to_char(expires_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USZ') as expires
    from transactions where id = ${id} and type = ${kind.type}`
  return row === undefined
    ? null
    : kind.body(row.id, row.reference_id ?? '', Number(row.amount_cents), row.at, row.expires ?? '')
}

const LOOKUPS = [
  {
    path: '/api/v1/authorizations',
    type: 'AUTHORIZATION',
    body: (id: string, _: string, amount: number, at: string, expires: string) => ({
      authorization_id: id,
      status: 'approved',
      amount,
      currency: 'USD',
      expires_at: expires,
      created_at: at,
    }),
  },
  {
    path: '/api/v1/captures',
    type: 'CAPTURE',
    body: (id: string, parent: string, amount: number, at: string) => ({
      capture_id: id,
      authorization_id: parent,
      status: 'captured',
      amount,
      currency: 'USD',
      captured_at: at,
    }),
  },
  {
    path: '/api/v1/refunds',
    type: 'REFUND',
    body: (id: string, parent: string, amount: number, at: string) => ({
      refund_id: id,
      capture_id: parent,
      status: 'refunded',
      amount,
      currency: 'USD',
      refunded_at: at,
    }),
  },
]

export async function storedAnswer(sql: Sql, key: string, path: string): Promise<string | null> {
  const [row] = await sql<
    { body: string }[]
  >`select body from idempotency_keys where key = ${key} and path = ${path}`
  return row?.body ?? null
}

export async function storeAnswer(sql: Sql, key: string, path: string, body: string): Promise<void> {
  await sql`insert into idempotency_keys (key, path, body) values (${key}, ${path}, ${body}) on conflict do nothing`
}

/** Hourly in the bank, too. */
export async function purgeStoredAnswers(sql: Sql): Promise<void> {
  await sql`delete from idempotency_keys where created_at < clock_timestamp() - interval '24 hours'`
}

/** The ledger as a bank exports it, for reconciliation. */
export async function statement(sql: Sql): Promise<string> {
  const rows = await sql<{ line: string }[]>`
    select concat_ws(',', type, id, coalesce(reference_id, ''), amount_cents, status,
                     to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USZ')) as line
    from transactions order by created_at, id`
  return ['type,id,reference_id,amount,status,time', ...rows.map((row) => row.line)].join('\n') + '\n'
}

function passesLuhn(number: string): boolean {
  const sum = number.split('').toReversed().reduce((total, digit, index) => {
    const value = Number(digit) * (index % 2 === 0 ? 1 : 2)
    return total + (value > 9 ? value - 9 : value)
  }, 0)
  return sum % 10 === 0
}
