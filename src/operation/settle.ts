import type { ExchangeRecord } from '../bank/bank.ts'
import { isDuplicate, persist } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { MOVES } from '../payment/payment.ts'
import type { Audit } from '../payment/payment.ts'
import { callsOf, leaseMs, subject } from './claim-again.ts'
import type { Claim } from './claim-again.ts'
import type { Conclusion } from './decide.ts'
import { readRow, standingOf } from './standing.ts'
import type { JsonRow, Standing } from './standing.ts'

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
    lateLooksMs: gateway.settings.lateLooksMs,
    replayWindowMs: gateway.settings.replayWindowMs,
    audit: outcome.audit ?? null,
  }
  try {
    return await persist(gateway, gateway.clock.monotonicMs() + SETTLE_TRIES_MS, async () => {
      const [row] = await gateway.sql<JsonRow<'SETTLED' | 'STRAY' | 'LEFT' | 'TAKEN'>[]>`
        select * from settle(${gateway.sql.json([item])}, ${gateway.clock.databaseTime()})`
      const answer = readRow(row)
      const standing = standingOf(answer)
      report(gateway, standing, answer.answer, outcome.conclusion)
      return standing
    })
  } catch (error) {
    if (!isDuplicate(error) || outcome.conclusion.is !== 'FACT') throw error
    const evidence = { bankId: outcome.conclusion.bankId }
    const review = { reason: 'The bank gave an id that another payment has', evidence }
    const conclusion: Conclusion = { is: 'REVIEW', isFact: true, orphan: false, review }
    return await settle(gateway, claim, { ...outcome, conclusion })
  }
}

/** Longer than any restart of a database; the slot at the bank stays taken meanwhile, so memory is bounded. */
const SETTLE_TRIES_MS = 120_000

function report(gateway: Gateway, standing: Standing, answer: string, conclusion: Conclusion): void {
  const { operation, payment } = standing
  const line = {
    operation: `op_${operation.id}`,
    payment: operation.paymentId === null ? null : `pay_${operation.paymentId}`,
    kind: operation.kind,
    conclusion: conclusion.is,
    code: operation.code,
    answer,
    state: payment?.state,
  }
  if (conclusion.review !== undefined)
    gateway.log.error({ ...line, review: conclusion.review }, 'needs review')
  else gateway.log.info(line, 'settled')
}
