import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import type {
  AuditLine,
  BankCall,
  Operation,
  OperationKind,
  Payment,
  StrayHold,
  Transition,
} from './payment.ts'

/**
 * Reading the receipts: one statement a function, each served by an index. Those that take many ids answer for a whole
 * page at once, so that a page costs the same number of statements whatever its size.
 */

/** Of one order, of one payment, of one operation: more than this is not history but an accident. */
const NEWEST_MAX = 100

export async function paymentsById(gateway: Gateway, ids: readonly string[]): Promise<Payment[]> {
  return await answered(gateway.sql<Payment[]>`
    select * from payments where id = any(${ids}::uuid[])`)
}

/** The payment that the operation with this key concerns. */
export async function paymentByKey(
  gateway: Gateway,
  client: string,
  idempotencyKey: string,
): Promise<Payment | null> {
  const [payment] = await answered(gateway.sql<Payment[]>`
    select p.* from operations o join payments p on p.id = o.payment_id
    where o.client = ${client} and o.idempotency_key = ${idempotencyKey}`)
  return payment ?? null
}

/** Of a payment whose receipt was lost: the one that was claimed anew for the same request. */
export async function successorOf({ sql }: Gateway, id: string): Promise<string | null> {
  const [successor] = await answered(sql<{ paymentId: string }[]>`
    select payment_id from payment_successors where id_tail = right(${id}, 12) and payment_id <> ${id}`)
  return successor?.paymentId ?? null
}

/** By the bank's authorization, capture, void or refund id. */
export async function paymentByBankReference(gateway: Gateway, reference: string): Promise<Payment | null> {
  const [payment] = await answered(gateway.sql<Payment[]>`
    select * from payments
    where ${has(gateway, reference)}
    limit 1`)
  return payment ?? null
}

function has({ sql }: Gateway, reference: string) {
  return sql`(authorization_id = ${reference} or capture_id = ${reference}
              or void_id = ${reference} or refund_id = ${reference})`
}

/** The payment that has this id of the bank's, a stray hold of that id, or evidence of it; not what `payment` itself may yet want. */
export async function ownerOf(gateway: Gateway, reference: string, payment: string): Promise<string | null> {
  const asEvidence = [{ evidence: { bankId: reference } }]
  const [owner] = await answered(gateway.sql<{ id: string }[]>`
    select id from payments
    where ${has(gateway, reference)}
    union all
    select a.payment_id from authorizations a join operations o on o.id = a.operation_id
    where a.authorization_id = ${reference} and (a.payment_id <> ${payment} or o.status <> 'UNRESOLVED')
    union all
    select id from payments
    where review_reason is not null and id <> ${payment} and review_evidence @> ${gateway.sql.json(asEvidence)}
    limit 1`)
  return owner?.id ?? null
}

/** Newest first, the newest hundred. */
export async function paymentsOfOrder(gateway: Gateway, orderId: string): Promise<Payment[]> {
  return await answered(gateway.sql<Payment[]>`
    select * from payments where order_id = ${orderId} order by id desc limit ${NEWEST_MAX}`)
}

export type ShipmentPayment = {
  payment: Payment
  operationInFlight: OperationKind | null
  /** The hold has not expired, by the database's clock and by this machine's. */
  holdsNow: boolean
  /** An operator has said that the capture was carried out. */
  isCapturedByWord: boolean
  /** A reconciliation found that the bank has it otherwise, and no later one that compared it found otherwise. */
  hasDiscrepancy: boolean
}

/** Discrepancies after which the money is where the receipt says. */
const HARMLESS = ['ID_MISSING', 'DUPLICATE_LINE', 'UNCLEAR_ANSWER']

/** An order's payments with what is under way on them, in one snapshot; those that hold money first. */
export async function paymentsForShipment(gateway: Gateway, orderId: string): Promise<ShipmentPayment[]> {
  const { clock } = gateway
  const here = clock.databaseTime() ?? new Date(clock.wallMs())
  const rows = await answered(gateway.sql<(Payment & Omit<ShipmentPayment, 'payment'>)[]>`
    select p.*, o.kind as operation_in_flight,
           coalesce(p.authorization_expires_at
                    > greatest(coalesce(${clock.databaseTime()}::timestamptz, clock_timestamp()), ${here}), false) as holds_now,
           exists (select from audit_lines a join operations c on c.id = a.operation_id
                   where a.payment_id = p.id and a.action = 'CLOSE_REVIEW' and c.kind = 'CAPTURE'
                     and a.detail ->> 'outcome' = 'CARRIED_OUT') as is_captured_by_word,
           exists (select from discrepancies d join reconciliations r on r.id = d.reconciliation_id
                   where d.payment_id = p.id and d.mended_at is null and d.kind <> all(${HARMLESS}::text[])
                     and not exists (select from reconciliations n
                                     where n.kind = r.kind and n.id > r.id and n.finished_at is not null
                                       and n.span_from <= p.created_at)) as has_discrepancy
    from payments p
    left join operations o on o.payment_id = p.id and o.status = 'UNRESOLVED' and o.kind <> 'RELEASE'
    where p.order_id = ${orderId}
    order by (p.state in ('CAPTURED', 'AUTHORIZED')) desc, p.id desc limit ${NEWEST_MAX}`)
  return rows.map(({ operationInFlight, holdsNow, isCapturedByWord, hasDiscrepancy, ...payment }) => ({
    payment,
    operationInFlight,
    holdsNow,
    isCapturedByWord,
    hasDiscrepancy,
  }))
}

