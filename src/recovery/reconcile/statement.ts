import { answered } from '../../db/persist.ts'
import type { Gateway } from '../../gateway.ts'
import { leastUuidAt } from '../../payment/ids.ts'
import type { OperationKind } from '../../payment/payment.ts'
import { candidatesFor, MARGIN_MS } from '../candidates.ts'
import { known, receiptJson as receipt, sideOf } from './discrepancy.ts'
import type { Finding, Receipt } from './discrepancy.ts'
import { judgeLine } from './judge-line.ts'
import type { Seen } from './judge-line.ts'
import { EndsEarly, patiently, rowsOf } from './runs.ts'
import type { Batch, Held } from './runs.ts'
import { linesOf, StatementRefused } from './statement-file.ts'

/**
 * Compares the bank's own ledger, loaded into a table beside the receipts. First each of its lines with the receipts;
 * then, by operation, what the receipts claim with the lines. Both in small batches, each of them a statement or two.
 */
const LOAD_BATCH = 2_000
const LINES_BATCH = 1_000
const CLAIMS_BATCH = 1_000

/** A load that is interrupted begins anew: it takes seconds. */
export async function load(
  gateway: Gateway,
  run: Held,
  file: string,
  signal: AbortSignal,
  onProgress: (lines: number) => void,
): Promise<{ lines: number; from: Date; to: Date }> {
  const { sql } = gateway
  await clear(gateway, run)
  let lines = 0
  let from = Number.POSITIVE_INFINITY
  let to = Number.NEGATIVE_INFINITY
  for await (const batch of linesOf(file, LOAD_BATCH)) {
    if (signal.aborted) throw new EndsEarly('ASKED')
    const rows = batch.map((line, at) => ({ ...line, line: lines + at + 1 }))
    // One whose answer was lost is said again.
    await atHalfSpeed(
      gateway,
      async () =>
        await patiently(
          gateway,
          () => sql`
      insert into statement_lines (reconciliation_id, line, type, id, reference_id, amount_cents, status, at)
      select r.id, l.line, l.type, l.id, l."referenceId", l."amountCents", l.status, l.at
      from reconciliations r, jsonb_to_recordset(${sql.json(rows as never)}) as l (
        line int, type text, id text, "referenceId" text, "amountCents" bigint, status text, at timestamptz)
      where r.id = ${run.id} and r.holder = ${run.holder}
      on conflict do nothing`,
        ),
    )
    lines += rows.length
    for (const { at } of rows) {
      from = Math.min(from, at.getTime())
      to = Math.max(to, at.getTime())
    }
    onProgress(lines)
  }
  if (lines === 0) throw new StatementRefused('The statement has no line.')
  // The queries below are for a planner that knows the table.
  await patiently(gateway, () => sql`analyze statement_lines`)
  // The driver can take a statement for answered when its connection dies.
  const [loaded] = await patiently(
    gateway,
    () =>
      sql<
        { lines: number }[]
      >`select count(*) as lines from statement_lines where reconciliation_id = ${run.id}`,
  )
  if (loaded?.lines !== lines)
    throw new Error(`${loaded?.lines} of ${lines} lines of the statement were loaded`)
  return { lines, from: new Date(from), to: new Date(to) }
}

/** Rests as long as the work took: the database is there for payments. */
async function atHalfSpeed<T>({ clock }: Gateway, work: () => Promise<T>): Promise<T> {
  const beganMs = clock.monotonicMs()
  const result = await work()
  await clock.sleep(Math.min(REST_MS_MAX, clock.monotonicMs() - beganMs))
  return result
}

const REST_MS_MAX = 1_000

/** Empties the table; only for who holds the run. */
export async function clear(gateway: Gateway, run: Held): Promise<void> {
  const [cleared] = await patiently(
    gateway,
    () => gateway.sql<{ isOurs: boolean }[]>`select clear_statement(${run.id}, ${run.holder}) as is_ours`,
  )
  if (cleared?.isOurs !== true) throw new EndsEarly('LEASE_LOST')
}

export async function isLoaded({ sql }: Gateway, run: Held): Promise<boolean> {
  const rows = await answered(
    sql`select from statement_lines where reconciliation_id = ${run.id} and line = ${run.lines}`,
  )
  return rows.length > 0
}

export async function nextLines(gateway: Gateway, run: Held): Promise<Batch | null> {
  const spanTo = run.spanTo ?? new Date(0)
  const seen = await atHalfSpeed(gateway, () => linesAfter(gateway, run))
  const last = seen.at(-1)
  if (last === undefined) return null
  const unknown = seen.filter(
    ({ type, status, receipt, stray }) =>
      type === 'AUTHORIZATION' && status === 'ACTIVE' && receipt === null && stray === null,
  )
  const candidates = await candidatesFor(gateway, unknown)
  const judgements = seen.map((line) =>
    judgeLine({ ...line, candidates: candidates.get(line.id) ?? [] }, spanTo),
  )
  return {
    cursor: String(last.line),
    matched: judgements.filter((one) => one === 'MATCHED').length,
    skipped: judgements.filter((one) => one === 'SKIPPED').length,
    findings: judgements.filter((one): one is Finding => typeof one === 'object'),
  }
}

