import { setTimeout as pause } from 'node:timers/promises'
import type { FaultKind } from '../../src/simulator/faults.ts'
import type { Received, Simulator } from '../../src/simulator/simulator.ts'
import type { PrivateServer } from '../../test/support/private-server.ts'
import type { Gateways } from './gateways.ts'

/** All that goes wrong in a run, as shares of the requests to the bank and at intervals, until it is told to stop. */
export type Faults = {
  /** What was done so far, by name. */
  counts(): Map<string, number>
  /** The bank is well from now on; resolves when what is being restarted is back. */
  stop(): Promise<void>
}

const CHAOS_SHARE = 0.2
/** 5 % resets, 5 % answers lost, 1 % hangs, 0.75 % keys lost, 2 % faults of the bank's database, which roll back. */
const SHARES: Partial<Record<FaultKind, number>> = {
  'drop-before': 0.05,
  'drop-after-store': 0.05,
  'hang-before': 0.005,
  'hang-after-store': 0.005,
  'drop-after-commit': 0.0025,
  'commit-failed-but-done': 0.0025,
  'lookup-fault': 0.0025,
  'database-down': 0.005,
  'insert-failed': 0.005,
  'card-or-parent-not-found': 0.005,
  'commit-failed': 0.005,
  html: 0.004,
  malformed: 0.002,
  'other-amount': 0.004,
  'other-currency': 0.002,
  'other-parent': 0.004,
  late: 0.002,
}
/** Above the attempt's timeout. */
const LATE_MS = 22_000
/** Of the authorizations end within the run. */
const SHORT_SHARE = 0.1
const SHORT_MS = 30_000
const KILL_EVERY_MS = 10_000
const BANK_CUT_EVERY_MS = 60_000
const BANK_CUT_MS = 3_000
const POSTGRES_RESTART_EVERY_MS = 90_000
/** Beyond what was asked for: long enough for its lease to pass to another, and then it wakes up. */
const SUSPEND_EVERY_MS = 100_000
const SUSPEND_MS = 60_000
/**
 * Before the same fault strikes again, clients must have had one answer for so many (unscaled) milliseconds, a tenth of
 * what is usual. On a busy machine a start or restart can take as long as the interval: nothing else would be proven.
 */
const MS_PER_ANSWER = 2_000
const POLL_MS = 20

export function startFaults(options: {
  bank: Simulator
  bankServer: PrivateServer
  receiptsServer: PrivateServer
  gateways: Gateways
  scale: number
  random: () => number
  /** Final answers that clients have had so far. */
  answers: () => number
}): Faults {
  const { bank, bankServer, receiptsServer, gateways, scale, random, answers } = options
  const stopped = new AbortController()
  bank.settings.failureRate = CHAOS_SHARE
  for (const [what, probability] of Object.entries(SHARES)) {
    bank.faults.add(what as FaultKind, { times: null, probability, delayMs: LATE_MS * scale })
  }
  const longHours = bank.settings.authExpiryHours
  const shortHours = (SHORT_MS * scale) / 3_600_000
  Object.defineProperty(bank.settings, 'authExpiryHours', {
    get: () => (!stopped.signal.aborted && random() < SHORT_SHARE ? shortHours : longHours),
  })
  const done = { kills: 0, suspensions: 0, cuts: 0, restarts: 0 }
  const wait = async (ms: number) => await pause(ms, null, { signal: stopped.signal }).catch(() => null)
  const every = async (everyMs: number, strike: () => Promise<void> | void) => {
    for (let struckAt = 0; ; struckAt = answers()) {
      await wait(everyMs * scale)
      while (!stopped.signal.aborted && answers() < struckAt + everyMs / MS_PER_ANSWER) await wait(POLL_MS)
      if (stopped.signal.aborted) return
      await strike()
    }
  }
  const kept = Promise.all([
    every(KILL_EVERY_MS, () => {
      done.kills += gateways.kill(random) ? 1 : 0
    }),
    every(SUSPEND_EVERY_MS, async () => {
      done.suspensions += (await gateways.suspend(random, () => wait(SUSPEND_MS * scale))) ? 1 : 0
    }),
    every(BANK_CUT_EVERY_MS, async () => {
      done.cuts += 1
      await bankServer.restart(async () => await pause(BANK_CUT_MS * scale))
    }),
    every(POSTGRES_RESTART_EVERY_MS, async () => {
      done.restarts += 1
      await receiptsServer.restart()
    }),
  ])

  return {
    counts: () => {
      const { received } = bank
      const count = (is: (line: Received) => boolean) => received.filter(is).length
      const had = (...kinds: FaultKind[]) => count(({ fault }) => fault !== null && kinds.includes(fault))
      return new Map([
        ['500 before any work', count(({ status, fault }) => status === 500 && fault !== 'insert-failed')],
        ['connection reset before any work', had('drop-before')],
        ['done and key stored, answer lost', had('drop-after-store')],
        ['no answer at all', had('hang-before', 'hang-after-store')],
        [
          "a fault of the bank's database, rolled back",
          had('database-down', 'insert-failed', 'card-or-parent-not-found', 'commit-failed'),
        ],
        ['answered as HTML, or by half', had('html', 'malformed')],
        ['answered with something else', had('other-amount', 'other-currency', 'other-parent')],
        ['answered too late', had('late')],
        ['done, key lost', count(({ keyLost }) => keyLost === 'fault')],
        ['done, key lost: its client was gone', count(({ keyLost }) => keyLost === 'client gone')],
        ["done, key lost: the bank's database was gone", count(({ keyLost }) => keyLost === 'database')],
        ["commit broken off with the bank's database", count(({ committed }) => committed === 'perhaps')],
        ['gateway killed', done.kills],
        ['gateway suspended beyond its lease', done.suspensions],
        ["bank's database cut off", done.cuts],
        ['our Postgres restarted', done.restarts],
      ])
    },
    stop: async () => {
      stopped.abort()
      bank.settings.failureRate = 0
      bank.faults.clear()
      await kept
    },
  }
}
