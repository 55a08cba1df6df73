import type { Sql } from 'postgres'
import type { Received, Simulator } from '../../src/simulator/simulator.ts'
import type { Answered } from '../../test/support/client.ts'
import { BANK_KEY_SQL } from '../support/bank-key.ts'
import type { Cell, LedgerType } from './cells.ts'
import { expectedOf, isClaimed, KINDS } from './cells.ts'

/** What both ledgers and the client say of a cell, and where that is not what it must be. */
export type Evidence = {
  payments: PaymentRow[]
  operations: OperationRow[]
  transitions: { version: number; fromState: string | null; toState: string }[]
  strayHolds: Record<string, unknown>[]
  bankCalls: Record<string, unknown>[]
  ledger: { id: string; type: LedgerType; referenceId: string | null; status: string }[]
  /** With a body, by the bank's own count. */
  sends: Received[]
  first: Answered | null
  answers: Answered[]
}
type PaymentRow = {
  id: string
  state: string
  version: number
  authorizationId: string | null
  captureId: string | null
  voidId: string | null
  refundId: string | null
  reviewReason: string | null
  possibleOrphanHoldSince: Date | null
}
type OperationRow = {
  id: string
  kind: string
  idempotencyKey: string
  bankKey: string
  status: string
  code: string | null
}

export async function evidenceOf(
  { name, amountCents }: Cell,
  sql: Sql,
  bank: Simulator,
): Promise<Omit<Evidence, 'first' | 'answers'>> {
  const ofOrder = sql`(select id from payments where order_id = ${name})`
  const [payments, operations, transitions, strayHolds, bankCalls, ledger] = await Promise.all([
    sql<PaymentRow[]>`
      select id, state, version, authorization_id, capture_id, void_id, refund_id, review_reason,
             possible_orphan_hold_since
      from payments where order_id = ${name}`,
    sql<OperationRow[]>`
      select o.id, kind, idempotency_key, ${sql.unsafe(BANK_KEY_SQL)} as bank_key, status, code, attempt, attempt_purpose,
             o.created_at, sent_at, ambiguous_at, leased_until, resolved_at
      from operations o left join payments p on p.id = o.payment_id
      where payment_id in ${ofOrder} or idempotency_key = ${name} order by o.id`,
    sql<Evidence['transitions']>`
      select version, from_state, to_state, at, cause from transitions where payment_id in ${ofOrder}
      order by version`,
    sql`select * from stray_holds where payment_id in ${ofOrder}`,
    sql`select c.purpose, c.endpoint, c.attempt, c.started_at, c.duration_ms, c.http_status, c.conclusion
        from bank_calls c join operations o on o.id = c.operation_id
        where o.payment_id in ${ofOrder} order by c.id`,
    bank.sql<Evidence['ledger']>`
      select id, type, reference_id as "referenceId", status from transactions
      where amount_cents = ${amountCents} order by created_at`,
  ])
  const keys = new Set(operations.map(({ bankKey }) => bankKey))
  const sends = bank.received.filter((line) => keys.has(line.key) && !line.probe)
  return { payments, operations, transitions, strayHolds, bankCalls, ledger, sends }
}

/** How each cell's payment stands, for waiting. */
export async function standings(cells: readonly Cell[], sql: Sql): Promise<Map<string, Standing>> {
  const rows = await sql<(Standing & { orderId: string })[]>`
    select p.order_id, p.state, exists (
      select from operations o where o.payment_id = p.id and o.status = 'UNRESOLVED') as is_under_way
    from payments p where p.order_id in ${sql(cells.map(({ name }) => name))}`
  return new Map(rows.map((row) => [row.orderId, row]))
}
export type Standing = { state: string; isUnderWay: boolean }

export function isConverged(cell: Cell, standing: Standing | undefined): boolean {
  const { path } = expectedOf(cell)
  if (standing === undefined) return path === null
  return standing.state === path?.at(-1) && !standing.isUnderWay
}

