import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'

/**
 * Waits until an operation that another process works on has ended, or its lease has, or `deadlineMs` (monotonic)
 * has passed. However many wait, one poll every 200 ms asks for all of them.
 */
export async function operationEnds(
  gateway: Gateway,
  operationId: string,
  deadlineMs: number,
): Promise<void> {
  const { awaited } = gateway.inFlight
  const waitMs = Math.max(0, deadlineMs - gateway.clock.monotonicMs())
  await new Promise<void>((resolve) => {
    const waiters = awaited.waiters.get(operationId) ?? new Set()
    const done = () => {
      clearTimeout(timer)
      waiters.delete(done)
      if (waiters.size === 0) awaited.waiters.delete(operationId)
      resolve()
    }
    const timer = setTimeout(done, waitMs)
    waiters.add(done)
    awaited.waiters.set(operationId, waiters)
    if (!awaited.polling) void pollWhileAwaited(gateway)
  })
}

const POLL_MS = 200

async function pollWhileAwaited(gateway: Gateway): Promise<void> {
  const { awaited } = gateway.inFlight
  awaited.polling = true
  while (awaited.waiters.size > 0) {
    await gateway.clock.sleep(POLL_MS)
    try {
      for (const id of await operationsNoLongerUnderWay(gateway, [...awaited.waiters.keys()])) {
        for (const done of awaited.waiters.get(id) ?? []) done()
      }
    } catch (error) {
      // Whoever waits has a deadline of its own; the next round may do better.
      gateway.log.warn({ err: error }, 'could not look at the operations that are waited for; looking again')
    }
  }
  awaited.polling = false
}

async function operationsNoLongerUnderWay(gateway: Gateway, ids: string[]): Promise<string[]> {
  const rows = await answered(gateway.sql<{ id: string }[]>`
    select id from operations
    where id = any(${ids}::uuid[])
      and (status <> 'UNRESOLVED' or leased_until is null
           or leased_until <= coalesce(${gateway.clock.databaseTime()}::timestamptz, clock_timestamp()))`)
  return rows.map((row) => row.id)
}
