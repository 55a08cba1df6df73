import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { claimDue } from '../../src/events/deliveries.ts'
import { systemClock } from '../../src/gateway.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, succeeded, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** The database's clock was ahead for a while and has been set right: nothing that was said or put off then stays. */

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

async function scene() {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const { client, gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
  const clock = { laterMs: 0 }
  gateway.clock = { ...systemClock, databaseTime: () => new Date(Date.now() + clock.laterMs) }
  const stateOf = async (id: string) =>
    (await database.sql<{ state: string }[]>`select state from payments where id = ${id.slice(4)}`)[0]?.state
  return { database, bank, client, gateway, clock, stateOf }
}

describe('a database whose clock is ahead', () => {
  it('refuses no capture: the bank says whether the hold has run out', async () => {
    const { client, clock } = await scene()
    const { id } = await authorized(client)
    clock.laterMs = 8 * DAY_MS
    const asked = { paymentId: id, idempotencyKey: randomUUID() }
    expect(succeeded(await client.capture(asked)).payment.state).toBe('CAPTURED')
    clock.laterMs = 0
    expect(succeeded(await client.capture(asked)).replayed).toBe(true)
  })

  it('refuses no card that this machine’s clock finds good', async () => {
    const { client, clock } = await scene()
    clock.laterMs = 10 * 366 * DAY_MS
    expect(succeeded(await client.authorize({ card: TEST_CARD })).payment.state).toBe('AUTHORIZED')
  })
})

describe('once it is set right', () => {
  it('a payment’s webhooks go, and its later ones', async () => {
    const { database, client, gateway, clock } = await scene()
    await database.sql`select switch_recording(true)`
    clock.laterMs = DAY_MS
    const { id } = await authorized(client)
    clock.laterMs = 0
    await client.capture({ paymentId: id })
    const [first] = await claimDue(gateway, 10)
    expect(first).toMatchObject({ paymentId: id.slice(4), version: 1 })
  })

  it('a hold that is left by a failed authorize is found and released while the bank remembers it', async () => {
    const { bank, client, gateway, clock, stateOf } = await scene()
    bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
    bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: null })
    clock.laterMs = 2 * DAY_MS
    const { payment } = await client.authorize()
    const id = payment?.id ?? ''
    while ((await stateOf(id)) === 'PENDING') {
      clock.laterMs += 2_000
      await sweep(gateway)
    }
    bank.faults.clear()
    clock.laterMs = 0
    await sweep(gateway)
    await sweep(gateway)
    expect(await stateOf(id)).toBe('VOIDED')
  })

  it('a hold that could not be released then is released', async () => {
    const { database, bank, client, gateway, clock, stateOf } = await scene()
    const { id } = await authorized(client)
    await database.sql`update payments set authorization_expires_at = clock_timestamp() - interval '1 hour' where id = ${id.slice(4)}`
    clock.laterMs = DAY_MS
    gateway.clock = { ...gateway.clock, wallMs: () => Date.now() + DAY_MS }
    bank.faults.add('chaos', { endpoint: 'voids', times: 4 })
    await sweep(gateway)
    bank.faults.clear()
    expect(await stateOf(id)).toBe('AUTHORIZED')
    clock.laterMs = 0
    await sweep(gateway)
    expect(await stateOf(id)).toBe('EXPIRED')
  })
})

describe('a card that has expired', () => {
  it.each([
    ['by our clocks', { ...TEST_CARD, expiryMonth: 3, expiryYear: 2020 }],
    ['by the bank', { number: '5105105105105100', cvv: '321', expiryMonth: 12, expiryYear: 2030 }],
  ])('leaves the receipt of a decline (%s)', async (_, card) => {
    const { client } = await scene()
    const orderId = randomUUID()
    const asked = { orderId, idempotencyKey: randomUUID(), card }
    const told = await client.authorize(asked)
    expect(told).toMatchObject({ code: 'CARD_EXPIRED', payment: { state: 'DECLINED', version: 2 } })
    expect(await client.authorize(asked)).toEqual(told)
    const { paymentsByOrder } = await client.query<{ paymentsByOrder: unknown[] }>(
      `query ($orderId: String!) { paymentsByOrder(orderId: $orderId) { state transitions { fromState toState cause } } }`,
      { orderId },
    )
    expect(paymentsByOrder).toEqual([
      {
        state: 'DECLINED',
        transitions: [
          { fromState: null, toState: 'PENDING', cause: 'AUTHORIZE' },
          { fromState: 'PENDING', toState: 'DECLINED', cause: 'AUTHORIZE' },
        ],
      },
    ])
    expect(succeeded(await client.authorize({ orderId })).payment.state).toBe('AUTHORIZED')
  })
})
