import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'

/** A hold that the bank has and no receipt names. `at`: when it was placed, by the bank's clock. */
export type Hold = { id: string; amountCents: number; at: Date | string }
/** `willAsk`: recovery is at work on it, or it failed and a late look is to come. */
export type Candidate = { paymentId: string; isRecovering: boolean; willAsk: boolean }

/** The end of a statement may be written while it is exported, and clocks differ. */
export const MARGIN_MS = 60_000

/** By the hold's id: authorizations over its amount that were sent when it was placed, and whose outcome is unknown. */
export async function candidatesFor(
  gateway: Gateway,
  holds: readonly Hold[],
): Promise<Map<string, Candidate[]>> {
  const { sql, settings } = gateway
  const found = new Map<string, Candidate[]>()
  if (holds.length === 0) return found
  const longestMs = settings.attemptTimeoutMs + settings.quietPeriodMs + MARGIN_MS
  const rows = await answered(sql<(Candidate & { id: string })[]>`
    with unknown as (
      select o.*, p.amount_cents
      from payments p join operations o on o.payment_id = p.id and o.kind = 'AUTHORIZE'
      where p.possible_orphan_hold_since is not null and o.status <> 'UNRESOLVED'
      union all
      select o.*, p.amount_cents
      from operations o join payments p on p.id = o.payment_id
      where o.status = 'UNRESOLVED' and o.kind = 'AUTHORIZE'
    )
    select l.id, u.payment_id, u.status = 'UNRESOLVED' and u.leased_until is not null as is_recovering,
           u.leased_until is not null or u.look_again_at is not null as will_ask
    from jsonb_to_recordset(${sql.json(holds as never)}) as l (id text, "amountCents" bigint, at timestamptz)
    join unknown u on u.amount_cents = l."amountCents"
      and l.at between coalesce(u.ambiguous_at, u.sent_at) - ${MARGIN_MS} * interval '1 millisecond'
                   and coalesce(u.ambiguous_at, u.sent_at) + ${longestMs} * interval '1 millisecond'
    order by u.payment_id`)
  for (const { id, ...candidate } of rows) found.set(id, [...(found.get(id) ?? []), candidate])
  return found
}
