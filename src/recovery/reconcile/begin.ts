import { answered, isDuplicate } from '../../db/persist.ts'
import type { Gateway } from '../../gateway.ts'
import { timeOrderedId } from '../../payment/ids.ts'
import { LEASE_MS, patiently } from './runs.ts'
import type { Reconciliation } from './runs.ts'

/** How a run begins. One at a time, over all processes. */
const DAY_MS = 86_400_000

export type NewRun = { actor: string } & (
  { kind: 'GET'; days: number } | { kind: 'STATEMENT'; source: string }
)

/** `token` null: it is left to the next gateway process that looks (see schedule.ts); else take it up by that. */
export async function begin(
  gateway: Gateway,
  about: NewRun,
  token: string | null,
): Promise<{ begun: Reconciliation } | { underWay: Reconciliation }> {
  const { sql } = gateway
  const id = timeOrderedId()
  const to = new Date()
  const span = about.kind === 'GET' ? { from: new Date(to.getTime() - about.days * DAY_MS), to } : null
  const source = about.kind === 'STATEMENT' ? about.source : null
  for (;;) {
    await stopForsaken(gateway)
    await patiently(
      gateway,
      () => sql`
      insert into reconciliations (id, kind, actor, span_from, span_to, source, phase, holder, leased_until)
      values (${id}, ${about.kind}, ${about.actor}, ${span?.from ?? null}, ${span?.to ?? null}, ${source},
              ${about.kind === 'GET' ? 'CLAIMS' : 'LOAD'}, ${token},
              clock_timestamp() + ${token === null ? 0 : LEASE_MS} * interval '1 millisecond')
      on conflict do nothing`,
    )
    const run = await underWay(gateway)
    if (run !== null) return run.id === id ? { begun: run } : { underWay: run }
    // It was in the way and has ended meanwhile.
  }
}

/** One that no process takes up, not even a gateway that looks every few seconds, is in nobody's way. */
async function stopForsaken(gateway: Gateway): Promise<void> {
  await patiently(
    gateway,
    () => gateway.sql`
    update reconciliations set
      stopped_at = clock_timestamp(), holder = null, leased_until = null, note = 'Its process was gone, and another was begun.'
    where stopped_at is null and finished_at is null
      and leased_until + ${LEASE_MS} * interval '1 millisecond' < clock_timestamp()`,
  )
}

/** The last run by GET, if it was stopped, goes on in the next gateway process that looks. */
export async function goOn(gateway: Gateway): Promise<Reconciliation | null> {
  try {
    const [run] = await patiently(
      gateway,
      () => gateway.sql<Reconciliation[]>`
      update reconciliations r set stopped_at = null, note = null, leased_until = clock_timestamp()
      where r.stopped_at is not null
        and r.id = (select l.id from reconciliations l where l.kind = 'GET' order by l.id desc limit 1)
      returning r.*`,
    )
    return run ?? null
  } catch (error) {
    if (isDuplicate(error)) return null
    throw error
  }
}

export async function underWay({ sql }: Gateway): Promise<Reconciliation | null> {
  const [run] = await answered(sql<Reconciliation[]>`
    select * from reconciliations where stopped_at is null and finished_at is null`)
  return run ?? null
}
