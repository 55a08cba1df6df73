import { isDeepStrictEqual } from 'node:util'
import { alreadyUsed } from '../bank/answer.ts'
import { isPassing } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import type { Card } from '../payment/card.ts'
import { operationId, paymentId } from '../payment/ids.ts'
import type { Audit, Operation } from '../payment/payment.ts'
import { refusedAsUsed } from '../payment/reads.ts'
import { ask } from './ask.ts'
import { operationEnds } from './await-operation.ts'
import { claimAgain, isStale, TAKEOVER } from './claim-again.ts'
import type { Claim } from './claim-again.ts'
import { bankKey } from './bank-key.ts'
import { claimant, lookFirst } from './claim.ts'
import type { Turn, Waiting } from './claim.ts'
import { decide } from './decide.ts'
import type { Conclusion, Exchange } from './decide.ts'
import { noEvidence, weigh } from './evidence.ts'
import type { Evidence } from './evidence.ts'
import { vainTriesBefore } from './kinds.ts'
import { withLock } from './lock.ts'
import { problem } from './problems.ts'
import { refused, resultOf } from './result.ts'
import type { Request, Result } from './result.ts'
import { settle } from './settle.ts'
import { turnAway } from './turn-away.ts'

/**
 * The story of a mutation: lock -> admit -> claim -> ask the bank -> settle -> result.
 *
 * A request waits its turn at its payment, is let in if the bank can take it, and claims: from then on the operation
 * hangs on the committed claim, not on this process. The bank is asked, and asked again, each exchange under a claim of
 * its own, until there is a conclusion to settle. The work never stops because a client has gone or has waited long
 * enough; only the answer does. Recovery enters at `takeOver`.
 */
export async function perform(gateway: Gateway, request: Request): Promise<Result> {
  const { waiting, work, isJoined } = begin(gateway, request)
  const result = await before(gateway, waiting, work)
  return isJoined ? asReplay(result) : result
}

/** The same for the gateway itself, which waits for the end of the work. */
export async function performWhole(gateway: Gateway, request: Request): Promise<Result> {
  return await begin(gateway, request).work
}

function begin(gateway: Gateway, request: Request) {
  const deadlineMs = gateway.clock.monotonicMs() + gateway.settings.requestDeadlineMs
  const waiting: Waiting = { answer: problem('OUTCOME_UNKNOWN'), isOver: false, deadlineMs }
  const { runs } = gateway.inFlight
  const key = JSON.stringify([request.client, request.idempotencyKey])
  const running = runs.get(key)

  if (running !== undefined && isSameRequest(running.request, request)) {
    return { waiting, work: running.work, isJoined: true }
  }
  const work = story(gateway, request, waiting)
  if (running === undefined) {
    runs.set(key, { request, work })
    const forget = () => runs.delete(key)
    work.then(forget, forget)
  }
  return { waiting, work, isJoined: false }
}

async function story(gateway: Gateway, request: Request, waiting: Waiting): Promise<Result> {
  const name =
    request.kind === 'AUTHORIZE' ? `order:${request.input.orderId}` : `payment:${request.input.paymentId}`
  // Others are before it: a replay need not queue, and whoever waits in vain shall be told the truth about its key.
  if (gateway.inFlight.mailboxes.has(name)) {
    const known = await lookFirst(gateway, request, waiting)
    if (known !== null) return known
  }
  return await withLock(gateway, name, waiting.deadlineMs, inTurn, () => refused(waiting.answer))

  async function inTurn(): Promise<Result> {
    const claim = claimant(gateway, request, waiting)
    for (let isFirst = true; ; isFirst = false) {
      const turn = await gateway.bank.admit(async (refusal) => {
        const away = refusal === null || !isFirst ? null : await turnAway(gateway, request, refusal)
        return away === null ? await carriedOut(await claim(refusal)) : { result: away }
      })
      if ('result' in turn) return turn.result
      // It has nothing to ask the bank meanwhile, and keeps no place there.
      await operationEnds(gateway, turn.waitFor, waiting.deadlineMs)
    }
  }

  async function carriedOut(turn: Turn): Promise<{ result: Result } | { waitFor: string }> {
    // As it was claimed: a probe, where receipts were lost and the bank may know the request already.
    if ('claim' in turn) {
      const first = turn.claim.operation.attemptPurpose === 'PROBE' ? FIRST_PROBE : FIRST_SEND
      return { result: await converge(gateway, turn.claim, first, { card: request.card }) }
    }
    if (!('abandoned' in turn)) return turn
    const result = await takeOver(gateway, turn.abandoned).catch((error: unknown) => {
      // The database stayed away. Its client has been told by now, but others may have joined this work since.
      if (isPassing(error)) return refused(waiting.answer)
      throw error
    })
    return { result }
  }
}

const FIRST_SEND: Exchange = { do: 'SEND', afterMs: 0, confirm: false }
const FIRST_PROBE: Exchange = { do: 'PROBE', afterMs: 0 }

/**
 * Enters an operation whose process is gone: a client's repeat does it, recovery, and an operator (`audit`), who may
 * also enter what waits in review. It asks before it sends. One that was resolved without the bank's word is asked about
 * once more: a hold that turns up is a stray one, an id is kept.
 */
