import { E_TIMEOUT, Mutex, withTimeout } from 'async-mutex'
import { createLine, createTurns } from '../db/together.ts'
import type { Line } from '../db/together.ts'
import type { Gateway } from '../gateway.ts'
import type { ClaimAgainRow } from './claim-again.ts'
import type { ClaimAnswer } from './claim-row.ts'
import type { Request, Result } from './result.ts'
import type { SettleAnswer } from './settle.ts'
import type { JsonItem, JsonRow } from './standing.ts'
import type { Found } from './turn-away.ts'

/**
 * Order within this process: one mailbox per payment (for an authorize, per order), worked through one at a time.
 * It spares the database and the bank useless work; every safety argument holds without it, by claim and settle.
 */
export type InFlight = {
  mailboxes: Map<string, { mutex: Mutex; users: number }>
  /** The request that is being worked on under each key, so that a duplicate joins it. */
  runs: Map<string, { request: Request; work: Promise<Result> }>
  /** Operations under way elsewhere that somebody here waits for; see await-operation.ts. */
  awaited: { waiters: Map<string, Set<() => void>>; polling: boolean }
  /** Who waits to be put together with others into one statement. */
  lines: {
    claim: Line<JsonItem, JsonRow<ClaimAnswer>>
    claimAgain: Line<JsonItem, ClaimAgainRow>
    settle: Line<JsonItem, JsonRow<SettleAnswer>>
    turnAway: Line<Request, Found | null>
  }
  /** Whoever waits for a result; called, they are told at once what is known. */
  waiters: Set<() => void>
  /** How far this process knows the receipts to have come, and since when it knows that commits were lost. */
  history: { seen: SeenHistory | null; lostAt: Date | null }
  /** An authorization that the bank has told this process: as long as it knows that one, its database is well. */
  knownHold: string | null
  /** Set once at shutdown: what is at the bank is settled, nothing more is sent. */
  draining: boolean
}

/** A place in the write-ahead log of one cluster (sql/history.sql). */
export type SeenHistory = { systemIdentifier: string; timeline: number; position: string }

export function createInFlight(): InFlight {
  const turns = createTurns()
  return {
    mailboxes: new Map(),
    runs: new Map(),
    awaited: { waiters: new Map(), polling: false },
    lines: {
      claim: createLine(turns),
      claimAgain: createLine(turns),
      settle: createLine(turns),
      // Those who are turned away keep nobody waiting who has a place.
      turnAway: createLine(createTurns(true)),
    },
    waiters: new Set(),
    history: { seen: null, lostAt: null },
    knownHold: null,
    draining: false,
  }
}

/**
 * Runs `work` when all that came before it under `name` has ended. A waiter whose turn has not come by `deadlineMs`
 * (monotonic) leaves the queue, gets `late()` and never runs.
 */
export async function withLock<T>(
  gateway: Gateway,
  name: string,
  deadlineMs: number,
  work: () => Promise<T>,
  late: () => T,
): Promise<T> {
  const { mailboxes } = gateway.inFlight
  const mailbox = mailboxes.get(name) ?? { mutex: new Mutex(), users: 0 }
  mailboxes.set(name, mailbox)
  mailbox.users += 1
  try {
    const waitMs = Math.max(0, deadlineMs - gateway.clock.monotonicMs())
    return await withTimeout(mailbox.mutex, waitMs).runExclusive(work)
  } catch (error) {
    if (error === E_TIMEOUT) return late()
    throw error
  } finally {
    mailbox.users -= 1
    if (mailbox.users === 0) mailboxes.delete(name)
  }
}

/** Resolves when no request is at work or waiting any more. */
export async function drained(inFlight: InFlight): Promise<void> {
  while (inFlight.mailboxes.size > 0) {
    await Promise.allSettled([...inFlight.mailboxes.values()].map(({ mutex }) => mutex.waitForUnlock()))
  }
}
