import { setTimeout as pause } from 'node:timers/promises'
import type { Refused } from '../bank/bank.ts'
import { together } from '../db/together.ts'
import type { Gateway } from '../gateway.ts'
import type { Payment } from '../payment/payment.ts'
import { rowFromJson } from '../payment/rows.ts'
import { notAdmitted, problem } from './problems.ts'
import { refused } from './result.ts'
import type { Request, Result } from './result.ts'

/**
 * A request for which the bank has no place. If its key is new, it is refused with nothing recorded. That may only be
 * said when somebody has looked: a key that is known may have been carried out. However many are turned away, their keys
 * are looked up by one statement at a time, which asks for all that have come since the last: under overload the
 * database is left to those who have a place.
 */
export type Found = { isKnown: boolean; payment: Payment | null }

/** The refusal; null when the key is known, so that its answer must be found. */
export async function turnAway(gateway: Gateway, request: Request, refusal: Refused): Promise<Result | null> {
  const found = await together(gateway, gateway.inFlight.lines.turnAway, request, async (requests) => {
    const late = new AbortController()
    const tooLate = pause(FOUND_WITHIN_MS, null, { signal: late.signal })
    const all = await Promise.race([find(gateway, requests), tooLate])
    late.abort()
    return all ?? requests.map(() => null)
  })
  if (found === null) return refused(problem('OUTCOME_UNKNOWN'))
  return found.isKnown ? null : refused(notAdmitted(refusal, found.payment))
}

/** Nobody is kept waiting for a database that is away or busy: there is nothing to be had but a refusal. */
const FOUND_WITHIN_MS = 1_000

/** In the order asked; null when the database does not say. */
async function find(gateway: Gateway, requests: readonly Request[]): Promise<Found[] | null> {
  const asked = requests.map(({ client, idempotencyKey, input }) => ({
    client,
    key: idempotencyKey,
    paymentId: 'paymentId' in input ? input.paymentId : null,
  }))
  try {
    const rows = await gateway.sql<{ isKnown: boolean; payment: Record<string, unknown> | null }[]>`
      select o.id is not null as is_known, to_jsonb(p) as payment
      from rows from (jsonb_to_recordset(${gateway.sql.json(asked)})
                      as (client text, key text, "paymentId" uuid)) with ordinality as asked (client, key, payment_id, nth)
      left join operations o on o.client = asked.client and o.idempotency_key = asked.key
      left join payments p on p.id = asked.payment_id
      order by nth`
    return rows.map(({ isKnown, payment }) => ({
      isKnown,
      payment: payment && rowFromJson<Payment>(payment),
    }))
  } catch (error) {
    gateway.log.warn({ err: error }, 'the keys of those turned away could not be looked up')
    return null
  }
}
