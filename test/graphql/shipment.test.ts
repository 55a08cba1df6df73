import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** May the goods of an order leave? */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const { sql } = database
const uuidOf = (payment: { id: string }) => payment.id.slice('pay_'.length)
const declining = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
let orderId: string
beforeEach(() => {
  orderId = `order-${randomUUID()}`
})

describe('shipmentCheck', () => {
  async function check(amountCents = 4_999) {
    const document = `query ($orderId: String!, $amountCents: Cents!) { check: shipmentCheck(orderId: $orderId, amountCents: $amountCents) {
      mayShip reason explanation holdExpiresAt payments { mayShip reason holdExpiresAt payment { id } } } }`
    return (await client.query<{ check: Record<string, unknown> }>(document, { orderId, amountCents })).check
  }
  const no = (reason: string) => ({ mayShip: false, reason, holdExpiresAt: null })

  it('says no without a payment', async () => {
    expect(await check()).toEqual({
      ...no('NO_PAYMENT'),
      explanation: 'The order has no payment.',
      payments: [],
    })
  })

  it('says yes to a hold, with its expiry, but only for its amount', async () => {
    const { id } = await authorized(client, { orderId })
    const moment = expect.stringMatching(/Z$/) as string
    expect(await check()).toMatchObject({
      mayShip: true,
      reason: 'AUTHORIZED',
      holdExpiresAt: moment,
      payments: [{ mayShip: true, reason: 'AUTHORIZED', holdExpiresAt: moment, payment: { id } }],
    })
    expect(await check(5_000)).toMatchObject(no('AMOUNT_DIFFERS'))
    expect(await check(4_998)).toMatchObject(no('AMOUNT_DIFFERS'))
  })

  it('says no to an expired hold', async () => {
    const payment = await authorized(client, { orderId })
    await sql`update payments set authorization_expires_at = clock_timestamp() where id = ${uuidOf(payment)}`
    expect(await check()).toMatchObject(no('AUTHORIZATION_EXPIRED'))
  })

  it('follows capture and refund, and says no while one is under way', async () => {
    const { id } = await authorized(client, { orderId })
    const capturing = bank.faults.hold('before', { endpoint: 'captures' })
    const capture = client.capture({ paymentId: id })
    await capturing.arrived
    expect(await check()).toMatchObject(no('OPERATION_IN_FLIGHT'))
    capturing.open()
    await capture
    expect(await check()).toMatchObject({ mayShip: true, reason: 'CAPTURED', holdExpiresAt: null })
    expect(await check(1)).toMatchObject(no('AMOUNT_DIFFERS'))
    const refunding = bank.faults.hold('before', { endpoint: 'refunds' })
    const refund = client.refund({ paymentId: id })
    await refunding.arrived
    expect(await check()).toMatchObject(no('OPERATION_IN_FLIGHT'))
    refunding.open()
    await refund
    expect(await check()).toMatchObject(no('REFUNDED'))
  })

  it('says no to a void under way, to a voided, a declined, a failed and a pending payment', async () => {
    await client.authorize({ orderId, card: declining })
    expect(await check()).toMatchObject(no('DECLINED'))
    bank.faults.add('chaos', { times: null, endpoint: 'authorizations' })
    await client.authorize({ orderId })
    bank.faults.clear()
    expect(await check()).toMatchObject({
      ...no('DECLINED'),
      payments: [{ reason: 'FAILED' }, { reason: 'DECLINED' }],
    })
    const asking = bank.faults.hold('before', { endpoint: 'authorizations' })
    const authorizing = authorized(client, { orderId })
    await asking.arrived
    expect(await check()).toMatchObject(no('PENDING'))
    await sql`update payments set review_reason = 'odd', review_since = now() where order_id = ${orderId}`
    expect(await check()).toMatchObject(no('UNDER_REVIEW'))
    await sql`update payments set review_reason = null, review_since = null where order_id = ${orderId}`
    asking.open()
    const { id } = await authorizing
    const releasing = bank.faults.hold('before', { endpoint: 'voids' })
    const voiding = client.void({ paymentId: id })
    await releasing.arrived
    expect(await check()).toMatchObject(no('OPERATION_IN_FLIGHT'))
    releasing.open()
    await voiding
    expect(await check()).toMatchObject(no('VOIDED'))
  })

  it('lists several payments and never sums them', async () => {
    const half = await authorized(client, { orderId, amountCents: 2_000 })
    const other = await authorized(client, { orderId, amountCents: 2_999, allowAnotherForOrder: true })
    expect(await check()).toMatchObject({
      ...no('AMOUNT_DIFFERS'),
      payments: [
        { mayShip: false, payment: { id: other.id } },
        { mayShip: false, payment: { id: half.id } },
      ],
    })
    const whole = await captured(client, { orderId, allowAnotherForOrder: true })
    expect(await check()).toMatchObject({ mayShip: true, reason: 'CAPTURED', payments: { length: 3 } })
    expect(await check(2_000)).toMatchObject({ mayShip: true, reason: 'AUTHORIZED' })

    await sql`update payments set capture_id = null where id = ${uuidOf(whole)}`
    expect(await check()).toMatchObject(no('CAPTURE_UNCONFIRMED'))
    await sql`update payments set review_reason = 'odd', review_since = now() where id = ${uuidOf(whole)}`
    expect(await check()).toMatchObject(no('UNDER_REVIEW'))
  })
})