export async function operationByKey(
  gateway: Gateway,
  client: string,
  idempotencyKey: string,
): Promise<Operation | null> {
  const [operation] = await answered(gateway.sql<Operation[]>`
    select * from operations where client = ${client} and idempotency_key = ${idempotencyKey}`)
  return operation ?? null
}

export async function operationsById(gateway: Gateway, ids: readonly string[]): Promise<Operation[]> {
  return await answered(gateway.sql<Operation[]>`
    select * from operations where id = any(${ids}::uuid[])`)
}

/** Oldest first, of each payment the newest hundred. */
export async function operationsOfPayments(
  gateway: Gateway,
  paymentIds: readonly string[],
): Promise<(Operation & { paymentId: string })[]> {
  return await answered(gateway.sql<(Operation & { paymentId: string })[]>`
    select newest.* from unnest(${paymentIds}::uuid[]) as wanted (id)
    cross join lateral (select * from operations o where o.payment_id = wanted.id
                        order by o.id desc limit ${NEWEST_MAX}) as newest
    order by newest.id`)
}

/** Oldest first: what was sent to the bank and may matter yet. Of what was only refused there is no end. */
export async function operationsThatCount(gateway: Gateway, paymentId: string): Promise<Operation[]> {
  return await answered(gateway.sql<Operation[]>`
    select * from operations
    where payment_id = ${paymentId} and (status <> 'REFUSED' or kind = 'AUTHORIZE' and attempt > 0)
    order by id`)
}

/** At most one of each payment. The release of a stray hold is none: it leaves the payment free. */
export async function operationsInFlight(
  gateway: Gateway,
  paymentIds: readonly string[],
): Promise<(Operation & { paymentId: string })[]> {
  return await answered(gateway.sql<(Operation & { paymentId: string })[]>`
    select * from operations
    where payment_id = any(${paymentIds}::uuid[]) and status = 'UNRESOLVED' and kind <> 'RELEASE'`)
}

/** Oldest first. */
export async function transitionsOfPayments(
  gateway: Gateway,
  paymentIds: readonly string[],
): Promise<Transition[]> {
  return await answered(gateway.sql<Transition[]>`
    select * from transitions where payment_id = any(${paymentIds}::uuid[]) order by payment_id, version`)
}

/** Oldest first, of each operation the newest hundred. */
export async function bankCallsOfOperations(
  gateway: Gateway,
  operationIds: readonly string[],
): Promise<BankCall[]> {
  return await answered(gateway.sql<BankCall[]>`
    select newest.* from unnest(${operationIds}::uuid[]) as wanted (id)
    cross join lateral (select * from bank_calls c where c.operation_id = wanted.id
                        order by c.id desc limit ${NEWEST_MAX}) as newest
    order by newest.id`)
}

/** The last call to which the bank said that what it is about was captured, voided or refunded already. */
export async function refusedAsUsed({ sql }: Gateway, operationId: string) {
  const [call] = await answered(sql<{ errorCode: string | null }[]>`
    select error_code from bank_calls where operation_id = ${operationId} and conclusion = 'alreadyUsed'
    order by id desc limit 1`)
  return call ?? null
}

/** Oldest first. */
export async function strayHoldsOfPayments(
  gateway: Gateway,
  paymentIds: readonly string[],
): Promise<StrayHold[]> {
  return await answered(gateway.sql<StrayHold[]>`
    select * from stray_holds where payment_id = any(${paymentIds}::uuid[]) order by found_at`)
}

/** Oldest first. */
export async function auditLinesOfPayments(
  gateway: Gateway,
  paymentIds: readonly string[],
): Promise<AuditLine[]> {
  return await answered(gateway.sql<AuditLine[]>`
    select * from audit_lines where payment_id = any(${paymentIds}::uuid[]) order by payment_id, id`)
}

/** What can be followed: a payment, or the payments of an order or a customer. */
export type Subject = { by: 'payment' | 'order' | 'customer'; id: string }

/** Of one subject; who follows more than these wants a list. */
export const NEWEST_FOLLOWED = 20

/** The version of each subject's newest payments, oldest first, for all subjects in one statement. */
export async function newestVersions({ sql }: Gateway, subjects: readonly Subject[]) {
  const idsOf = (by: Subject['by']) => [
    ...new Set(subjects.filter((subject) => subject.by === by).map(({ id }) => id)),
  ]
  type Row = { subject: string; id: string; version: number }
  const rows = await answered(sql<Row[]>`
    select 'payment:' || id as subject, id, version from payments where id = any(${idsOf('payment')}::uuid[])
    union all
    select 'order:' || wanted.id, newest.* from unnest(${idsOf('order')}::text[]) as wanted (id)
    cross join lateral (select id, version from payments p where p.order_id = wanted.id
                        order by p.id desc limit ${NEWEST_FOLLOWED}) as newest
    union all
    select 'customer:' || wanted.id, newest.* from unnest(${idsOf('customer')}::text[]) as wanted (id)
    cross join lateral (select id, version from payments p where p.customer_id = wanted.id
                        order by p.id desc limit ${NEWEST_FOLLOWED}) as newest
    order by id`)
  const bySubject = new Map<string, Row[]>()
  for (const row of rows) bySubject.set(row.subject, [...(bySubject.get(row.subject) ?? []), row])
  return ({ by, id }: Subject): readonly Row[] => bySubject.get(`${by}:${id}`) ?? []
}

/** Of what a read threw: the database is away, and nothing is wrong with what was asked. */
export { isPassing as isDatabaseAway } from '../db/persist.ts'

/** Whether the database answers at all; throws when it does not. */
export async function databaseAnswers(gateway: Gateway): Promise<void> {
  await answered(gateway.sql`select 1`)
}
