import { inPieces } from '../db/in-pieces.ts'
import { answered, persist } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import type { Audit, Payment, Transition } from '../payment/payment.ts'
import { rowFromJson } from '../payment/rows.ts'
import type { Outcome } from './receiver.ts'

/**
 * Webhook deliveries as rows: one for each transition, written by the trigger of sql/004_events.sql in the very
 * statement that makes the transition, while recording is on. `due_at` is set on the one that may be sent next of each
 * payment, so that an index of what is due holds nothing that has to wait.
 */
export const WEBHOOK_STATUSES = ['PENDING', 'FAILING', 'DELIVERED', 'GIVEN_UP'] as const
export type WebhookStatus = (typeof WEBHOOK_STATUSES)[number]

/** A row of `webhook_deliveries`. */
export type Delivery = {
  paymentId: string
  version: number
  status: WebhookStatus
  recordedAt: Date
  attempts: number
  /** When it may be sent; null when it has ended, or waits for the one before it. */
  dueAt: Date | null
  firstAttemptAt: Date | null
  lastAttemptAt: Date | null
  lastHttpStatus: number | null
  lastError: string | null
  endedAt: Date | null
  resentAt: Date | null
}

/** One that this process is to send now: attempt `attempts`, and what it says. Nothing in it ever changes. */
export type Claimed = Pick<Delivery, 'paymentId' | 'version' | 'attempts'> &
  Pick<Transition, 'fromState' | 'toState' | 'at' | 'bankAt'> &
  Pick<Payment, 'orderId' | 'customerId' | 'amountCents' | 'currency' | 'cardBrand' | 'cardLast4'>

/** Above the attempt's timeout and the time that a claim's answer may take: then another process may send it. */
const LEASE_MS = 30_000
/**
 * The wait doubles from the first to the second, with a quarter of chance either way, until the time is up. A receiver
 * that asks for a longer one gets it, up to the second.
 */
const RETRY_LEAST_MS = 5_000
const RETRY_MOST_MS = 3_600_000
const GIVE_UP_AFTER_MS = 3 * 24 * 3_600_000

/** Takes what is due, the longest due first, for LEASE_MS. No lock outlives the statement. */
export async function claimDue(gateway: Gateway, atMost: number): Promise<Claimed[]> {
  return await answered(gateway.sql<Claimed[]>`
    with moment as materialized (
      select coalesce(${gateway.clock.databaseTime()}::timestamptz, clock_timestamp()) as now
    ), due as (
      select payment_id, version from webhook_deliveries
      where due_at <= (select now from moment)
      order by due_at limit ${atMost} for update skip locked
    ), ahead as (
      -- Later than any can be put off: dated by a clock that was ahead.
      select payment_id, version from webhook_deliveries
      where due_at > (select now from moment) + ${RETRY_MOST_MS * 1.25} * interval '1 millisecond'
      order by due_at limit ${atMost} for update skip locked
    ), taken as (select * from due union all select * from ahead)
    update webhook_deliveries d set
      attempts = d.attempts + 1,
      due_at = now + ${LEASE_MS} * interval '1 millisecond',
      first_attempt_at = coalesce(d.first_attempt_at, now),
      last_attempt_at = now
    from moment, taken
    join transitions t using (payment_id, version)
    join payments p on p.id = payment_id
    where d.payment_id = taken.payment_id and d.version = taken.version
    returning d.payment_id, d.version, d.attempts, t.from_state, t.to_state, t.at, t.bank_at,
              p.order_id, p.customer_id, p.amount_cents, p.currency, p.card_brand, p.card_last4`)
}

export async function settleDelivery(
  gateway: Gateway,
  { paymentId, version, attempts }: Claimed,
  outcome: Outcome,
): Promise<WebhookStatus | null> {
  const item = {
    ...outcome,
    retryAfterMs: Math.min(outcome.retryAfterMs ?? 0, RETRY_MOST_MS),
    retryLeastMs: RETRY_LEAST_MS,
    retryMostMs: RETRY_MOST_MS,
    jitter: 0.75 + gateway.random() / 2,
    giveUpAfterMs: GIVE_UP_AFTER_MS,
  }
  const step = { name: 'settle webhook', payment: `pay_${paymentId}` }
  return await persist(gateway, step, gateway.clock.monotonicMs() + LEASE_MS, async () => {
    const [row] = await gateway.sql<{ status: WebhookStatus | null }[]>`
      select settle_delivery(${paymentId}::uuid, ${version}, ${attempts}, ${gateway.sql.json(item)},
                             ${gateway.clock.databaseTime()}) as status`
    return row?.status ?? null
  })
}

/** Null when nothing was recorded for that transition. The audit line is written in the same statement. */
export async function resendDelivery(
  gateway: Gateway,
  { paymentId, version }: Pick<Delivery, 'paymentId' | 'version'>,
  audit: Audit,
): Promise<Delivery | null> {
  const deadlineMs = gateway.clock.monotonicMs() + gateway.settings.requestDeadlineMs
  const step = { name: 'resend webhook', payment: `pay_${paymentId}` }
  return await persist(gateway, step, deadlineMs, async () => {
    const [row] = await gateway.sql<{ delivery: Record<string, unknown> | null }[]>`
      select resend_delivery(${paymentId}::uuid, ${version}, ${gateway.sql.json(audit)},
                             ${gateway.clock.databaseTime()}) as delivery`
    return row?.delivery == null ? null : rowFromJson<Delivery>(row.delivery)
  })
}

/** Of each payment in the order of its history. */
export async function deliveriesOfPayments(
  gateway: Gateway,
  paymentIds: readonly string[],
): Promise<Delivery[]> {
  return await answered(gateway.sql<Delivery[]>`
    select * from webhook_deliveries where payment_id = any(${paymentIds}::uuid[]) order by payment_id, version`)
}

export type DeliveryFilter = {
  status?: WebhookStatus | null | undefined
  paymentId?: string | null | undefined
}
export type Place = Pick<Delivery, 'paymentId' | 'version'>

/** One page by keyset: those of the newest payments first, of each the newest first; one more than `first` if there are. */
export async function pageOfDeliveries(
  { sql }: Gateway,
  { status = null, paymentId = null }: DeliveryFilter,
  { first, after }: { first: number; after: Place | null },
): Promise<Delivery[]> {
  return await answered(sql<Delivery[]>`
    select * from webhook_deliveries
    where true
      ${status === null ? sql`` : sql`and status = ${status}`}
      ${paymentId === null ? sql`` : sql`and payment_id = ${paymentId}::uuid`}
      ${after === null ? sql`` : sql`and (payment_id, version) < (${after.paymentId}::uuid, ${after.version})`}
    order by payment_id desc, version desc
    limit ${first + 1}`)
}

/** Whether transitions are recorded for delivery in this database, and how many wait. */
export async function recording({ sql }: Gateway): Promise<{ isOn: boolean; waiting: number }> {
  const [row] = await answered(sql<{ isOn: boolean; waiting: number }[]>`
    select tgenabled <> 'D' as is_on,
           (select count(*)::int from (select from webhook_deliveries where status in ('PENDING', 'FAILING')
                                       limit ${COUNT_MAX}) as waiting) as waiting
    from pg_trigger where tgrelid = 'transitions'::regclass and tgname = 'transitions_are_delivered'`)
  if (row === undefined) throw new Error('the trigger transitions_are_delivered is missing')
  return row
}

const COUNT_MAX = 10_000

/** Waits for the statements that write transitions now. */
export async function switchRecording({ sql }: Gateway, on: boolean): Promise<void> {
  await inPieces(() => answered(sql`select switch_recording(${on})`))
}
