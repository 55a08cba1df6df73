import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { leastUuidAt } from './ids.ts'
import type { Payment, PaymentState } from './payment.ts'

/** Unset (or null) means: whatever. */
export type PaymentFilter = {
  orderId?: string | null | undefined
  customerId?: string | null | undefined
  states?: readonly PaymentState[] | null | undefined
  needsReview?: boolean | null | undefined
  possibleOrphanHold?: boolean | null | undefined
  /** With a hold at the bank that no receipt wants and that is not released yet. */
  strayHold?: boolean | null | undefined
  operationInFlight?: boolean | null | undefined
  /** Authorized, with a hold that runs out before. */
  expiringBefore?: Date | null | undefined
  createdAfter?: Date | null | undefined
  createdBefore?: Date | null | undefined
}

export type PaymentPage = {
  payments: Payment[]
  hasMore: boolean
  /** Where the next page begins (exclusive): the last row looked at, which need not be among `payments`. */
  end: string | null
}

/**
 * One page, newest first, by keyset: ids are UUIDv7, so the id is the order in time and the cursor. What an index
 * serves narrows `looked_at`; the rest of the filter is applied to at most `lookAtMost` rows of it, so that no
 * combination of filters can read the whole table for one page: a page may then be short, or empty, and still have more.
 */
export async function pageOfPayments(
  gateway: Gateway,
  filter: PaymentFilter,
  page: { first: number; after: string | null },
  lookAtMost = LOOK_AT_MOST,
): Promise<PaymentPage> {
  const { sql } = gateway
  const { orderId, customerId, needsReview, possibleOrphanHold, strayHold, operationInFlight } = filter
  const { expiringBefore, createdAfter, createdBefore } = filter
  const byIndex = [
    orderId != null && sql`p.order_id = ${orderId}`,
    customerId != null && sql`p.customer_id = ${customerId}`,
    needsReview === true && sql`p.review_reason is not null`,
    possibleOrphanHold === true && sql`p.possible_orphan_hold_since is not null`,
    strayHold === true && sql`p.id = any(${withStrayHold(gateway)})`,
    operationInFlight === true && sql`p.id = any(${inFlight(gateway)})`,
    expiringBefore != null && sql`p.state = 'AUTHORIZED' and p.authorization_expires_at < ${expiringBefore}`,
    createdAfter != null && sql`p.id >= ${leastUuidAt(createdAfter.getTime() - CLOCKS_DIFFER_MS)}::uuid`,
    createdBefore != null && sql`p.id < ${leastUuidAt(createdBefore.getTime() + CLOCKS_DIFFER_MS)}::uuid`,
    page.after !== null && sql`p.id < ${page.after}::uuid`,
  ].filter((condition) => condition !== false)
  const byLooking = [
    filter.states != null && sql`p.state = any(${[...filter.states]})`,
    needsReview === false && sql`p.review_reason is null`,
    possibleOrphanHold === false && sql`p.possible_orphan_hold_since is null`,
    strayHold === false && sql`p.id <> all(${withStrayHold(gateway)})`,
    operationInFlight === false && sql`p.id <> all(${inFlight(gateway)})`,
    createdAfter != null && sql`p.created_at >= ${createdAfter}`,
    createdBefore != null && sql`p.created_at < ${createdBefore}`,
  ].filter((condition) => condition !== false)
  const all = (conditions: typeof byIndex) =>
    conditions.reduce((before, condition) => sql`${before} and ${condition}`, sql`true`)
  const lookAt = byLooking.length === 0 ? page.first + 1 : lookAtMost

  const rows = await answered(sql<(Payment & { lookedAt: number; lastLookedAt: string | null })[]>`
    with looked_at as materialized (
      select * from payments p where ${all(byIndex)} order by p.id desc limit ${lookAt}
    ), extent as (
      select count(*)::int as looked_at, (array_agg(id order by id))[1] as last_looked_at from looked_at
    )
    select found.*, extent.* from extent left join lateral (
      select * from looked_at p where ${all(byLooking)} order by p.id desc limit ${page.first + 1}
    ) as found on true
    order by found.id desc`)

  const found = rows.filter((row) => row.id !== null)
  const payments = found.slice(0, page.first)
  const last = payments.at(-1)?.id ?? null
  if (found.length > page.first) return { payments, hasMore: true, end: last }
  const [extent] = rows
  const cutOff = byLooking.length > 0 && extent?.lookedAt === lookAt
  return { payments, hasMore: cutOff, end: cutOff ? extent.lastLookedAt : last }
}

/** Some milliseconds of reading, and far more than the payments that ops look for among. */
const LOOK_AT_MOST = 10_000
/** An id is made by the gateway's clock just before `created_at` is by the database's: how far they may be apart. */
const CLOCKS_DIFFER_MS = 10 * 60_000

/** An array, so that it is looked up by: as a set, Postgres walked through all payments to meet it. */
function inFlight({ sql }: Gateway) {
  return sql`array(select o.payment_id from operations o where o.status = 'UNRESOLVED' and o.kind <> 'RELEASE')`
}

function withStrayHold({ sql }: Gateway) {
  return sql`array(select s.payment_id from stray_holds s where s.released_at is null)`
}
