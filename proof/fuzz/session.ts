import { systemClock } from '../../src/gateway.ts'
import type { Database } from '../../src/db/connection.ts'
import { createLine, createTurns, together } from '../../src/db/together.ts'
import type { JsonItem } from '../../src/operation/standing.ts'
import type { Audit, Payment, Transition } from '../../src/payment/payment.ts'
import { rowFromJson } from '../../src/payment/rows.ts'
import type { OperationRow } from './journal.ts'

/** The statements of one process: what comes together goes together, in batches that fall apart where they fail. */

export type Conclusion = (
  | { is: 'FACT'; bankId: string | null; bankAt: null; expiresAt: string | null }
  | { is: 'VERDICT'; code: string; to: 'FAILED' | null; orphan: boolean }
  | { is: 'LEAVE' }
) & { review?: { reason: string; evidence: Record<string, string | number> } }
export type Item = {
  operationId: string
  paymentId: string
  token: string
  kind?: string
  /** claim_again */
  afterToken?: string | null
  purpose?: 'SEND' | 'PROBE'
  late?: boolean
  byOperator?: boolean
  ambiguous?: boolean
  /** settle */
  conclusion?: Conclusion
  audit?: Audit | null
  input?: Record<string, unknown>
  [more: string]: unknown
}
export type Row = {
  answer: string
  operation: OperationRow | null
  payment: Payment | null
  transition: Transition | null
  quiet: boolean
  replayable: boolean
}
export type Name = 'claim' | 'claim_again' | 'settle'
/** One that was answered; `at` is the time that it was told. */
export type Statement = { xid: string; at: Date } & (
  | { name: Name; items: readonly Item[]; rows: Row[] }
  | { name: 'close_review' | 'close_as_lost'; payment: string }
)
export type Failure = { name: string; items: readonly Item[]; code: string; message: string }
export type Said = { statements: Statement[]; failures: Failure[]; answers: Map<string, number> }

export type Session = {
  say(name: Name, item: Item): Promise<Row>
  close(
    name: 'close_review' | 'close_as_lost',
    about: { payment: string; audit: Audit; more: boolean | string },
  ): Promise<string>
  sql: Database
}

export function createSession(sql: Database, time: () => Date, said: Said): Session {
  const turns = createTurns()
  const line = () => createLine<Item, Row>(turns)
  const lines: Record<Name, ReturnType<typeof line>> = { claim: line(), claim_again: line(), settle: line() }
  const count = (name: string, answer: string) => {
    const key = `${name} ${answer}`
    said.answers.set(key, (said.answers.get(key) ?? 0) + 1)
  }
  const failed = (name: string, items: readonly Item[]) => (error: unknown) => {
    const code = String(Object(error).code)
    count(name, code)
    said.failures.push({ name, items, code, message: String(error) })
    throw error
  }

  return {
    sql,
    say: async (name, item) =>
      await together({ clock: systemClock }, lines[name], item, async (items) => {
        const at = time()
        type Json = Record<string, unknown> | null
        type Columns = {
          answer: string
          operation: Json
          payment: Json
          transition: Json
          quiet?: boolean
          replayable?: boolean
        }
        type Told = { xid: string; told: Columns }
        const rows = await sql<Told[]>`
          select pg_current_xact_id()::text as xid, to_jsonb(f) as told
          from ${sql(name)}(${sql.json(items as readonly JsonItem[] as JsonItem)}, ${at}) as f`.catch(
          failed(name, items),
        )
        const read = rows.map(({ told }): Row => ({
          answer: told.answer,
          operation: told.operation && rowFromJson(told.operation),
          payment: told.payment && rowFromJson(told.payment),
          transition: told.transition && rowFromJson(told.transition),
          quiet: told.quiet === true,
          replayable: told.replayable === true,
        }))
        for (const { answer } of read) count(name, answer)
        const xid = rows[0]?.xid
        if (xid !== undefined) said.statements.push({ xid, at, name, items, rows: read })
        return read
      }),
    close: async (name, { payment, audit, more }) => {
      const at = time()
      const [row] = await (
        name === 'close_review'
          ? sql<{ xid: string; answer: string }[]>`
            select pg_current_xact_id()::text as xid, close_review(${payment}, ${sql.json(audit)}, ${more}, ${at}) as answer`
          : sql<{ xid: string; answer: string }[]>`
            select pg_current_xact_id()::text as xid, close_as_lost(${payment}, ${sql.json(audit)}, ${more}, ${at}) as answer`
      ).catch(failed(name, []))
      if (row === undefined) throw new Error('the database did not answer')
      count(name, row.answer)
      said.statements.push({ xid: row.xid, at, name, payment })
      return row.answer
    },
  }
}
