import { setTimeout as pause } from 'node:timers/promises'
import { answered, isPassing } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { takeOver } from '../operation/run.ts'
import type { Operation } from '../payment/payment.ts'

/**
 * Every process looks, every few seconds, for operations whose lease has run out: their process is gone, or it had to
 * leave them. Each is entered by the same door as a client's repeat, under the same claim, so that two processes that
 * sweep at once, or a client, cannot do it twice. Nothing is locked while looking.
 */
export function startSweeper(gateway: Gateway, everyMs: number): { stop(): Promise<void> } {
  const stopped = new AbortController()
  const done = (async () => {
    while (!stopped.signal.aborted) {
      // Half to one and a half: processes that started together do not sweep together.
      await pause(everyMs * (0.5 + gateway.random()), null, { signal: stopped.signal, ref: false }).catch(
        () => null,
      )
      if (!stopped.signal.aborted) await sweep(gateway)
    }
  })()
  return {
    stop: async () => {
      stopped.abort()
      await done
    },
  }
}

/** One round; resolves when what it took over has been settled or left again. Never rejects. */
export async function sweep(gateway: Gateway): Promise<void> {
  try {
    const abandoned = await abandonedOperations(gateway)
    await Promise.all(abandoned.map((operation) => resume(gateway, operation)))
  } catch (error) {
    if (isPassing(error))
      gateway.log.warn({ err: error }, 'the database does not answer; sweeping again later')
    else gateway.log.error({ err: error }, 'the sweep failed')
  }
}

async function resume(gateway: Gateway, operation: Operation): Promise<void> {
  await gateway.bank.admit(async (refusal) => {
    if (refusal !== null || gateway.inFlight.draining) return
    gateway.log.info({ operation: `op_${operation.id}`, kind: operation.kind }, 'taken over')
    await takeOver(gateway, operation)
  })
}

/** Few enough for one round to end soon, so that clients find places at the bank. */
const ROUND_MAX = 50

async function abandonedOperations({ sql, clock }: Gateway): Promise<Operation[]> {
  return await answered(sql<Operation[]>`
    select * from operations
    where status = 'UNRESOLVED' and leased_until <= coalesce(${clock.databaseTime()}::timestamptz, clock_timestamp())
    order by leased_until
    limit ${ROUND_MAX}`)
}
