import { randomUUID } from 'node:crypto'
import type { ExchangeRecord } from '../bank/bank.ts'
import { persist } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import type { Conclusion } from '../operation/decide.ts'
import { notAdmitted, problem } from '../operation/problems.ts'
import type { Problem } from '../operation/problems.ts'
import { refused } from '../operation/result.ts'
import { before, takeOver } from '../operation/run.ts'
import { settle } from '../operation/settle.ts'
import { operationId as opId, timeOrderedId } from '../payment/ids.ts'
import { isInReview } from '../payment/payment.ts'
import type { Audit, AuditAction, AuditLine, Operation, Payment } from '../payment/payment.ts'
import { auditLinesOfPayments, operationsThatCount, paymentsById } from '../payment/reads.ts'
import { confirm, lookTwice, REFERENCES } from './reference.ts'

/**
 * What no rule can settle, an operator does: by a reference that the bank confirms, by letting recovery try again, or by
 * the outcome that the bank's statement shows. Each gives a reason and leaves an audit line, written in the statement
 * that has the effect. None of them is another way to money: what they learn is settled like any other answer.
 */
export type ByOperator = { paymentId: string; actor: string; reason: string }
/** `operationId`: null where only one can be meant. */
type OfSeveral = ByOperator & { operationId: string | null }
export type Reviewed =
  { is: 'reviewed'; payment: Payment; auditLine: AuditLine } | { is: 'problem'; problem: Problem }

/** Lets recovery try again now: an operation in review, one whose lease ran out, a late look. */
export async function rerunRecovery(gateway: Gateway, { operationId, ...by }: OfSeveral): Promise<Reviewed> {
  const about = await find(gateway, by)
  if (about === null) return refuse('PAYMENT_NOT_FOUND')
  const { payment, operations } = about
  const audit = auditOf(by, 'RERUN_RECOVERY', {})
  const meant = operations.filter(({ id }) => operationId === null || id === operationId)
  const inReview = meant.filter(isInReview)
  if (inReview.length > 1) return sayWhich(inReview, payment)
  const operation =
    inReview[0] ??
    meant.find(({ status }) => status === 'UNRESOLVED') ??
    meant.find((one) => one.lookAgainAt !== null || mayHaveLeftHold(one, payment))
  if (operation === undefined) return refuse('NOTHING_TO_SETTLE', { payment })

  const deadlineMs = gateway.clock.monotonicMs() + gateway.settings.requestDeadlineMs
  const waiting = { answer: problem('OPERATION_IN_FLIGHT', { payment }), isOver: false, deadlineMs }
  const work = gateway.bank.admit(async (refusal) =>
    refusal === null ? await takeOver(gateway, operation, audit) : refused(notAdmitted(refusal, payment)),
  )
  const result = await before(gateway, waiting, work)
  const reviewed = await whatWasDone(gateway, audit, by)
  if (reviewed !== null) return reviewed
  return result.is === 'problem' ? result : refuse('OPERATION_IN_FLIGHT', { payment })
}

/** What an operator reads from the bank's statement, believed only when the bank confirms it by GET. */
export async function enterBankReference(
  gateway: Gateway,
  { bankReference, ...by }: ByOperator & { bankReference: string },
): Promise<Reviewed> {
  const about = await find(gateway, by)
  if (about === null) return refuse('PAYMENT_NOT_FOUND')
  const { payment, operations } = about
  const kind = REFERENCES.find(({ prefix }) => bankReference.startsWith(prefix))
  if (kind === undefined)
    return notConfirmed(payment, 'it is no authorization (auth_), capture (cap_) or refund (ref_)')
  const operation = operations.findLast((one) => one.kind === kind.of && kind.isMissing(one, payment))
  if (operation === undefined) return refuse('NOTHING_TO_SETTLE', { payment })
  const said = await confirm(gateway, { payment, operation, kind, bankReference })
  if (said.is === 'noAnswer')
    return refuse('BANK_UNAVAILABLE', { payment, retry: 'WAIT', message: BANK_DOES_NOT_SAY })
  if (said.is === 'refused') return notConfirmed(payment, said.why)
  const audit = auditOf(by, 'ENTER_BANK_REFERENCE', { bankReference })
  const conclusion: Conclusion = { is: 'FACT', ...said.fact }
  const { calls } = said
  return await settleByWord(gateway, by, operation, { conclusion, calls, audit }, doesNotFit(payment))
}

