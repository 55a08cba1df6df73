import type { Database } from '../../src/db/connection.ts'
import type { Operation, Payment, ReviewEvidence, Transition } from '../../src/payment/payment.ts'
import { rowFromJson } from '../../src/payment/rows.ts'

/** Every change of a row, in the order in which it was written; whoever holds a payment's lock writes it without a break. */
export type Change = {
  xid: string
} & (
  | { relation: 'operations'; before: OperationRow | null; after: OperationRow | null }
  | { relation: 'payments'; before: Payment | null; after: Payment | null }
  | { relation: 'transitions'; before: Transition | null; after: Transition | null }
  | { relation: 'authorizations'; before: Authorization | null; after: Authorization | null }
  | { relation: 'audit_lines'; before: AuditRow | null; after: AuditRow | null }
)
export type OperationRow = Operation & { attemptToken: string | null }
export type Authorization = {
  authorizationId: string
  role: 'WANTED' | 'STRAY'
  operationId: string | null
  paymentId: string
  releasedAt: Date | null
}
export type AuditRow = { id: string; paymentId: string; detail: { reviewEvidence?: ReviewEvidence[] } }

const RELATIONS = ['operations', 'payments', 'transitions', 'authorizations', 'audit_lines'] as const

export async function keepJournal(sql: Database): Promise<void> {
  await sql`create table journal (seq bigserial primary key, xid text, relation text, before jsonb, after jsonb)`
  await sql`
    create function write_journal() returns trigger language plpgsql as $$
    begin
      insert into journal (xid, relation, before, after)
      values (pg_current_xact_id()::text, tg_table_name, case when tg_op <> 'INSERT' then to_jsonb(old) end,
              case when tg_op <> 'DELETE' then to_jsonb(new) end);
      return null;
    end $$`
  for (const relation of RELATIONS) {
    await sql`
      create trigger journal after insert or update or delete on ${sql(relation)}
      for each row execute function write_journal()`
  }
}

/**
 * Between two looks of a function at the rows others have time to write, now and then. Where they are kept out by a lock it
 * changes nothing; where they are not, what takes millions of calls elsewhere is seen within seconds.
 */
export async function spreadOut(sql: Database): Promise<void> {
  await sql`
    create function linger() returns void language plpgsql as $$
    begin
      if random() < 0.2 then
        perform pg_sleep(random() * 0.003);
      end if;
    end $$`
  const functions = await sql<{ text: string }[]>`
    select pg_get_functiondef(oid) as text from pg_proc
    where pronamespace = 'public'::regnamespace
      and proname in ('claim', 'claim_again', 'settle', 'close_review', 'close_as_lost')`
  for (const { text } of functions) {
    const spread = text.replace(LOOK, '$1perform linger(); $2')
    if (spread === text) throw new Error('a function looks at no row')
    await sql.unsafe(spread)
  }
}
const LOOK = /^( +)(select (?:\*|p as pay))/gm

export async function readJournal(sql: Database): Promise<Change[]> {
  type Row = { xid: string; relation: string; before: Json | null; after: Json | null }
  type Json = Record<string, unknown>
  const rows = await sql<Row[]>`select xid, relation, before, after from journal order by seq`
  return rows.map(
    ({ xid, relation, before, after }) =>
      ({
        xid,
        relation,
        before: before && rowFromJson(before),
        after: after && rowFromJson(after),
      }) as Change,
  )
}
