import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { commitsAtRisk, historyLost } from '../observe/metrics.ts'
import type { CommitRisk } from '../observe/metrics.ts'
import type { SeenHistory } from '../operation/lock.ts'

/**
 * Whether the receipts have lost commits (sql/history.sql). Each claim looks for itself; here this process learns how far
 * the write-ahead log has come, so that it notices when it has gone back, and tells people.
 */
export async function lookAtHistory({ sql, clock, inFlight, log }: Gateway): Promise<void> {
  const { history } = inFlight
  const [row] = await answered(sql<(SeenHistory & { lostAt: Date | null } & Record<CommitRisk, boolean>)[]>`
    select h.*,
           current_setting('fsync') <> 'on' as fsync_off,
           current_setting('full_page_writes') <> 'on' as full_page_writes_off,
           current_setting('synchronous_commit') not in ('on', 'remote_apply') as synchronous_commit_off,
           current_setting('synchronous_standby_names') = '' as no_synchronous_standby
    from look_at_history(${history.seen === null ? null : sql.json(history.seen)}, ${clock.databaseTime()}) as h`)
  if (row === undefined) return
  const { systemIdentifier, timeline, position, lostAt, ...risks } = row
  if (lostAt !== null && lostAt.getTime() !== history.lostAt?.getTime())
    log.error({ alarm: 'history-lost', lostAt, timeline, position }, HISTORY_LOST)
  history.seen = { systemIdentifier, timeline, position }
  history.lostAt = lostAt
  historyLost.set(lostAt === null ? 0 : 1)
  for (const [risk, isSo] of Object.entries(risks)) commitsAtRisk.set({ risk }, isSo ? 1 : 0)
}

const HISTORY_LOST =
  'the receipts may have lost commits: a standby was promoted, or a backup restored. Until the bank has forgotten (25 h), it is asked about each authorize before it is sent. What to do: docs/operations.md, "The receipts lost their last hour"'

/**
 * Looks before anything is claimed, and keeps in `file` how far the log had come, for the next start: that a disk was put
 * back while no process ran is seen by nothing else.
 */
export async function startHistory(gateway: Gateway, file: string): Promise<{ stop(): Promise<void> }> {
  const { history } = gateway.inFlight
  let kept = await readFile(file, 'utf8').catch(() => '')
  history.seen = seenIn(kept)
  await lookAtHistory(gateway)
  const keep = async () => {
    const now = JSON.stringify(history.seen)
    if (now === kept) return
    await writeFile(`${file}.${process.pid}`, now)
    await rename(`${file}.${process.pid}`, file)
    kept = now
  }
  try {
    await mkdir(dirname(file), { recursive: true })
    await keep()
  } catch (error) {
    gateway.log.warn(
      { err: error },
      `${file} cannot be written: a disk that is put back while no process runs is not noticed`,
    )
    return { stop: async () => {} }
  }
  const keepOrLeave = () => keep().catch(() => {})
  const timer = setInterval(() => void keepOrLeave(), KEEP_EVERY_MS).unref()
  return {
    stop: async () => {
      clearInterval(timer)
      await keepOrLeave()
    },
  }
}

const KEEP_EVERY_MS = 10_000

/** Null when it is none of ours: somebody else's file, or half of one. */
function seenIn(text: string): SeenHistory | null {
  try {
    const { systemIdentifier, timeline, position } = JSON.parse(text) as Partial<SeenHistory>
    return /^\d+$/.test(systemIdentifier ?? '') &&
      Number.isSafeInteger(timeline) &&
      /^[0-9A-F]+\/[0-9A-F]+$/.test(position ?? '')
      ? ({ systemIdentifier, timeline, position } as SeenHistory)
      : null
  } catch {
    return null
  }
}
