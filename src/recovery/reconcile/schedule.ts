import { setTimeout as pause } from 'node:timers/promises'
import { answered, isPassing } from '../../db/persist.ts'
import type { Gateway } from '../../gateway.ts'
import { reconcile } from '../reconcile.ts'
import { begin } from './begin.ts'
import { EndsEarly, leave, stop, takeUp } from './runs.ts'
import type { Held } from './runs.ts'

/**
 * Every process looks, every few seconds, for a reconciliation by GET that nobody works on: one that was asked for by
 * the API, or whose process is gone; or begins one when it is time. The run's lease lets one process have it.
 */
export function startReconciler(
  gateway: Gateway,
  settings: { everyHours: number; lookEveryMs?: number },
): { stop(): Promise<void> } {
  const { everyHours, lookEveryMs = LOOK_EVERY_MS } = settings
  const stopped = new AbortController()
  const done = (async () => {
    while (!stopped.signal.aborted) {
      await pause(lookEveryMs * (0.5 + gateway.random()), null, { signal: stopped.signal, ref: false }).catch(
        () => null,
      )
      if (!stopped.signal.aborted) await reconcileWhatIsDue(gateway, everyHours, stopped.signal)
    }
  })()
  return {
    stop: async () => {
      stopped.abort()
      await done
    },
  }
}

const LOOK_EVERY_MS = 5_000
/** A bank that does not answer is asked again then. */
const BANK_PAUSE_MS = 5 * 60_000
/** Holds last as long. */
export const DAYS_BY_DEFAULT = 7
/** Longer than any receipt is old. */
export const DAYS_MAX = 36_500

/** Works on what is due until it has ended, or until the signal; never rejects. `everyHours` 0: only what was asked for. */
export async function reconcileWhatIsDue(
  gateway: Gateway,
  everyHours: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    const runId = (await waitingRun(gateway)) ?? (await beginWhenDue(gateway, everyHours))
    const run = runId === null ? null : await takeUp(gateway, runId)
    if (run !== null) await work(gateway, run, signal)
  } catch (error) {
    // Its lease runs out, and whoever looks then goes on.
    if (isPassing(error))
      gateway.log.warn({ err: error }, 'the database does not answer; reconciling again later')
    else gateway.log.error({ err: error }, 'the reconciliation failed')
  }
}

async function work(gateway: Gateway, run: Held, signal: AbortSignal): Promise<void> {
  const { log } = gateway
  const line = { reconciliation: `rec_${run.id}`, actor: run.actor }
  log.info(line, 'reconciling with the bank')
  try {
    const { checked, matched, skipped, found } = await reconcile(gateway, run, null, {
      signal,
      onProgress: () => {},
    })
    const counts = { ...line, checked, matched, skipped, found }
    if (found > 0) log.error(counts, 'receipts and bank differ')
    else log.info(counts, 'receipts and bank agree')
  } catch (error) {
    if (!(error instanceof EndsEarly)) throw error
    log[error.because === 'BANK_RESET' ? 'error' : 'warn'](line, error.message)
    if (error.because === 'BANK_RESET') await stop(gateway, run.id, error.message, run.holder)
    else await leave(gateway, run, error.message, error.because === 'BANK_SILENT' ? BANK_PAUSE_MS : 0)
  }
}

async function waitingRun({ sql }: Gateway): Promise<string | null> {
  const [run] = await answered(sql<{ id: string }[]>`
    select id from reconciliations
    where kind = 'GET' and stopped_at is null and finished_at is null and leased_until <= clock_timestamp()`)
  return run?.id ?? null
}

/** Counted from the last one, whoever began it, or from the day on which the database was made. */
async function beginWhenDue(gateway: Gateway, everyHours: number): Promise<string | null> {
  if (everyHours === 0) return null
  const [due] = await answered(gateway.sql<{ isDue: boolean }[]>`
    select coalesce((select max(started_at) from reconciliations where kind = 'GET'), (select min(applied_at) from schema_files))
           + ${everyHours} * interval '1 hour' <= clock_timestamp() as is_due`)
  if (due?.isDue !== true) return null
  const answer = await begin(gateway, { kind: 'GET', actor: 'gateway', days: DAYS_BY_DEFAULT }, null)
  return 'begun' in answer ? answer.begun.id : null
}
