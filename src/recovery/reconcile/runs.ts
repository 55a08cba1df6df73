import { randomUUID } from 'node:crypto'
import type { PendingQuery, Row as SqlRow } from 'postgres'
import { answered, isDuplicate, persist } from '../../db/persist.ts'
import { DatabaseSilent } from '../../db/pool.ts'
import type { Gateway } from '../../gateway.ts'
import { timeOrderedId } from '../../payment/ids.ts'
import type { Finding } from './discrepancy.ts'

/**
 * The runs as rows. One is under way at a time, and whoever has its lease works on it; each statement below says by
 * itself whether it still may. Progress and what was found are written together, so that a run which is stopped, killed
 * or taken over goes on where it was and finds nothing twice.
 */
export type Reconciliation = {
  id: string
  kind: 'GET' | 'STATEMENT'
  /** An API client, `gateway` by schedule, or `cli:` and the user of `npm run reconcile`. */
  actor: string
  spanFrom: Date | null
  spanTo: Date | null
  /** The statement's file name. */
  source: string | null
  lines: number | null
  phase: Phase
  cursor: string | null
  checked: number
  matched: number
  skipped: number
  found: number
  note: string | null
  holder: string | null
  leasedUntil: Date | null
  startedAt: Date
  stoppedAt: Date | null
  finishedAt: Date | null
}
/** LOAD a statement, compare its LINES with the receipts, then what the receipts CLAIM with it (GET: with the bank). */
export type Phase = 'LOAD' | 'LINES' | 'CLAIMS'

/** A run that this process works on. */
export type Held = Reconciliation & { holder: string }

/** What came of a part of a run, and where the next one begins; `end`: it is not worth going on. */
export type Batch = {
  cursor: string
  matched: number
  skipped: number
  findings: Finding[]
  end?: EndsEarly | null
}

/** A run that ends before everything was compared; it can be taken up again where it was. */
export class EndsEarly extends Error {
  readonly because: 'ASKED' | 'LEASE_LOST' | 'BANK_SILENT' | 'BANK_RESET'
  constructor(because: EndsEarly['because'], words = WORDS[because]) {
    super(words)
    this.because = because
  }
}

const WORDS: Record<EndsEarly['because'], string> = {
  ASKED: 'Stopped before its end.',
  LEASE_LOST: 'It was stopped, or another process has taken it up.',
  BANK_SILENT: 'The bank does not answer. Nothing was concluded from that.',
  BANK_RESET: 'The bank was probably reset.',
}

export const LEASE_MS = 60_000
/** A third of the lease: two that fail are no harm. */
const RENEW_MS = 20_000

/** The lease of a run that was stopped, or left by its process; null when it is not to be had. */
export async function takeUp(
  gateway: Gateway,
  runId: string,
  token: string = randomUUID(),
): Promise<Held | null> {
  try {
    const [run] = await patiently(
      gateway,
      () => gateway.sql<Held[]>`
      update reconciliations r set
        holder = ${token}, leased_until = clock_timestamp() + ${LEASE_MS} * interval '1 millisecond',
        stopped_at = null, note = null
      where r.id = ${runId} and r.finished_at is null
        and (r.stopped_at is not null or r.leased_until <= clock_timestamp() or r.holder = ${token})
      returning r.*`,
    )
    return run ?? null
  } catch (error) {
    // Another run is under way.
    if (isDuplicate(error)) return null
    throw error
  }
}

/** Keeps the lease while the work takes long; `lost` when it was taken away. */
export function keepLease(gateway: Gateway, run: Held, lost: () => void): { end(): void } {
  const timer = setInterval(() => {
    renew(gateway, run).then(
      (isOurs) => isOurs || lost(),
      // The next one may get through; what is saved says for itself whether it may.
      () => undefined,
    )
  }, RENEW_MS)
  return { end: () => clearInterval(timer) }
}

async function renew({ sql }: Gateway, { id, holder }: Held): Promise<boolean> {
  const rows = await answered(sql`
    update reconciliations r set leased_until = clock_timestamp() + ${LEASE_MS} * interval '1 millisecond'
    where r.id = ${id} and r.holder = ${holder} returning r.id`)
  return rows.length > 0
}

