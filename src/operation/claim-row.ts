import { answered } from '../db/persist.ts'
import { together } from '../db/together.ts'
import type { Gateway } from '../gateway.ts'
import { MOVES } from '../payment/payment.ts'
import type { AuthorizeInput, Operation } from '../payment/payment.ts'
import { readRow } from './standing.ts'

/** Made up by the caller, and once for each request. */
export type Ids = { operationId: string; paymentId: string; token: string }

export type ClaimAnswer =
  'CLAIMED' | 'RESOLVED' | 'KEY_REUSED' | 'IN_FLIGHT' | 'ABANDONED' | 'IN_REVIEW' | 'BUSY' | 'NOT_ADMITTED'

/** One call of sql/claim.sql. `wasSent`: it was claimed and sent before, and its claim is gone. */
export async function claimRow(
  gateway: Gateway,
  { client, idempotencyKey, kind, input }: Pick<Operation, 'client' | 'idempotencyKey' | 'kind' | 'input'>,
  ids: Ids,
  { maySend, wasSent = false }: { maySend: boolean; wasSent?: boolean },
) {
  const item = {
    ...ids,
    client,
    idempotencyKey,
    kind,
    input,
    move: MOVES[kind],
    maySend,
    wasSent,
    leaseMs: leaseMs(gateway),
    cardIsPast: 'orderId' in input && !wasSent && isPast(input, gateway.clock.wallMs()),
    history: gateway.inFlight.history.seen,
  }
  return readRow(
    await together(gateway, gateway.inFlight.lines.claim, item, (items) =>
      answered(gateway.sql`
        select * from claim(${gateway.sql.json(items)}, ${gateway.clock.databaseTime()})`),
    ),
  )
}

/** A day's grace, as in sql/claim.sql, which asks the database's clock as well: one that is wrong refuses nobody. */
function isPast({ cardExpiryYear, cardExpiryMonth }: AuthorizeInput, nowMs: number): boolean {
  return nowMs >= Date.UTC(cardExpiryYear, cardExpiryMonth, 2)
}

/** Attempt timeout plus quiet period: past it, no request of a claim can still be at work in the bank. */
export function leaseMs({ settings }: Gateway): number {
  return settings.attemptTimeoutMs + settings.quietPeriodMs
}
