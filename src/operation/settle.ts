import type { ExchangeRecord } from '../bank/bank.ts'
import { answered, isDuplicate, persist } from '../db/persist.ts'
import { together } from '../db/together.ts'
import type { Gateway } from '../gateway.ts'
import { operationAttempts, operationsSettled } from '../observe/metrics.ts'
import { MOVES } from '../payment/payment.ts'
import type { Audit } from '../payment/payment.ts'
import { callsOf, stepOf, subject, wasAmbiguous } from './claim-again.ts'
import type { Claim } from './claim-again.ts'
import { leaseMs } from './claim-row.ts'
import type { Conclusion } from './decide.ts'
import { bringBack } from './gone.ts'
import { readRow, standingOf } from './standing.ts'
import type { Standing } from './standing.ts'

/**
 * Writes what came of an operation, in one statement that says by itself whether it still may. While the database is
 * away the outcome is kept in memory and said again; should this process die meanwhile, recovery asks the bank.
 */
export async function settle(
  gateway: Gateway,
  claim: Pick<Claim, 'operation' | 'token'>,
  outcome: { conclusion: Conclusion; ambiguous: boolean; calls: readonly ExchangeRecord[]; audit?: Audit },
): Promise<Standing> {
  const item = {
    ...subject(claim.operation),
    token: claim.token,
    calls: callsOf(claim.operation, outcome.calls),
    ambiguous: outcome.ambiguous,
    leaseMs: leaseMs(gateway),
    move: MOVES[claim.operation.kind],
    conclusion: outcome.conclusion,
    retryInMs: gateway.settings.recoverAfterMs,
    replayWindowMs: gateway.settings.replayWindowMs,
    audit: outcome.audit ?? null,
  }
  const deadlineMs = gateway.clock.monotonicMs() + SETTLE_TRIES_MS
  try {
    const standing = await persist(gateway, stepOf('settle', claim.operation), deadlineMs, async () => {
      const row = await together(gateway, gateway.inFlight.lines.settle, item, (items) =>
        answered(gateway.sql`
          select * from settle(${gateway.sql.json(items)}, ${gateway.clock.databaseTime()})`),
      )
      if (row.answer === 'GONE') return null
      const standing = standingOf(readRow(row))
      report(gateway, standing, row.answer, outcome.conclusion)
      if (standing.payment !== null) gateway.changes.emit('payment', standing.payment)
      return standing
    })
    if (standing !== null) return standing
  } catch (error) {
    if (!isDuplicate(error) || outcome.conclusion.is !== 'FACT') throw error
    const evidence = { bankId: outcome.conclusion.bankId }
    const review = { reason: 'The bank gave an id that another payment has', evidence }
    return await settle(gateway, claim, { ...outcome, ambiguous: true, conclusion: { is: 'LEAVE', review } })
  }
  const { operation } = await bringBack(gateway, claim.operation, claim.token)
  const ambiguous = outcome.ambiguous || wasAmbiguous(claim.operation)
  return await settle(gateway, { operation, token: claim.token }, { ...outcome, ambiguous })
}

export type SettleAnswer = 'SETTLED' | 'STRAY' | 'LEFT' | 'TAKEN' | 'GONE'

/** Longer than any restart of a database; the slot at the bank stays taken meanwhile, so memory is bounded. */
const SETTLE_TRIES_MS = 120_000

function report(
  gateway: Gateway,
  standing: Standing,
  answer: keyof typeof SAID,
  conclusion: Conclusion,
): void {
  const { operation, payment } = standing
  const { kind, attempt, code, status } = operation
  const isFinal = answer === 'SETTLED' && (conclusion.is === 'FACT' || conclusion.is === 'VERDICT')
  // By its own word, or because what the bank has done does not fit (settle.sql).
  const flags = conclusion.review !== undefined || (conclusion.is === 'FACT' && status !== 'SUCCEEDED')
  const needsReview = flags && answer !== 'STRAY' && payment?.reviewReason != null
  const outcome = needsReview ? 'IN_REVIEW' : isFinal ? (code ?? status) : answer
  operationsSettled.inc({ operation: kind, outcome })
  if (isFinal) operationAttempts.observe({ operation: kind }, attempt)

  const { name: _, ...ids } = stepOf('settle', operation)
  const line = { ...ids, kind, attempt, conclusion: conclusion.is, code, answer, state: payment?.state }
  const review = conclusion.review ?? { reason: payment?.reviewReason }
  if (needsReview) gateway.log.error({ ...line, review }, NEEDS_REVIEW)
  else gateway.log.info(line, conclusion.is === 'LEAVE' ? SAID.LEFT : SAID[answer])
}

const NEEDS_REVIEW =
  'needs review: no rule can settle this, nothing more is done about it until an operator has looked (docs/operations.md)'
const SAID: Record<Exclude<SettleAnswer, 'GONE'>, string> = {
  SETTLED: 'settled',
  LEFT: 'left: what the bank has done is not known yet; recovery asks again',
  STRAY: 'a hold turned up that no receipt wants; recovery releases it',
  TAKEN: 'not settled: another process has taken the operation over and goes on',
}
