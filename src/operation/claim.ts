import { randomUUID } from 'node:crypto'
import type { Refused } from '../bank/bank.ts'
import { isPassing, persist } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import type { Operation } from '../payment/payment.ts'
import { successorOf } from '../payment/reads.ts'
import { idsOf } from './bank-key.ts'
import { claimed, momentOf } from './claim-again.ts'
import type { Claim, Moment } from './claim-again.ts'
import { claimRow } from './claim-row.ts'
import type { Ids } from './claim-row.ts'
import { inFlight, notAdmitted, orderBusy, outcomeUnknown, problem } from './problems.ts'
import type { Problem } from './problems.ts'
import { refused, resultOf } from './result.ts'
import type { Request, Result } from './result.ts'
import { standingOf } from './standing.ts'

/**
 * sql/claim.sql decides, under its locks, whether a request is a replay, a refusal, in flight or new; what is new is
 * claimed with that. claim-again.ts claims each further exchange.
 */

/** What a client is told whose deadline passes now; once it was told, the request must not claim any more. */
export type Waiting = { answer: Problem; isOver: boolean; deadlineMs: number }

type Row = NonNullable<Awaited<ReturnType<typeof claim>>>

/** Made up by the caller and once, so that a claim whose answer was lost is found to be its own. */
const newIds = (request: Request): Ids => ({ ...idsOf(request), token: randomUUID() })

const answer = (told: Problem) => ({ result: refused(told) })

/** The request's claim, its final answer, the abandoned operation that it shall take over, or the one that must end. */
export type Turn = { claim: Claim } | { result: Result } | { abandoned: Operation } | { waitFor: string }

/** Asks for the claim, each time that it is called; `admission`: whether there is a place at the bank. */
export function claimant(gateway: Gateway, request: Request, waiting: Waiting) {
  const ids = newIds(request)
  // A claim that got no answer and was said again may yet come to be carried out: its bytes are under way.
  let mayComeLate = false
  // Of the first that may have been carried out: the lease began with it.
  let askedAt: Moment | null = null
  return async (admission: Refused | null): Promise<Turn> => {
    if (waiting.isOver || gateway.clock.monotonicMs() + CLAIM_MS >= waiting.deadlineMs)
      return answer(waiting.answer)
    const refusal = gateway.inFlight.draining ? DRAINING : admission
    waiting.answer = problem('OUTCOME_UNKNOWN')
    if (refusal === null) askedAt ??= momentOf(gateway)
    const row = await claimOrSuccessor(gateway, request, ids, refusal === null, waiting.deadlineMs)
    // Nobody has looked the key up, so nothing may be said of it; what was perhaps claimed, recovery asks the bank about.
    if (row === null) return answer(waiting.answer)
    mayComeLate ||= row.isRepeat && refusal === null
    if (row.answer === 'CLAIMED') {
      waiting.answer = problem('OUTCOME_UNKNOWN', { payment: row.payment })
      // A new payment; the other operations have moved none yet.
      if (request.kind === 'AUTHORIZE' && row.payment !== null) gateway.changes.emit('payment', row.payment)
      const { token } = ids
      return {
        claim: {
          ...claimed(row),
          token,
          askedAt: askedAt ?? momentOf(gateway),
          quiet: true,
          replayable: true,
        },
      }
    }
    if (refusal === null && row.answer === 'NOT_ADMITTED') return answer(LOST_PAYMENT)
    // Declined here and now, and so a payment that somebody may follow.
    if (
      row.answer === 'RESOLVED' &&
      row.operation?.id === ids.operationId &&
      row.payment?.state === 'DECLINED'
    )
      gateway.changes.emit('payment', row.payment)
    const known = resultOfClaim(row, request, ids, refusal, waiting)
    if (mayComeLate && (row.answer === 'BUSY' || row.answer === 'NOT_ADMITTED'))
      waiting.answer = problem('OUTCOME_UNKNOWN', { payment: row.payment })
    else if (known !== null) return { result: known }
    // While nothing can be sent nobody is kept waiting: memory stays bounded.
    if (refusal !== null) return answer(waiting.answer)
    if (row.answer === 'ABANDONED') return { abandoned: standingOf(row).operation }
    // Nor for an operator, or for what has not begun.
    const { operation } = row
    return operation === null || operation.leasedUntil === null
      ? answer(waiting.answer)
      : { waitFor: operation.id }
  }
}