export async function takeOver(
  gateway: Gateway,
  operation: Operation,
  audit: Audit | null = null,
): Promise<Result> {
  const isResolved = operation.status !== 'UNRESOLVED'
  const turn = await claimAgain(gateway, operation, { ...TAKEOVER, audit, late: isResolved })
  if ('lost' in turn) return resultOf(turn.lost, true)
  // Forgotten, it would be taken for our own doing after a later attempt that may have been carried out.
  const used = await refusedAsUsed(gateway, operation.id)
  const refusal = used && alreadyUsed(used.errorCode)
  return await converge(gateway, turn.claim, FIRST_PROBE, { card: null, refusal, isResolved })
}

/** Exchange after exchange with the bank, the first under `claim`, until there is a conclusion; settles it. */
async function converge(
  gateway: Gateway,
  claim: Claim,
  first: Exchange,
  {
    card,
    refusal = null,
    isResolved = false,
  }: { card: Card | null; refusal?: Evidence['refusal']; isResolved?: boolean },
): Promise<Result> {
  const { clock, settings, random, inFlight } = gateway
  let conclusion: Conclusion | null = null
  try {
    let fresh = await freshClaim(gateway, claim, first)
    let evidence: Omit<Evidence, 'asked' | 'last'> = {
      ...noEvidence(claim.operation.kind),
      refusal,
      isResolved,
      isHistoryLost: inFlight.history.lostAt !== null,
      wasSent: claim.operation.sentAt !== null,
      canSend: card !== null,
    }
    let exchange = first
    for (;;) {
      if ('lost' in fresh) return resultOf(fresh.lost, false)
      claim = fresh.claim
      const { answer, calls } = await ask(gateway, claim, exchange, card)
      if (answer.is === 'done' && claim.operation.kind === 'AUTHORIZE')
        inFlight.knownHold = answer.fact.bankId
      // What was carried out otherwise than asked was carried out, whatever the bank says when it is asked again.
      const ambiguous = answer.is === 'mismatch' || (exchange.do === 'SEND' && answer.is === 'ambiguous')
      const weighed = weigh(evidence, stateOf(claim, inFlight.draining), exchange.do, answer)
      let step = decide(weighed, settings, random)
      if (step.do !== 'SETTLE') {
        await clock.sleep(step.afterMs)
        if (inFlight.draining) step = decide({ ...weighed, maySend: false }, settings, random)
      }
      if (step.do === 'SETTLE') {
        conclusion = step.conclusion
        return resultOf(await settle(gateway, claim, { conclusion, ambiguous, calls }), isResolved)
      }
      const next = await claimAgain(gateway, claim.operation, {
        after: claim.token,
        purpose: step.do,
        ambiguous,
        calls,
      })
      fresh = 'lost' in next ? next : await freshClaim(gateway, next.claim, step)
      evidence = weighed
      exchange = step
    }
  } catch (error) {
    gateway.log.error(
      {
        err: error,
        operation: operationId(claim.operation.id),
        payment: paymentId(claim.payment.id),
        conclusion,
        bankKey: bankKey(claim.operation, claim.payment),
      },
      'lost track of an operation: nothing of its outcome is recorded here; if its receipt is there, recovery asks the bank when its lease has ended, and if not, the statement shows what the bank has done (docs/operations.md)',
    )
    return refused(problem('OUTCOME_UNKNOWN', { payment: claim.payment }))
  }
}

/** A claim that took long to get may be about to pass to another process: before it sends it is claimed again. */
async function freshClaim(
  gateway: Gateway,
  claim: Claim,
  exchange: Exchange,
): Promise<Awaited<ReturnType<typeof claimAgain>>> {
  if (!isStale(gateway, claim)) return { claim }
  const next = { after: claim.token, purpose: exchange.do, ambiguous: false, calls: [] }
  const again = await claimAgain(gateway, claim.operation, next)
  return 'lost' in again ? again : await freshClaim(gateway, again.claim, exchange)
}

function stateOf(claim: Claim, draining: boolean) {
  const { operation, quiet, replayable } = claim
  const ambiguous = operation.ambiguousAt !== null
  return { ambiguous, vainTries: vainTriesBefore(operation), quiet, replayable, maySend: !draining }
}

function isSameRequest(one: Request, other: Request): boolean {
  return one.kind === other.kind && isDeepStrictEqual(one.input, other.input)
}

/** What a duplicate is told that joined the work under way: a final answer is a replay for it. */
function asReplay(result: Result): Result {
  const isFinal = result.is === 'success' || ['NEW_KEY', 'DO_NOT_RETRY'].includes(result.problem.retry)
  return { ...result, replayed: isFinal }
}

/** The work's result, or at the deadline what is known then; the work goes on. */
export async function before(gateway: Gateway, waiting: Waiting, work: Promise<Result>): Promise<Result> {
  const { waiters } = gateway.inFlight
  let tell = () => {}
  const late = new Promise<Result>((resolve) => {
    tell = () => {
      waiting.isOver = true
      resolve(refused(waiting.answer))
    }
  })
  const timer = setTimeout(tell, Math.max(0, waiting.deadlineMs - gateway.clock.monotonicMs()))
  waiters.add(tell)
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
    waiters.delete(tell)
  }
}
