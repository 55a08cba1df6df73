import type { Gateway } from '../gateway.ts'
import { nextByGet } from './reconcile/by-get.ts'
import { EndsEarly, enter, finish, keepLease, save } from './reconcile/runs.ts'
import type { Batch, Held, Reconciliation } from './reconcile/runs.ts'
import { clear, isLoaded, load, nextClaims, nextLines } from './reconcile/statement.ts'
import { StatementRefused } from './reconcile/statement-file.ts'

/**
 * The receipts are compared with the bank, and what differs is written down with both sides. Nothing is changed by it.
 *
 * A run is a row with a lease (runs.ts): one at a time, worked on by one process, batch after batch, and what a batch
 * found is written in the statement that moves the cursor. By GET each id that a receipt claims is asked for
 * (by-get.ts); a statement is loaded beside the receipts and compared both ways (statement.ts, judge-line.ts).
 */
export type Watching = {
  /** Ends the run after what is under way; it can be taken up again. */
  signal: AbortSignal
  onProgress: (run: Reconciliation, linesLoaded?: number) => void
}

/** Resolves with the finished run. Throws EndsEarly, StatementRefused, or what the database threw. */
export async function reconcile(
  gateway: Gateway,
  held: Held,
  file: string | null,
  { signal, onProgress }: Watching,
): Promise<Reconciliation> {
  const lost = new AbortController()
  const lease = keepLease(gateway, held, () => lost.abort())
  const stopped = AbortSignal.any([signal, lost.signal])
  let run = held

  async function inBatches(next: () => Promise<Batch | null>): Promise<void> {
    for (;;) {
      if (stopped.aborted || gateway.inFlight.draining) throw new EndsEarly('ASKED')
      const batch = await next()
      if (batch === null) return
      run = await save(gateway, run, batch)
      onProgress(run)
      if (batch.end != null) throw batch.end
    }
  }

  try {
    if (run.kind === 'GET') await inBatches(() => nextByGet(gateway, run, stopped))
    else {
      if (run.phase === 'LOAD') {
        if (file === null) throw new StatementRefused(NO_FILE)
        const loaded = await load(gateway, run, file, stopped, (lines) => onProgress(run, lines))
        run = await enter(gateway, run, 'LINES', loaded)
      } else if (!(await isLoaded(gateway, run))) throw new StatementRefused(NOT_LOADED)
      if (run.phase === 'LINES') {
        await inBatches(() => nextLines(gateway, run))
        run = await enter(gateway, run, 'CLAIMS')
      }
      await inBatches(() => nextClaims(gateway, run))
      await clear(gateway, run)
    }
    return await finish(gateway, run)
  } catch (error) {
    throw lost.signal.aborted ? new EndsEarly('LEASE_LOST') : error
  } finally {
    lease.end()
  }
}

const NO_FILE =
  'The statement was not loaded to its end. Take it up with its file: --resume --statement FILE.'
const NOT_LOADED =
  'The lines of this statement are not in the database any more: another was loaded since, or the server crashed. Begin anew with --statement FILE.'
