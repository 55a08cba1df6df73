import { answered } from '../db/persist.ts'
import { DatabaseSilent } from '../db/pool.ts'
import type { Gateway } from '../gateway.ts'

/** What the receipts hold that somebody may have to act on: see docs/operations.md. */
export type ReceiptsInNumbers = {
  /** Unresolved operations that a process works on, that wait for recovery, and that wait for an operator. */
  operationsUnderWay: number
  operationsDue: number
  operationsInReview: number
  /** Of the first two. */
  oldestUnresolvedSeconds: number
  lateLooksDue: number
  paymentsInReview: number
  oldestReviewSeconds: number
  possibleOrphanHolds: number
  oldestPossibleOrphanHoldSeconds: number
  strayHolds: number
  oldestStrayHoldSeconds: number
  /** Authorized payments whose hold ends within a day, and those whose hold has ended and is not released yet. */
  holdsExpiring: number
  holdsExpired: number
  oldestExpiredHoldSeconds: number
  /** At most 100,000 are counted. The oldest by its payment's age. */
  webhooksWaiting: number
  oldestWebhookSeconds: number
  webhooksGivenUp: number
  /** Of the newest reconciliation of each kind: what it found and nobody mended. How long ago the last one ended. */
  discrepancies: number
  lastReconciliationSeconds: number
}

/** One statement; each of its parts reads a partial index that holds little more than what it counts. */
export async function receiptsInNumbers({ sql, clock }: Gateway): Promise<ReceiptsInNumbers> {
  const [numbers] = await answered(sql<ReceiptsInNumbers[]>`
    with clock as (select coalesce(${clock.databaseTime()}::timestamptz, clock_timestamp()) as now),
    unresolved as (
      select count(*) filter (where leased_until > clock.now)::int as operations_under_way,
             count(*) filter (where leased_until <= clock.now)::int as operations_due,
             count(*) filter (where leased_until is null)::int as operations_in_review,
             min(created_at) filter (where leased_until is not null) as since
      from operations, clock where status = 'UNRESOLVED'
    ), looks as (
      select count(*)::int as late_looks_due from operations, clock where look_again_at <= clock.now
    ), reviews as (
      select count(*)::int as payments_in_review, min(review_since) as since
      from payments where review_reason is not null
    ), orphans as (
      select count(*)::int as possible_orphan_holds, min(possible_orphan_hold_since) as since
      from payments where possible_orphan_hold_since is not null
    ), strays as (
      select count(*)::int as stray_holds, min(found_at) as since from stray_holds where released_at is null
    ), holds as (
      select count(*) filter (where authorization_expires_at > clock.now)::int as holds_expiring,
             count(*) filter (where authorization_expires_at <= clock.now)::int as holds_expired,
             min(authorization_expires_at) as since
      from payments, clock
      where state = 'AUTHORIZED' and authorization_expires_at <= clock.now + interval '1 day'
    ), recorded as (
      -- Where webhooks are switched off, nobody waits for what was left.
      select from pg_trigger where tgrelid = 'transitions'::regclass and tgname = 'transitions_are_delivered'
                               and tgenabled <> 'D'
    ), webhooks as (
      select (select count(*)::int from (select from webhook_deliveries where status in ('PENDING', 'FAILING') and exists (select from recorded)
                                         limit ${WEBHOOKS_MAX}) as counted) as webhooks_waiting,
             (select count(*)::int from (select from webhook_deliveries where status = 'GIVEN_UP'
                                         limit ${WEBHOOKS_MAX}) as counted) as webhooks_given_up,
             least((select recorded_at from webhook_deliveries where status = 'PENDING' and exists (select from recorded)
                    order by payment_id, version limit 1),
                   (select recorded_at from webhook_deliveries where status = 'FAILING' and exists (select from recorded)
                    order by payment_id, version limit 1)) as since
    ), newest as (
      select r.id, r.finished_at from (values ('GET'), ('STATEMENT')) as by (kind) cross join lateral (
        select id, finished_at from reconciliations where kind = by.kind and finished_at is not null
        order by id desc limit 1) as r
    ), reconciled as (
      -- None yet: it has been waited for since the receipts began.
      select coalesce((select max(finished_at) from newest), (select min(applied_at) from schema_files)) as since,
             (select count(*)::int from discrepancies d join newest on d.reconciliation_id = newest.id
              where d.mended_at is null) as discrepancies
    )
    select operations_under_way, operations_due, operations_in_review,
           ${age('unresolved')} as oldest_unresolved_seconds, late_looks_due,
           payments_in_review, ${age('reviews')} as oldest_review_seconds,
           possible_orphan_holds, ${age('orphans')} as oldest_possible_orphan_hold_seconds,
           stray_holds, ${age('strays')} as oldest_stray_hold_seconds,
           holds_expiring, holds_expired, ${age('holds')} as oldest_expired_hold_seconds,
           webhooks_waiting, ${age('webhooks')} as oldest_webhook_seconds, webhooks_given_up,
           discrepancies, ${age('reconciled')} as last_reconciliation_seconds
    from clock, unresolved, looks, reviews, orphans, strays, holds, webhooks, reconciled`)
  if (numbers === undefined) throw new DatabaseSilent()
  return numbers

  function age(of: string) {
    return sql`coalesce(greatest(extract(epoch from clock.now - ${sql(of)}.since), 0), 0)::float8`
  }
}

/** A receiver that has been down for days leaves millions. */
const WEBHOOKS_MAX = 100_000
