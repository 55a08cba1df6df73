import type { Sql } from 'postgres'
import type { Database } from '../../src/db/connection.ts'
import { BANK_KEY_SQL } from '../support/bank-key.ts'

/**
 * Both ledgers side by side in one database, so that what must be true of them is one SQL statement each: `receipts` is
 * what the gateway says, `bank` what the bank's own books say, `seen` what clients were answered and what came to the
 * bank. None of these tables has a constraint: an impossible row must be able to show itself.
 */
export async function openBooks(books: Database): Promise<void> {
  await books.unsafe(`
    create schema receipts;
    create table receipts.payments (
      id uuid, order_id text, amount_cents bigint, state text, version int, authorization_id text, capture_id text,
      void_id text, refund_id text, authorization_expires_at timestamptz, review_reason text,
      possible_orphan_hold_since timestamptz);
    create table receipts.operations (
      id uuid, client text, idempotency_key text, bank_key text, kind text, payment_id uuid, input jsonb, status text,
      code text, transition_version int);
    create table receipts.transitions (
      payment_id uuid, version int, from_state text, to_state text, at timestamptz, operation_id uuid, cause text);
    create table receipts.stray_holds (
      authorization_id text, operation_id uuid, payment_id uuid, released_at timestamptz);

    create schema bank;
    -- start_cents: before the run. A card is known by its last four here.
    create table bank.accounts (card text, start_cents bigint, balance_cents bigint, available_cents bigint);
    create table bank.transactions (
      id text, type text, reference_id text, card text, amount_cents bigint, status text, created_at timestamptz,
      expires_at timestamptz, idempotency_key text, key_stored boolean);

    create schema seen;
    -- What clients asked for under each key, before any conflicting request.
    create table seen.requests (key text, kind text, amount_cents bigint);
    -- Final answers only: { version } of the transition made, or the { code } of the problem. client: what made it ask.
    create table seen.answers (key text, client text, answer jsonb);
    -- What came to the bank, in that order. ambiguous: who asked cannot tell whether it was carried out.
    -- key_lost: why the bank stored no answer under the key of what it had committed.
    create table seen.exchanges (
      seq int, key text, endpoint text, has_body boolean, arrived_ms float8, ended_ms float8, ambiguous boolean,
      key_lost text);
    -- In the order in which they came, repeats included.
    create table seen.webhooks (seq int, payment_id uuid, version int, to_state text);
    -- May the goods of an order leave? is_last: when all was over.
    create table seen.checks (
      order_id text, amount_cents bigint, may_ship boolean, reason text, asked_at timestamptz, answered_at timestamptz,
      is_last boolean);
    -- Places where a card number or CVV was found.
    create table seen.leaks (place text, found text);
    -- Operations that recovery had not settled in its time.
    create table seen.unresolved (
      id uuid, kind text, attempt int, attempt_purpose text, ambiguous_at timestamptz, leased_until timestamptz);
    -- Answers that are none in the API's own terms; exit codes of gateways that ended by themselves, or not with 0.
    create table seen.faulty (answer text);
    create table seen.ends (code int);`)
}

/** A table of the books, by rows whose names are its columns'; what it has no column for is left out. */
export async function enter(books: Database, table: string, rows: readonly object[]): Promise<void> {
  for (let at = 0; at < rows.length; at += ROWS_AT_ONCE) {
    const some = books.json(rows.slice(at, at + ROWS_AT_ONCE) as never)
    await books`insert into ${books(table)} select * from jsonb_populate_recordset(null::${books(table)}, ${some})`
  }
}

const ROWS_AT_ONCE = 1_000

/** The gateway's tables, whole. */
export async function copyReceipts(gateway: Database, books: Database): Promise<void> {
  for (const table of ['payments', 'transitions', 'stray_holds']) {
    await copy(books, `receipts.${table}`, gateway`select to_jsonb(t) as line from ${gateway(table)} t`)
  }
  const operations = gateway`
    select to_jsonb(o) || jsonb_build_object('bank_key', ${gateway.unsafe(BANK_KEY_SQL)}) as line
    from operations o left join payments p on p.id = o.payment_id`
  await copy(books, 'receipts.operations', operations)
}

/** The bank's books, of the given accounts, without a card number. */
export async function copyBank(
  bank: Sql,
  books: Database,
  accounts: readonly { number: string; startCents: number }[],
): Promise<void> {
  for (const { number, startCents } of accounts) {
    const account = bank`
      select to_jsonb(a) || jsonb_build_object('card', right(a.card_number, 4), 'start_cents', ${startCents}::bigint) as line
      from accounts a where a.card_number = ${number}`
    await copy(books, 'bank.accounts', account)
    const rows = bank`
      select to_jsonb(t) || jsonb_build_object(
               'card', right(t.card_number, 4),
               'key_stored', exists (select from idempotency_keys k where k.key = t.idempotency_key)) as line
      from transactions t where t.card_number = ${number}`
    await copy(books, 'bank.transactions', rows)
  }
}

type Lines = {
  cursor(
    rows: number,
    each: (rows: readonly Record<string, unknown>[]) => Promise<void>,
  ): PromiseLike<unknown>
}

async function copy(books: Database, table: string, lines: Lines): Promise<void> {
  await lines.cursor(
    ROWS_AT_ONCE,
    async (rows) =>
      await enter(
        books,
        table,
        rows.map(({ line }) => Object(line) as object),
      ),
  )
}
