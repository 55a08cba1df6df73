import { answered } from '../../db/persist.ts'
import type { Gateway } from '../../gateway.ts'
import { momentOf } from '../../payment/ids.ts'
import type { Discrepancy } from './discrepancy.ts'
import type { Reconciliation } from './runs.ts'

/** Reading the runs and what they found. */

export async function reconciliationById(gateway: Gateway, id: string): Promise<Reconciliation | null> {
  const [run] = await reconciliationsById(gateway, [id])
  return run ?? null
}

export async function reconciliationsById(
  { sql }: Gateway,
  ids: readonly string[],
): Promise<Reconciliation[]> {
  return await answered(sql<Reconciliation[]>`select * from reconciliations where id in ${sql([...ids])}`)
}

export async function discrepanciesById({ sql }: Gateway, ids: readonly string[]): Promise<Discrepancy[]> {
  return await answered(sql<Discrepancy[]>`select * from discrepancies where id in ${sql([...ids])}`)
}

type Page = { first: number; after: string | null }

/** Newest first; one more than asked for tells that there are more. */
export async function pageOfReconciliations({ sql }: Gateway, page: Page): Promise<Reconciliation[]> {
  return await answered(sql<Reconciliation[]>`
    select * from reconciliations where ${page.after}::uuid is null or id < ${page.after}::uuid
    order by id desc limit ${page.first + 1}`)
}

/** Newest first; one more than asked for tells that there are more. */
export async function pageOfDiscrepancies(
  { sql }: Gateway,
  runId: string,
  page: Page,
): Promise<Discrepancy[]> {
  return await answered(sql<Discrepancy[]>`
    select * from discrepancies
    where reconciliation_id = ${runId} and (${page.after}::uuid is null or id < ${page.after}::uuid)
    order by id desc limit ${page.first + 1}`)
}

/** How far a run has come in its phase, 0 to 1: by lines, or by the time in the operations' ids. */
export function portionDone({ phase, cursor, lines, spanFrom, spanTo, finishedAt }: Reconciliation): number {
  if (finishedAt !== null) return 1
  if (cursor === null) return 0
  if (phase === 'LINES') return lines === null || lines === 0 ? 0 : Number(cursor) / lines
  if (spanFrom === null || spanTo === null) return 0
  const span = spanTo.getTime() - spanFrom.getTime()
  return Math.min(1, Math.max(0, (momentOf(cursor) - spanFrom.getTime()) / Math.max(1, span)))
}
