import type { Server, ServerResponse } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import type { Gateway } from './gateway.ts'
import { answersOf } from './graphql/http.ts'
import { drained } from './operation/lock.ts'

/**
 * Leaving without leaving anybody out. Nothing more goes to the bank from the first moment on; what is there gets its
 * time and is settled. The port stays open for `delayMs`, so that whoever balances the load sees in time that we are
 * not ready: what comes meanwhile is answered, and told to connect elsewhere next time. Then the port is closed, and the
 * answers that are still due go out. Live streams end last: they have told what was settled, and who follows them connects
 * at once, which is to another process by now. All of it within 25 s, as orchestrators grant 30.
 */
export function leaver(http: Server): (gateway: Gateway, options: Leave) => Promise<void> {
  const answering = answersOf(http)
  let isLeaving = false
  http.prependListener('request', (_, response: ServerResponse) => {
    // Node says `connection: close` and means it.
    if (isLeaving) response.shouldKeepAlive = false
  })

  return async (gateway, { delayMs, stopRecovery, endStreams }) => {
    const late = new AbortController()
    const tooLate = pause(DRAIN_MS, null, { signal: late.signal })
    isLeaving = true
    gateway.inFlight.draining = true
    for (const response of answering) response.shouldKeepAlive = false
    const recovered = stopRecovery()

    await pause(delayMs)
    const closed = new Promise((done) => http.close(done))
    await Promise.race([Promise.all([recovered, drained(gateway.inFlight), answered(answering)]), tooLate])
    late.abort()
    const { runs, waiters } = gateway.inFlight
    if (runs.size > 0)
      gateway.log.warn({ operations: runs.size }, 'stopping before these have ended; recovery goes on')
    for (const tell of waiters) tell()
    await endStreams()
    // A connection without a request is not waited for.
    await Promise.race([closed, pause(LAST_ANSWERS_MS)])
    http.closeAllConnections()
  }
}

type Leave = {
  /** How long others need to see that this process is not ready any more. */
  delayMs: number
  stopRecovery: () => Promise<unknown>
  endStreams: () => Promise<unknown>
}

/** One attempt at the bank, and settling it. */
const DRAIN_MS = 23_000
const LAST_ANSWERS_MS = 500
const POLL_MS = 20

/** Resolves when no answer is due any more; one that has begun (a live stream never ends) is no longer due. */
async function answered(answering: ReadonlySet<ServerResponse>): Promise<void> {
  while ([...answering].some((response) => !response.headersSent)) await pause(POLL_MS)
}
