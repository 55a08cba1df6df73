import type { Gateway } from '../gateway.ts'
import { inStep } from '../observe/database-span.ts'
import { databaseRepeats, databaseSeconds, statementsInFlight } from '../observe/metrics.ts'
import type { Ids } from '../observe/span.ts'

/** What a statement is for, as logs, traces and numbers name it, and whom it concerns. */
export type Step = Ids & { name: string }

/**
 * Runs one statement until the database has answered it. Every statement on the money path guards itself (a token, a
 * compare-and-set), so that one whose answer was lost is simply said again. Gives up when `deadlineMs` (of the
 * monotonic clock) has passed and throws what the last try threw; an error that a repeat cannot mend is thrown at once.
 */
export async function persist<T>(
  gateway: Gateway,
  { name, ...ids }: Step,
  deadlineMs: number,
  statement: () => PromiseLike<T>,
): Promise<T> {
  const over = databaseSeconds.startTimer({ step: name })
  return await inStep(name, ids, gateway.sql.options, async () => {
    for (let failures = 0; ;) {
      try {
        const result = await statement()
        // What it found may be its own last try's, which waits for the standby still: an empty commit after it waits, too.
        if (failures > 0)
          await answered(gateway.sql`select pg_logical_emit_message(true, 'ficmart-gateway', '')`)
        return result
      } catch (error) {
        failures += 1
        const pauseMs = gateway.random() * Math.min(PAUSE_CAP_MS, PAUSE_BASE_MS * 2 ** failures)
        if (!isPassing(error) || gateway.clock.monotonicMs() + pauseMs >= deadlineMs) throw error
        databaseRepeats.inc({ step: name })
        const line = { step: name, ...ids, code: codeOf(error), failures }
        gateway.log.warn(line, 'the database did not answer; saying it again')
        await gateway.clock.sleep(pauseMs)
      }
    }
  }).finally(over)
}

/** A statement of `connect`'s, which ends in bounded time by itself (pool.ts), counted while it is under way. */
export async function answered<T>(statement: PromiseLike<T>): Promise<T> {
  statementsInFlight.inc()
  try {
    return await statement
  } finally {
    statementsInFlight.dec()
  }
}

const PAUSE_BASE_MS = 10
const PAUSE_CAP_MS = 1_000

/** A fault of the connection or the server's moment, not of the statement. */
export function isPassing(error: unknown): boolean {
  return PASSING.test(codeOf(error))
}

/** No item of a statement is to blame: the connection broke, or the server is not there. */
export function isOfConnection(error: unknown): boolean {
  return isPassing(error) && !/^(40...|53200|55P03|57014)$/.test(codeOf(error))
}

/** Unique violation: the row that we would write says what another row says already. */
export function isDuplicate(error: unknown): boolean {
  return codeOf(error) === '23505'
}

/** The lock was not to be had in the time allowed. */
export function isLockTimeout(error: unknown): boolean {
  return codeOf(error) === '55P03'
}

/**
 * 08 connection, 25006 read-only after a failover, 40 deadlock and serialization, 53 out of connections, memory or
 * disk, 55P03 lock not available, 57 the server is stopping or starting, a session was terminated, or a statement took
 * too long; then postgres.js's and Node's own words for a connection that broke or could not be made.
 */
const PASSING =
  /^(08...|25006|40...|53...|55P03|57...|58030|CONNECTION_(CLOSED|ENDED|DESTROYED)|CONNECT_TIMEOUT|ERR_SOCKET_CLOSED|E(CONNREFUSED|CONNRESET|PIPE|TIMEDOUT|HOSTUNREACH|NETUNREACH|ADDRNOTAVAIL|MFILE|NFILE|NOTFOUND|AI_AGAIN))$/

function codeOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''
}