/** `bankReference`: the id of a void, which the bank has no GET for. */
export type Closing = OfSeveral & { outcome: ReviewOutcome; bankReference: string | null }
export const REVIEW_OUTCOMES = ['CARRIED_OUT', 'NOT_CARRIED_OUT', 'NO_CHANGE', 'LOST_AT_BANK'] as const
export type ReviewOutcome = (typeof REVIEW_OUTCOMES)[number]

/** Ends a case by the outcome that the bank's statement shows. Only an operation in review takes an operator's word. */
export async function closeReview(
  gateway: Gateway,
  { operationId, outcome, bankReference, ...by }: Closing,
): Promise<Reviewed> {
  const about = await find(gateway, by)
  if (about === null) return refuse('PAYMENT_NOT_FOUND')
  const { payment, operations } = about
  const audit = auditOf(by, 'CLOSE_REVIEW', { outcome, bankReference })
  if (outcome === 'LOST_AT_BANK') return await closeAsLost(gateway, by, audit, payment)
  const meant = operations.filter(({ id }) => operationId === null || id === operationId)
  if (meant.length === 0) return refuse('NOTHING_TO_SETTLE', { payment })
  const unresolved = meant.filter(({ status }) => status === 'UNRESOLVED')
  const inReview = unresolved.filter(isInReview)
  if (inReview.length > 1) return sayWhich(inReview, payment)
  const [operation] = inReview
  if (unresolved.length > 0 && (operation === undefined || outcome === 'NO_CHANGE'))
    return refuse(operation === undefined ? 'OPERATION_IN_FLIGHT' : 'NOTHING_TO_SETTLE', { payment })
  if (operation === undefined) {
    const lost = outcome === 'NO_CHANGE' ? await whatBankLacks(gateway, payment) : null
    if (lost !== null) return lost
    if (outcome !== 'CARRIED_OUT') await close(gateway, by.paymentId, audit, outcome === 'NOT_CARRIED_OUT')
    const done = await whatWasDone(gateway, audit, by)
    const words = payment.reviewReason === null ? {} : { message: ALL_HAVE_ENDED }
    return done ?? refuse('NOTHING_TO_SETTLE', { payment, ...words })
  }
  if (outcome === 'CARRIED_OUT') {
    if (operation.kind === 'AUTHORIZE')
      return refuse('BANK_REFERENCE_MISSING', { payment, message: ENTER_IT })
    const bankId = operation.kind === 'CAPTURE' || operation.kind === 'REFUND' ? null : bankReference
    const conclusion: Conclusion = { is: 'FACT', bankId, bankAt: null, expiresAt: null }
    return await settleByWord(gateway, by, operation, { conclusion, calls: [], audit }, doesNotFit(payment))
  }
  const to = operation.kind === 'AUTHORIZE' ? 'FAILED' : null
  const conclusion: Conclusion = { is: 'VERDICT', code: 'BANK_UNAVAILABLE', to, orphan: false }
  // Or it is not in review any more: somebody is asking the bank.
  const otherwise = refuse('OPERATION_IN_FLIGHT', { payment })
  return await settleByWord(gateway, by, operation, { conclusion, calls: [], audit }, otherwise)
}

/** The bank is not asked by itself any more, since it deletes its answers after a day, within an hour. */
function mayHaveLeftHold({ kind, status }: Operation, { possibleOrphanHoldSince }: Payment): boolean {
  return kind === 'AUTHORIZE' && status === 'REFUSED' && possibleOrphanHoldSince !== null
}

function sayWhich(operations: readonly Operation[], payment: Payment): Reviewed {
  const names = operations.map(({ id, kind }) => `${opId(id)} (${kind})`).join(', ')
  const message = `Several of its operations wait: ${names}. Nothing was changed. Say which one is meant, by its operationId.`
  return refuse('NOTHING_TO_SETTLE', { payment, message })
}

const BANK_DOES_NOT_SAY =
  'The bank does not say whether it knows this reference. Nothing was changed. Enter it again when the bank answers.'
const ALL_HAVE_ENDED =
  'All operations of this payment have ended: none takes this outcome. Nothing was changed. When what its review tells of is dealt with, close it with NO_CHANGE.'
const ENTER_IT =
  "An authorization is believed by its reference only. Nothing was changed. Enter the one that the bank's statement shows, or close the case as not carried out."

/** A word needs no claim, and so a token of its own. `otherwise`: where it had no effect. */
async function settleByWord(
  gateway: Gateway,
  by: ByOperator,
  operation: Operation,
  word: { conclusion: Conclusion; calls: ExchangeRecord[]; audit: Audit },
  otherwise: Reviewed,
): Promise<Reviewed> {
  await settle(gateway, { operation, token: randomUUID() }, { ...word, ambiguous: false })
  return (await whatWasDone(gateway, word.audit, by)) ?? otherwise
}

