import type { Sql } from 'postgres'
import type { Received, Simulator } from '../../src/simulator/simulator.ts'
import type { Answered } from '../../test/support/client.ts'
import { BANK_KEY_SQL } from '../support/bank-key.ts'
import type { Event } from '../support/receiver.ts'
import type { Cell, LedgerType } from './cells.ts'
import { expectedOf, isClaimed, OF_OPERATORS } from './cells.ts'

/** What both ledgers and the client say of a cell, and where that is not what it must be. */
export type Evidence = {
  payments: PaymentRow[]
  operations: OperationRow[]
  transitions: { version: number; fromState: string | null; toState: string }[]
  strayHolds: { authorizationId: string; releasedAt: Date | null }[]
  /** What operators did. */
  auditLines: { action: string }[]
  bankCalls: Record<string, unknown>[]
  ledger: { id: string; type: LedgerType; referenceId: string | null; status: string }[]
  /** With a body, by the bank's own count. */
  sends: Received[]
  first: Answered | null
  answers: Answered[]
  /** What FicMart's back end was told, in that order; null where no webhooks were on. */
  events: Event[] | null
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
): Promise<Omit<Evidence, 'first' | 'answers' | 'events'>> {
  const ofOrder = sql`(select id from payments where order_id = ${name})`
  const [payments, operations, transitions, strayHolds, auditLines, bankCalls, ledger] = await Promise.all([
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
    sql<Evidence['strayHolds']>`select * from stray_holds where payment_id in ${ofOrder}`,
    sql<Evidence['auditLines']>`
      select action from audit_lines where payment_id in ${ofOrder} and actor <> 'gateway'`,
    sql`select c.purpose, c.endpoint, c.attempt, c.started_at, c.duration_ms, c.http_status, c.conclusion
        from bank_calls c join operations o on o.id = c.operation_id
        where o.payment_id in ${ofOrder} order by c.id`,
    bank.sql<Evidence['ledger']>`
      select id, type, reference_id as "referenceId", status from transactions
      where amount_cents = ${amountCents} order by created_at`,
  ])
  const keys = new Set(operations.map(({ bankKey }) => bankKey))
  const sends = bank.received.filter((line) => keys.has(line.key) && !line.probe)
  return { payments, operations, transitions, strayHolds, auditLines, bankCalls, ledger, sends }
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
    check((payment.reviewReason !== null) === expected.isInReview, `its review: ${payment.reviewReason}`)
    const { authorizationId, captureId, voidId, refundId } = payment
    const known = { AUTHORIZATION: authorizationId, CAPTURE: captureId, VOID: voidId, REFUND: refundId }
    for (const [type, id] of Object.entries(known)) {
      const row = ledger.find((one) => one.type === type)
      const isKnown = row !== undefined && type !== expected.lacksId
      // An operator's word has none; a late look finds it.
      const isToCome = cell.scene === 'closeReview' && id === null
      check(id === (isKnown ? row.id : null) || isToCome, `its ${type} is ${id}, the bank's ${row?.id}`)
    }
  }
  const strays = path.at(-1) === 'VOIDED' && path.includes('FAILED') ? 1 : 0
  check(
    strayHolds.length === strays && strayHolds.every(({ releasedAt }) => releasedAt !== null),
    `it has ${strayHolds.length} stray holds, released: ${strayHolds.map(({ releasedAt }) => releasedAt !== null).join()}`,
  )
  check(
    sends.filter(({ path: at }) => at.endsWith('/authorizations')).length === expected.authorizes,
    'the number of authorizations sent',
  )

  const own = operations.findLast(
    ({ idempotencyKey, kind, status }) =>
      idempotencyKey === cell.name ||
      (cell.scene === 'expire' && (kind === 'AUTHORIZE' || kind === 'EXPIRE') && status === 'SUCCEEDED'),
  )
  const outcome = own === undefined ? 'none' : own.status === 'SUCCEEDED' ? 'success' : own.code
  check(outcome === expected.answer, `its operation ended as ${own?.status ?? 'none'} ${own?.code ?? ''}`)
  check(
    operations.every(({ status }) => status !== 'UNRESOLVED'),
    'an operation is unresolved',
  )
  return [
    ...wrong,
    ...actsOf(cell, evidence),
    ...untoldOf(cell, evidence),
    ...contradictionsOf(cell, evidence),
  ]
}

/** Each act of an operator that had its effect left one line. Letting recovery try again has it each time. */
function actsOf({ scene }: Cell, { auditLines }: Evidence): string[] {
  const lines = auditLines.map(({ action }) => action).join()
  const fits = { rerunRecovery: /^RERUN/, enterBankReference: /^ENTER\w+$/, closeReview: /^CLOSE\w+$/ }
  const isRight = scene in fits ? fits[scene as keyof typeof fits].test(lines) : lines === ''
  return isRight ? [] : [`its audit lines are: ${lines}`]
}

/** FicMart was told of each transition, and of none before the one that led there. */
function untoldOf({ name }: Cell, { events, transitions }: Evidence): string[] {
  if (events === null) return []
  const told = events.filter(({ orderId }) => orderId === name).map(({ version }) => version)
  const firsts = [...new Set(told)].join()
  return firsts === transitions.map(({ version }) => version).join()
    ? []
    : [`FicMart was told of the versions ${told.join()} by webhook`]
}

/** Not one that says: not yet, ask this very thing again. */
export function isFinal({ scene }: Cell, answer: Answered): boolean {
  return (
    answer.code === undefined ||
    !(answer.retry === 'SAME_KEY' || (OF_OPERATORS.has(scene) && answer.retry === 'WAIT'))
  )
}

/** Nothing that FicMart was told may differ from what is. */
function contradictionsOf(cell: Cell, { first, answers, transitions }: Evidence): string[] {
  const wrong: string[] = []
  // Of an operator's acts the audit lines tell.
  if (OF_OPERATORS.has(cell.scene)) return wrong
  const mayAnswer = isAlive(cell) && first !== null && (!isFinal(cell, first) || isTold(first, transitions))
  if (first !== null && !mayAnswer)
    wrong.push(`FicMart got an answer to its first request: ${JSON.stringify(first)}`)
  if (!cell.repeats) return wrong
  const expected = expectedOf(cell)
  const final = answers.filter((answer) => isFinal(cell, answer))
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
      const isEither = cell.dies === 'Postgres' && index === 0
      if (!isEither && (answer.replayed ? isNew : index > 0 || isSettled(cell)))
        wrong.push(`answer ${index + 1} says replayed: ${answer.replayed}`)
    }
  }
  return wrong
}

/** Its clients are answered: it does not die at all, or not before. */
const isAlive = ({ dies, scene }: Cell) => dies === 'Postgres' || scene === 'webhook'

/** Of a gateway that lives. */
function isTold(answer: Answered, transitions: Evidence['transitions']): boolean {
  const made = transitions.at(-1)
  return (
    answer.code === undefined &&
    answer.transition.toState === made?.toState &&
    answer.transition.version === made.version
  )
}

/** The process died with its settle committed. */
function isSettled({ point, fate }: Cell): boolean {
  return (
    point === 'settle committed, its answer withheld' ||
    point === "client's answer unsent" ||
    (point === 'settle sent' && fate === 'delivered')
  )
}
