import type { Sql } from 'postgres'
import type { Body } from './answers.ts'
import { FUNCTIONS } from './books.ts'

/**
 * The bank's books: accounts with balance and available balance, transactions, and the answers stored by idempotency
 * key. What changes them is in books.ts.
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
    on conflict do nothing;
    ${FUNCTIONS}`)
}

/** As GET answers have it: microseconds, rounded. A hold is "approved" for ever, whatever became of it. */
export async function lookUp(sql: Sql, endpoint: string, id: string): Promise<Body | null> {
  const kind = LOOKUPS.get(endpoint)
  if (kind === undefined) return null
  const [row] = await sql<Found[]>`
    select id, reference_id as parent, amount_cents::float8 as amount,
           to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USZ') as at,
           to_char(expires_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USZ') as expires
    from transactions where id = ${id} and type = ${kind.type}`
  return row === undefined ? null : kind.body(row)
}

type Found = { id: string; parent: string; amount: number; at: string; expires: string }

/** By endpoint. There is none for voids. */
export const LOOKUPS: ReadonlyMap<string, { type: string; body: (found: Found) => Body }> = new Map([
  [
    'authorizations',
    {
      type: 'AUTHORIZATION',
      body: ({ id, amount, at, expires }) => ({
        authorization_id: id,
        status: 'approved',
        amount,
        currency: 'USD',
        expires_at: expires,
        created_at: at,
      }),
    },
  ],
  [
    'captures',
    {
      type: 'CAPTURE',
      body: ({ id, parent, amount, at }) => ({
        capture_id: id,
        authorization_id: parent,
        status: 'captured',
        amount,
        currency: 'USD',
        captured_at: at,
      }),
    },
  ],
  [
    'refunds',
    {
      type: 'REFUND',
      body: ({ id, parent, amount, at }) => ({
        refund_id: id,
        capture_id: parent,
        status: 'refunded',
        amount,
        currency: 'USD',
        refunded_at: at,
      }),
    },
  ],
])

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