/** Every line goes back to an authorization: a capture or void by its reference, a refund by its capture's. */
async function linesAfter(gateway: Gateway, run: Held): Promise<Omit<Seen, 'candidates'>[]> {
  return await rowsOf<Omit<Seen, 'candidates'>>(
    gateway,
    'line',
    gateway.sql`
    select l.line, l.type, l.id, l.reference_id, l.amount_cents, l.status, l.at,
      exists (select from statement_lines d
              where d.reconciliation_id = l.reconciliation_id and d.id = l.id and d.line < l.line) as is_repeated,
      exists (select from statement_lines f
              where f.reconciliation_id = l.reconciliation_id and f.reference_id = l.id) as is_followed,
      case when p.id is not null then ${receipt(gateway)} end as receipt,
      exists (select from operations o where o.payment_id = p.id and o.status = 'UNRESOLVED' and o.kind <> 'RELEASE'
              and o.leased_until is not null) as is_recovering,
      case when s.payment_id is not null then jsonb_build_object(
        'paymentId', s.payment_id, 'amountCents', s.amount_cents, 'releasedAt', s.released_at) end as stray,
      p.id is null and s.payment_id is null and exists (
        select from payments e where e.review_reason is not null
          and e.review_evidence @> jsonb_build_array(jsonb_build_object(
            'evidence', jsonb_build_object('bankId', l.id)))) as is_evidence
    from statement_lines l
    left join lateral (
      select c.reference_id from statement_lines c
      where c.reconciliation_id = l.reconciliation_id and c.id = l.reference_id and c.type = 'CAPTURE' limit 1
    ) as captured on true
    cross join lateral (
      select case l.type
        when 'AUTHORIZATION' then l.id
        when 'REFUND' then coalesce(captured.reference_id,
                                    (select r.authorization_id from payments r where r.capture_id = l.reference_id))
        else l.reference_id end as id
    ) as hold
    left join payments p on p.authorization_id = hold.id
    left join stray_holds s on s.authorization_id = hold.id
    where l.reconciliation_id = ${run.id} and l.line > ${Number(run.cursor ?? 0)}
    order by l.line limit ${LINES_BATCH}`,
  )
}

type Claim = {
  operationId: string
  kind: OperationKind
  claimedId: string | null
  parentId: string | null
  receipt: Receipt
  isInSpan: boolean
  isOnStatement: boolean
  /** Of the line with the claimed id. */
  referenceId: string | null
}

/**
 * Only what happened well within the statement's span can be missed in it. Where the bank did not say when it was, it
 * happened some time between being asked for and being concluded, which can be days: all of that lies within, or it may
 * be on another statement.
 */
export async function nextClaims(gateway: Gateway, run: Held): Promise<Batch | null> {
  const claims = await atHalfSpeed(gateway, () => claimsAfter(gateway, run))
  const last = claims.at(-1)
  if (last === undefined) return null
  return {
    cursor: last.operationId,
    // What is there was counted with its line.
    matched: 0,
    skipped: 0,
    findings: claims.map(judgeClaim).filter((finding) => finding !== null),
  }
}

function judgeClaim({
  kind,
  claimedId,
  parentId,
  receipt,
  isInSpan,
  isOnStatement,
  referenceId,
}: Claim): Finding | null {
  const ours = { ...sideOf(receipt), claim: kind }
  const about = { paymentId: receipt.id, bankReference: claimedId, ours }
  if (!isOnStatement) return isInSpan ? { ...about, kind: 'NOT_AT_BANK', bank: null } : null
  if (claimedId === null || referenceId === parentId) return null
  return { ...about, kind: 'PARENT_DIFFERS', bank: known({ id: claimedId, referenceId }) }
}

/** Nothing is carried out at the bank longer than this after it was asked for. */
const LATEST_MS = 7 * 86_400_000

async function claimsAfter(gateway: Gateway, { id, cursor, spanFrom, spanTo }: Held): Promise<Claim[]> {
  const [from, to] = [spanFrom?.getTime() ?? 0, spanTo?.getTime() ?? 0]
  return await rowsOf<Claim>(
    gateway,
    'operation_id',
    gateway.sql`
    select o.id as operation_id, o.kind, claimed.id as claimed_id, claimed.parent_id, ${receipt(gateway)} as receipt,
      coalesce(t.bank_at, o.created_at) >= ${new Date(from + MARGIN_MS)}
        and coalesce(t.bank_at, t.at) <= ${new Date(to - MARGIN_MS)} as is_in_span,
      l.line is not null as is_on_statement, l.reference_id
    from operations o
    join payments p on p.id = o.payment_id
    join transitions t on t.payment_id = o.payment_id and t.version = o.transition_version
    cross join lateral (
      select case o.kind when 'AUTHORIZE' then p.authorization_id when 'CAPTURE' then p.capture_id
                         when 'REFUND' then p.refund_id else p.void_id end as id,
             case o.kind when 'AUTHORIZE' then null when 'REFUND' then p.capture_id
                         else p.authorization_id end as parent_id,
             case o.kind when 'AUTHORIZE' then 'AUTHORIZATION' when 'CAPTURE' then 'CAPTURE'
                         when 'REFUND' then 'REFUND' else 'VOID' end as type
    ) as claimed
    left join lateral (
      -- Where the receipt has no id, by what it refers to.
      select l.line, l.reference_id from statement_lines l
      where l.reconciliation_id = ${id} and l.type = claimed.type
        and (l.id = claimed.id or claimed.id is null and l.reference_id = claimed.parent_id)
      limit 1
    ) as l on true
    where o.id > ${cursor ?? leastUuidAt(from - LATEST_MS)} and o.id < ${leastUuidAt(to)} and o.status = 'SUCCEEDED'
    order by o.id limit ${CLAIMS_BATCH}`,
  )
}
