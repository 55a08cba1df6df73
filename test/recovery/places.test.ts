import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/gateway.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** Places at the bank are for who asks it something, and recovery leaves some to clients, and some to each of its tasks. */

const HOUR_MS = 3_600_000

async function scene(more: Partial<Parameters<typeof startTestGateway>[0]> = {}) {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const where = { databaseUrl: database.url, bankUrl: bank.url }
  const { client, gateway } = startTestGateway({ ...where, ...more })
  const clock = { laterMs: 0 }
  gateway.clock = { ...systemClock, databaseTime: () => new Date(Date.now() + clock.laterMs) }
  return { database, bank, where, client, gateway, clock }
}

it('who waits for what another process does keeps none', async () => {
  const { bank, where, client } = await scene()
  const other = startTestGateway({ ...where, bank: { maxInFlight: 4, maxQueued: 2 } })
  const orders = Array.from({ length: 6 }, () => ({ idempotencyKey: randomUUID(), orderId: randomUUID() }))
  const payment = await authorized(client)
  const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
  const first = orders.map((input) => client.authorize(input))
  await bank.until((received) => received.filter(({ over }) => !over).length === 6)
  const repeats = orders.map((input) => other.client.authorize(input))
  const { waiters } = other.gateway.inFlight.awaited
  while (waiters.size < 6) await other.gateway.sql`select 1`
  expect(await other.client.capture({ paymentId: payment.id })).toMatchObject({
    payment: { state: 'CAPTURED' },
  })
  gate.open()
  for (const answer of await Promise.all([...first, ...repeats]))
    expect(answer).toMatchObject({ payment: { state: 'AUTHORIZED' } })
})

it('recovery keeps to its own, however long the bank takes', async () => {
  const { bank, client, gateway, clock } = await scene({
    settings: { recoveriesMax: 2, attemptTimeoutMs: 10_000 },
  })
  for (let n = 0; n < 4; n += 1) await authorized(client)
  clock.laterMs = 170 * HOUR_MS
  const gate = bank.faults.hold('before', { endpoint: 'voids' })
  let isOver = false
  const round = sweep(gateway).then(() => (isOver = true))
  await bank.until((received) => received.filter(({ over }) => !over).length === 2)
  for (const deadlineIsOver of gateway.inFlight.waiters) deadlineIsOver()
  for (let n = 0; n < 10; n += 1) await gateway.sql`select 1`
  expect([isOver, gateway.bank.state().inFlight]).toEqual([false, 2])
  gate.open()
  await round
})

it('what is abandoned by the thousand keeps no expired hold waiting', async () => {
  const { database, bank, client, gateway, clock } = await scene({ settings: { recoveriesMax: 2 } })
  const stuck = [await authorized(client), await authorized(client), await authorized(client)]
  const expiring = await authorized(client)
  bank.faults.add('bad-gateway', { endpoint: 'captures', times: null })
  for (const { id } of stuck)
    expect(await client.capture({ paymentId: id })).toMatchObject({ retry: 'SAME_KEY' })
  clock.laterMs = 170 * HOUR_MS
  await sweep(gateway)
  const [row] = await database.sql`select state from payments where id = ${expiring.id.slice(4)}`
  expect(row).toEqual({ state: 'EXPIRED' })
})

it('what stays unknown for days is asked about less often', async () => {
  const { database, bank, client, gateway, clock } = await scene()
  const { id } = await authorized(client)
  bank.faults.add('bad-gateway', { endpoint: 'captures', times: null })
  await client.capture({ paymentId: id })
  const waits: number[] = []
  for (const hours of [0.01, 0.2, 24]) {
    clock.laterMs = hours * HOUR_MS
    await sweep(gateway)
    const [row] = await database.sql<{ tens: number }[]>`
      select round(extract(epoch from leased_until - ${gateway.clock.databaseTime()}::timestamptz) / 10)::int as tens
      from operations where payment_id = ${id.slice(4)} and kind = 'CAPTURE'`
    waits.push(row?.tens ?? -1)
  }
  // Of seconds: once the bank is well, everything is known within 90.
  expect(waits).toEqual([0, 4, 6])
})
