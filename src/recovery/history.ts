import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import type { SeenHistory } from '../operation/lock.ts'
import { historyLost } from '../observe/metrics.ts'

/**
 * Whether the receipts have lost commits (sql/history.sql): each claim looks for itself, and this process remembers how far
 * it has seen them come. Answers since when they are known to have lost some that the bank still remembers, or null.
 */
export async function lookAtHistory({ sql, clock, inFlight, log }: Gateway): Promise<Date | null> {
  const { history } = inFlight
  const [row] = await answered(sql<(SeenHistory & { lostAt: Date | null })[]>`
    select * from look_at_history(${history.seen === null ? null : sql.json(history.seen)}, ${clock.databaseTime()})`)
  if (row === undefined) return history.lostAt
  const { lostAt, ...seen } = row
  if (lostAt !== null && lostAt.getTime() !== history.lostAt?.getTime())
    log.error({ alarm: 'history-lost', lostAt, ...seen }, HISTORY_LOST)
  history.seen = seen
  history.lostAt = lostAt
  historyLost.set(lostAt === null ? 0 : 1)
  return lostAt
}

const HISTORY_LOST =
  'the receipts may have lost commits: the database was restored, or a standby was promoted. Until the bank has forgotten (a day), it is asked about each authorize before it is sent. What is to be done: docs/operations.md, "The receipts lost their last hour"'