function doesNotFit(payment: Payment): Reviewed {
  return notConfirmed(
    payment,
    `it does not fit a payment that is ${payment.state} and so was only kept as evidence`,
  )
}

/** NO_CHANGE says that the receipt is right: not while the bank says that it does not know what the payment counts on. */
async function whatBankLacks(gateway: Gateway, payment: Payment): Promise<Reviewed | null> {
  const { state, authorizationId, captureId } = payment
  const reference =
    state === 'AUTHORIZED' && authorizationId !== null
      ? ({ endpoint: 'authorizations', id: authorizationId } as const)
      : state === 'CAPTURED' && captureId !== null
        ? ({ endpoint: 'captures', id: captureId } as const)
        : null
  if (reference === null) return null
  const { found } = await lookTwice(gateway, reference.endpoint, reference.id)
  if (found.is === 'found') return null
  return found.is === 'noAnswer'
    ? refuse('BANK_UNAVAILABLE', { payment, retry: 'WAIT', message: BANK_DOES_NOT_SAY })
    : notConfirmed(
        payment,
        `the bank does not know ${reference.id}, so something has changed; ${WHAT_THEN[reference.endpoint]}`,
      )
}

const WHAT_THEN = {
  authorizations: 'if its statement lacks it as well, close the case as LOST_AT_BANK',
  captures: 'ask the bank where it is before the case is closed',
}

async function closeAsLost(
  gateway: Gateway,
  by: ByOperator,
  audit: Audit,
  payment: Payment,
): Promise<Reviewed> {
  const deadlineMs = gateway.clock.monotonicMs() + gateway.settings.requestDeadlineMs
  const step = { name: 'close as lost', payment: `pay_${by.paymentId}` }
  const operation = timeOrderedId()
  const [row] = await persist(
    gateway,
    step,
    deadlineMs,
    async () =>
      await gateway.sql<{ answer: string }[]>`
    select close_as_lost(
      ${by.paymentId}::uuid, ${gateway.sql.json(audit)}, ${operation}::uuid, ${gateway.clock.databaseTime()}) as answer`,
  )
  const done = await whatWasDone(gateway, audit, by)
  if (done === null)
    return row?.answer === 'UNRESOLVED'
      ? refuse('OPERATION_IN_FLIGHT', { payment })
      : refuse('NOTHING_TO_SETTLE', { payment, message: NOT_HELD })
  gateway.changes.emit('payment', done.payment)
  return done
}

const NOT_HELD =
  'Only an authorized payment counts on a hold that the bank can have lost. Nothing was changed.'

async function close(gateway: Gateway, paymentId: string, audit: Audit, noHold: boolean): Promise<void> {
  const step = { name: 'close review', payment: `pay_${paymentId}` }
  await persist(gateway, step, gateway.clock.monotonicMs() + gateway.settings.requestDeadlineMs, async () => {
    await gateway.sql`
      select close_review(
        ${paymentId}::uuid, ${gateway.sql.json(audit)}, ${noHold}, ${gateway.clock.databaseTime()})`
  })
}

/** By the audit line: it is there exactly when the statement had its effect. */
async function whatWasDone(
  gateway: Gateway,
  audit: Audit,
  { paymentId }: ByOperator,
): Promise<(Reviewed & { is: 'reviewed' }) | null> {
  const lines = await auditLinesOfPayments(gateway, [paymentId])
  const auditLine = lines.find(({ id }) => id === audit.id)
  const [payment] = await paymentsById(gateway, [paymentId])
  return auditLine === undefined || payment === undefined ? null : { is: 'reviewed', payment, auditLine }
}

async function find(gateway: Gateway, { paymentId }: ByOperator) {
  const [payment] = await paymentsById(gateway, [paymentId])
  return payment === undefined ? null : { payment, operations: await operationsThatCount(gateway, paymentId) }
}

function auditOf(by: ByOperator, action: AuditAction, detail: Audit['detail']): Audit {
  return { id: timeOrderedId(), action, actor: by.actor, reason: by.reason, detail }
}

function refuse(...about: Parameters<typeof problem>): Reviewed {
  return { is: 'problem', problem: problem(...about) }
}

function notConfirmed(payment: Payment, why: string): Reviewed {
  return refuse('BANK_REFERENCE_REFUSED', { payment, detail: { why } })
}
