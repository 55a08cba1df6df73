import type { TestDatabase } from './database.ts'

/** What a failover to an asynchronous standby, or a restored backup, does to the newest commits: they never were. */
export async function loseCommits(
  { driver }: TestDatabase,
  idempotencyKeys: readonly string[],
): Promise<void> {
  await driver.begin(async (tx) => {
    await tx.unsafe('set local session_replication_role = replica')
    const operations = await tx<
      { id: string; payment_id: string; kind: string; transition_version: number | null }[]
    >`
      select id, payment_id, kind, transition_version from operations
      where idempotency_key = any(${[...idempotencyKeys]}) order by id desc`
    for (const { id, payment_id: payment, kind, transition_version: version } of operations) {
      await tx`delete from bank_calls where operation_id = ${id}`
      await tx`delete from operations where id = ${id}`
      if (kind === 'AUTHORIZE') {
        await tx`delete from transitions where payment_id = ${payment}`
        await tx`delete from authorizations where payment_id = ${payment}`
        await tx`delete from payments where id = ${payment}`
      } else if (version !== null) {
        const [moved] = await tx<{ from_state: string }[]>`
          delete from transitions where payment_id = ${payment} and version = ${version} returning from_state`
        await tx`
          update payments set state = ${moved?.from_state ?? ''}, version = version - 1, capture_id = null,
            void_id = null, refund_id = null where id = ${payment}`
      }
    }
  })
}