export function violationsOf(cell: Cell, evidence: Evidence): string[] {
  const expected = expectedOf(cell)
  const { payments, operations, transitions, strayHolds, ledger, sends } = evidence
  const [payment] = payments
  const wrong: string[] = []
  const check = (isRight: boolean, what: string) => void (isRight || wrong.push(what))

  const count = (type: LedgerType) => ledger.filter((row) => row.type === type).length
  check(count('CAPTURE') <= 1, 'DOUBLE CHARGE: two captures at the bank')
  check(count('AUTHORIZATION') <= 1, 'DOUBLE HOLD: two authorizations at the bank')
  for (const [type, rows] of Object.entries(expected.ledger))
    check(
      count(type as LedgerType) === rows,
      `the bank has ${count(type as LedgerType)} ${type}, not ${rows}`,
    )

  check(payments.length === (expected.path === null ? 0 : 1), `the order has ${payments.length} payments`)
  const path = transitions.map(({ toState }) => toState)
  check(path.join() === (expected.path ?? []).join(), `its history is ${path.join(' > ')}`)
  check(
    transitions.every(
      ({ version, fromState }, index) => version === index + 1 && fromState === (path[index - 1] ?? null),
    ),
    'its history is not a chain',
  )
  if (payment !== undefined) {
    check(payment.state === path.at(-1) && payment.version === path.length, 'payment and history differ')
    check(
      (payment.possibleOrphanHoldSince !== null) === expected.isMarked,
      'the mark of a possible orphan hold',
    )
    check(payment.reviewReason === null, `it is in review: ${payment.reviewReason}`)
    const { authorizationId, captureId, voidId, refundId } = payment
    const known = { AUTHORIZATION: authorizationId, CAPTURE: captureId, VOID: voidId, REFUND: refundId }
    for (const [type, id] of Object.entries(known)) {
      const row = ledger.find((one) => one.type === type)
      const isKnown = type === KINDS[cell.operation].row ? expected.knowsId : row !== undefined
      check(id === (isKnown ? (row?.id ?? 'missing') : null), `its ${type} is ${id}, the bank's ${row?.id}`)
    }
  }
  check(strayHolds.length === 0, 'it has a stray hold')
  check(
    sends.filter(({ path: at }) => at.endsWith('/authorizations')).length === expected.authorizes,
    'the number of authorizations sent',
  )

  const own = operations.find(({ idempotencyKey }) => idempotencyKey === cell.name)
  const outcome = own === undefined ? 'none' : own.status === 'SUCCEEDED' ? 'success' : own.code
  check(outcome === expected.answer, `its operation ended as ${own?.status ?? 'none'} ${own?.code ?? ''}`)
  check(
    operations.every(({ status }) => status !== 'UNRESOLVED'),
    'an operation is unresolved',
  )
  return [...wrong, ...contradictionsOf(cell, evidence)]
}

/** Not one that says: not yet, repeat this very request. */
export function isFinal(answer: Answered): boolean {
  return answer.code === undefined || answer.retry !== 'SAME_KEY'
}

/** Nothing that FicMart was told may differ from what is. */
function contradictionsOf(cell: Cell, { first, answers, transitions }: Evidence): string[] {
  const wrong: string[] = []
  if (first !== null) wrong.push('FicMart got an answer to its first request')
  if (!cell.repeats) return wrong
  const expected = expectedOf(cell)
  const final = answers.filter(isFinal)
  if (final.length !== 2) return [...wrong, `${final.length} final answers to ${answers.length} repeats`]
  for (const [index, answer] of final.entries()) {
    if (answer.code !== undefined) {
      if (answer.code !== expected.answer || answer.retry !== 'NEW_KEY')
        wrong.push(`FicMart was told ${answer.code} ${answer.retry}`)
    } else {
      const made = transitions.at(-1)
      if (expected.answer !== 'success') wrong.push('FicMart was told of a success')
      if (answer.transition.toState !== made?.toState || answer.transition.version !== made.version)
        wrong.push(`FicMart was told of another transition: ${JSON.stringify(answer.transition)}`)
      // New work that answers at once is none; after "not yet", and where another did the work, it may be either.
      const isNew = !isClaimed(cell) && answer === answers[0]
      if (answer.replayed ? isNew : index > 0 || isSettled(cell))
        wrong.push(`answer ${index + 1} says replayed: ${answer.replayed}`)
    }
  }
  return wrong
}

/** The process died with its settle committed. */
function isSettled({ point, fate }: Cell): boolean {
  return (
    point === 'settle committed, its answer withheld' ||
    point === "client's answer unsent" ||
    (point === 'settle sent' && fate === 'delivered')
  )
}
