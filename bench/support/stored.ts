import type { Sql } from 'postgres'
import { paymentId } from '../../src/payment/ids.ts'

/**
 * Receipts as authorizes leave them, made by SQL, any number of them. A customer has fifty payments that lie far apart,
 * as they do when customers come back; one customer has a hundredth of all, so that a page which read all of a history
 * would be seen.
 */

const OF_A_CUSTOMER = 50
export const LARGEST = 'customer-of-many'
const SAMPLES = 25
/** In one statement, so that a large table shows its progress in the server's log and none is too long. */
const CHUNK = 100_000

export async function store(sql: Sql<{ bigint: number }>, count: number): Promise<void> {
  await sql`truncate payments, operations, transitions, bank_calls cascade`
  const customers = Math.ceil(count / OF_A_CUSTOMER)
  for (let from = 0; from < count; from += CHUNK) {
    const to = Math.min(count, from + CHUNK) - 1
    // One message, one transaction: the driver's own transactions are not to be trusted. The rows refer to each other
    // rightly by construction; to look each one up would take most of the time.
    await sql.unsafe(`
      set local session_replication_role = replica;
      set local synchronous_commit = off;
      create temporary table made on commit drop as
        select i, uuidv7((i - ${count}) * interval '1 second') as pid, uuidv7((i - ${count}) * interval '1 second') as oid,
               clock_timestamp() + (i - ${count}) * interval '1 second' as at
        from generate_series(${from}, ${to}) as i;
      insert into payments (id, order_id, customer_id, amount_cents, card_brand, card_last4, card_expiry_month,
                            card_expiry_year, state, version, authorization_id, authorization_expires_at, created_at,
                            updated_at)
        select pid, 'order-' || i, case when i % 100 = 7 then '${LARGEST}' else 'customer-' || i % ${customers} end,
               4999, 'visa', '1111', 12, 2030, 'AUTHORIZED', 2, 'auth_' || pid, at + interval '10 years', at, at
        from made;
      insert into operations (id, client, idempotency_key, kind, payment_id, input, status, transition_version, attempt,
                              attempt_token, attempt_purpose, sent_at, created_at, resolved_at)
        select oid, 'bench', 'stored-' || i, 'AUTHORIZE', pid, '{}', 'SUCCEEDED', 2, 1, oid, 'SEND', at, at, at from made;
      insert into transitions (payment_id, version, from_state, to_state, at, operation_id, cause, actor)
        select pid, step.version, step.from_state, step.to_state, at, oid, 'AUTHORIZE', 'bench'
        from made, (values (1, null, 'PENDING'), (2, 'PENDING', 'AUTHORIZED')) as step (version, from_state, to_state)`)
  }
  await sql`vacuum (analyze) payments, operations, transitions`
}

/** What is asked for: spread over all that is stored, and the largest history. */
export async function samples(sql: Sql<{ bigint: number }>) {
  const found = await sql<{ id: string; orderId: string; customerId: string }[]>`
    select id, order_id, customer_id from payments p
    where order_id = any(array(
      select 'order-' || (n * (select count(*) from payments) / ${SAMPLES}) from generate_series(0, ${SAMPLES - 1}) as n))`
  return {
    payment: found.map(({ id }) => ({ id: paymentId(id) })),
    paymentsByOrder: found.map(({ orderId }) => ({ orderId })),
    customerHistory: [{ customerId: LARGEST }, ...found.map(({ customerId }) => ({ customerId }))],
  }
}
