import type { EventEmitter } from 'node:events'
import type { Logger } from 'pino'
import type { Bank } from './bank/bank.ts'
import type { Database } from './db/connection.ts'
import type { Live } from './events/live.ts'
import type { InFlight } from './operation/lock.ts'
import type { Payment } from './payment/payment.ts'

/**
 * What every function of the gateway is given as its first argument. Made once by main (or a test), it has no
 * methods of its own: the functions are in the folders.
 */
export type Gateway = {
  sql: Database
  bank: Bank
  clock: Clock
  /** Uniform in [0, 1). */
  random: () => number
  log: Logger
  settings: OperationSettings
  inFlight: InFlight
  /** Each payment that a commit of this process may have changed. Who hears it (events/) neither waits nor throws. */
  changes: EventEmitter<{ payment: [payment: Payment] }>
  /** Who follows payments by this process. */
  live: Live
}

export type Clock = {
  /** The time that SQL shall take for now, or null for the database's own clock (always, outside tests). */
  databaseTime: () => Date | null
  /** Milliseconds that only grow; for measuring how long something took. */
  monotonicMs: () => number
  /** The machine's wall clock: it also runs while the machine is suspended, and can be set. */
  wallMs: () => number
  sleep: (ms: number) => Promise<void>
}

export const systemClock: Clock = {
  databaseTime: () => null,
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
}

/** Durations are settings so that a simulation can run at a tenth of them; see config.ts for the defaults' reasons. */
export type OperationSettings = {
  /** How long a client waits for a result before it is told OUTCOME_UNKNOWN or OPERATION_IN_FLIGHT. */
  requestDeadlineMs: number
  /** The whole of one exchange with the bank, body included. */
  attemptTimeoutMs: number
  /** After an attempt's timeout, how long the bank may still be at work on it. */
  quietPeriodMs: number
  /** A claim older than this sends nothing: it is claimed again first. */
  claimFreshMs: number
  /** How long after its send a request can be looked up at the bank by key (it forgets after 24 h). */
  replayWindowMs: number
  /** Re-sends after the first, in one run. */
  resendsMax: number
  /** How soon recovery asks again at least about what a run had to leave; then less and less often (sql/settle.sql). */
  recoverAfterMs: number
  /** Full jitter: a wait is uniform in 0..min(cap, base x 2^n). */
  backoffBaseMs: number
  backoffCapMs: number
  /** After the end of an authorization, how long the gateway leaves its hold to clocks that differ. */
  expireMarginMs: number
  /** What recovery works on at one time, so that clients find places at the bank. */
  recoveriesMax: number
  /** The least time between two looks that must agree (probes of an authorize, a doubtful decline). */
  confirmAfterMs: number
}