/** Before it queues behind others: the answer that the key already has, or what the client is told while it waits. */
export async function lookFirst(
  gateway: Gateway,
  request: Request,
  waiting: Waiting,
): Promise<Result | null> {
  waiting.answer = problem('OUTCOME_UNKNOWN')
  const ids = newIds(request)
  const row = await claim(gateway, request, ids, false, waiting.deadlineMs)
  if (row === null) return refused(waiting.answer)
  if (row.answer !== 'NOT_ADMITTED') return resultOfClaim(row, request, ids, null, waiting)
  waiting.answer = problem('OPERATION_IN_FLIGHT', { payment: row.payment })
  return null
}

/** The final answer, if there is one; else null, and `waiting` says what a client is told meanwhile. */
function resultOfClaim(
  row: Row,
  request: Request,
  ids: Ids,
  refusal: Refused | null,
  waiting: Waiting,
): Result | null {
  const { payment } = row
  switch (row.answer) {
    case 'RESOLVED': {
      const standing = standingOf(row)
      return resultOf(standing, standing.operation.id !== ids.operationId)
    }
    case 'KEY_REUSED': {
      const field = differingField(standingOf(row).operation, request)
      return refused(problem('IDEMPOTENCY_KEY_REUSED', { detail: { field } }))
    }
    case 'NOT_ADMITTED':
      return refused(notAdmitted(refusal ?? DRAINING, payment))
    case 'IN_REVIEW':
      return refused(outcomeUnknown(standingOf(row).operation, payment))
    case 'CLAIMED':
    case 'ABANDONED':
    case 'IN_FLIGHT':
      waiting.answer = problem('OUTCOME_UNKNOWN', { payment })
      return null
    case 'BUSY':
      waiting.answer =
        request.kind === 'AUTHORIZE' ? orderBusy(row.operation, payment) : inFlight(row.operation, payment)
      return null
  }
}

/** The receipts have lost commits: what is not found may come back, and its key must stay free for it. */
const LOST_PAYMENT = problem('PAYMENT_NOT_FOUND', {
  retry: 'WAIT',
  retryAfterMs: 5_000,
  message:
    'There is no payment with this id now, and the gateway has lost some receipts a while ago, perhaps this one. Nothing was done. Repeat its authorizePayment with its own key, which brings the payment back; then repeat this request with the same key.',
})
const DRAINING: Refused = { retryAfterMs: 1_000, reason: 'The gateway is restarting' }
/** What a claim may take: one that could not be answered in time is not begun, so that "in flight" is certain. */
const CLAIM_MS = 50

/** Null when the database has not answered by `deadlineMs`; `isRepeat` when it had not at first. */
async function claim(gateway: Gateway, request: Request, ids: Ids, maySend: boolean, deadlineMs: number) {
  try {
    let tries = 0
    return await persist(gateway, { name: 'claim' }, deadlineMs, async () => {
      tries += 1
      return { ...(await claimRow(gateway, request, ids, { maySend })), isRepeat: tries > 1 }
    })
  } catch (error) {
    if (isPassing(error)) return null
    throw error
  }
}

/** A payment whose receipt was lost is found as the one that stands for it since its authorize was repeated. */
async function claimOrSuccessor(
  ...about: Parameters<typeof claim>
): Promise<Awaited<ReturnType<typeof claim>>> {
  const [gateway, request, ids, maySend] = about
  const row = await claim(...about)
  if (row?.answer !== 'NOT_ADMITTED' || row.payment !== null || !maySend || request.kind === 'AUTHORIZE')
    return row
  const successor = await successorOf(gateway, ids.paymentId)
  if (successor === null) return row
  ids.paymentId = successor
  return await claim(...about)
}

/** By the names of the API's input. A card is compared by what is kept of it. */
function differingField(first: Operation, request: Request): string {
  if (first.kind !== request.kind) return `operation (it was ${first.kind})`
  const before = new Map(Object.entries(first.input))
  const [name = 'input'] =
    Object.entries(request.input).find(([key, value]) => before.get(key) !== value) ?? []
  return API_NAMES.get(name) ?? name
}

const API_NAMES = new Map([
  ['cardBrand', 'card.number'],
  ['cardLast4', 'card.number'],
  ['cardExpiryMonth', 'card.expiryMonth'],
  ['cardExpiryYear', 'card.expiryYear'],
])