/** Throws EndsEarly when the run is not ours any more, or is not where we left it. */
export async function save(gateway: Gateway, run: Held, batch: Batch): Promise<Held> {
  const { sql } = gateway
  const { cursor, matched, skipped, findings } = batch
  const found = findings.map((finding) => ({ ...finding, id: timeOrderedId() }))
  const [saved] = await patiently(
    gateway,
    () => sql<Held[]>`
    with moved as (
      update reconciliations r set
        cursor = ${cursor}, leased_until = clock_timestamp() + ${LEASE_MS} * interval '1 millisecond',
        checked = r.checked + ${matched + skipped + found.length}, matched = r.matched + ${matched},
        skipped = r.skipped + ${skipped}, found = r.found + ${found.length}
      where r.id = ${run.id} and r.holder = ${run.holder} and r.phase = ${run.phase}
        and r.cursor is not distinct from ${run.cursor}
      returning r.*
    ), kept as (
      insert into discrepancies (id, reconciliation_id, kind, payment_id, bank_reference, ours, bank)
      select d.id, moved.id, d.kind, d."paymentId", d."bankReference", d.ours, d.bank
      from moved, jsonb_to_recordset(${sql.json(found)}) as d (
        id uuid, kind text, "paymentId" uuid, "bankReference" text, ours jsonb, bank jsonb)
    )
    select * from moved
    union all
    -- The answer to this very statement was lost.
    select r.* from reconciliations r
    where r.id = ${run.id} and r.holder = ${run.holder} and r.phase = ${run.phase} and r.cursor = ${cursor}`,
  )
  if (saved === undefined) throw new EndsEarly('LEASE_LOST')
  return saved
}

/** The next phase begins at its beginning. A statement's lines and span are known once it is loaded. */
export async function enter(
  gateway: Gateway,
  run: Held,
  phase: Phase,
  loaded?: { lines: number; from: Date; to: Date },
): Promise<Held> {
  const [entered] = await patiently(
    gateway,
    () => gateway.sql<Held[]>`
    update reconciliations r set
      phase = ${phase}, cursor = null, lines = coalesce(${loaded?.lines ?? null}, r.lines),
      span_from = coalesce(${loaded?.from ?? null}, r.span_from), span_to = coalesce(${loaded?.to ?? null}, r.span_to)
    where r.id = ${run.id} and r.holder = ${run.holder} returning r.*`,
  )
  if (entered === undefined) throw new EndsEarly('LEASE_LOST')
  return entered
}

/** Everything was compared. */
export async function finish(gateway: Gateway, run: Held): Promise<Reconciliation> {
  const [finished] = await patiently(
    gateway,
    () => gateway.sql<Reconciliation[]>`
    update reconciliations r set
      finished_at = coalesce(r.finished_at, clock_timestamp()), holder = null, leased_until = null
    where r.id = ${run.id} and (r.holder = ${run.holder} or r.finished_at is not null) returning r.*`,
  )
  if (finished === undefined) throw new EndsEarly('LEASE_LOST')
  return finished
}

/** Ended before its end, whoever works on it: it can be taken up again. Null when it is not under way. */
export async function stop(
  gateway: Gateway,
  runId: string,
  note: string,
  holder: string | null = null,
): Promise<Reconciliation | null> {
  const [stopped] = await patiently(
    gateway,
    () => gateway.sql<Reconciliation[]>`
    update reconciliations r set stopped_at = clock_timestamp(), note = ${note}, holder = null, leased_until = null
    where r.id = ${runId} and r.stopped_at is null and r.finished_at is null
      and (${holder}::uuid is null or r.holder = ${holder}::uuid)
    returning r.*`,
  )
  return stopped ?? null
}

/** Still under way, but not here: another process may take it up, `afterMs` from now. */
export async function leave(gateway: Gateway, run: Held, note: string, afterMs: number): Promise<void> {
  await patiently(
    gateway,
    () => gateway.sql`
    update reconciliations r set
      holder = null, note = ${note}, leased_until = clock_timestamp() + ${afterMs} * interval '1 millisecond'
    where r.id = ${run.id} and r.holder = ${run.holder}`,
  )
}

/**
 * The rows of `query`, by `key`. It is asked for in a way that always gives a row: the driver can resolve with none when
 * its connection dies, and a run would then end as if everything had been compared.
 */
export async function rowsOf<Row>(
  gateway: Gateway,
  key: string,
  query: PendingQuery<SqlRow[]>,
): Promise<Row[]> {
  const { sql } = gateway
  return await patiently(gateway, async () => {
    const rows = await sql<(Row & { isRow: boolean | null })[]>`
      select found.* from (values (true)) as asked
      left join lateral (select true as is_row, q.* from (${query}) as q) as found on true
      order by found.${sql(key)}`
    if (rows.length === 0) throw new DatabaseSilent()
    return rows.filter(({ isRow }) => isRow === true)
  })
}

/** A database that is restarted is back by then. */
export async function patiently<T>(gateway: Gateway, statement: () => PromiseLike<T>): Promise<T> {
  return await persist(gateway, { name: 'reconcile' }, gateway.clock.monotonicMs() + PATIENCE_MS, statement)
}

const PATIENCE_MS = 60_000
