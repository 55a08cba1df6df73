import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { startTestBank } from './support/bank.ts'
import { authorized, captured, succeeded, TEST_CARD } from './support/client.ts'
import type { Answered } from './support/client.ts'
import { testDatabase } from './support/database.ts'
import { spawnGateway, startTestGateway } from './support/gateway.ts'

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const env = { DATABASE_URL: database.url, BANK_URL: bank.url, REQUEST_DEADLINE_MS: '5000' }
const [one, two] = await Promise.all([spawnGateway(env), spawnGateway(env)])
const here = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, clientName: 'dev' })

const count = <T>(items: T[], one: T) => items.filter((item) => item === one).length
const codes = (answers: Answered[]) => answers.map((answer) => answer.code ?? 'SUCCESS')
let order: string
beforeEach(() => {
  order = `order-${randomUUID()}`
  bank.faults.clear()
})
const holdsOf = async (cents: number) =>
  (await bank.transactions('AUTHORIZATION')).filter((row) => row.amount_cents === cents)

describe('the same request again', () => {
  it('50 concurrent duplicates through two processes place one hold and get one answer 50 times', async () => {
    const input = { idempotencyKey: randomUUID(), orderId: order, amountCents: 5_001 }
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        (index % 2 === 0 ? one : two).client.authorize(input).then(succeeded),
      ),
    )
    expect(await holdsOf(5_001)).toHaveLength(1)
    expect(new Set(answers.map((answer) => JSON.stringify([answer.payment, answer.transition]))).size).toBe(1)
    expect(
      count(
        answers.map((answer) => answer.replayed),
        false,
      ),
    ).toBe(1)
  })

  it('gives the original transition and today’s payment after the payment has moved on', async () => {
    const input = { idempotencyKey: randomUUID(), orderId: order }
    const first = succeeded(await one.client.authorize(input))
    succeeded(await two.client.capture({ paymentId: first.payment.id }))
    const again = succeeded(await two.client.authorize(input))
    expect(again).toMatchObject({
      replayed: true,
      transition: first.transition,
      payment: { state: 'CAPTURED' },
    })
  })

  it('gives a decline again, and asks the bank only once', async () => {
    const card = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
    const input = { idempotencyKey: randomUUID(), orderId: order, card }
    const first = await one.client.authorize(input)
    const asked = bank.received.length
    expect(await two.client.authorize(input)).toEqual(first)
    expect(first).toMatchObject({ code: 'INSUFFICIENT_FUNDS', payment: { state: 'DECLINED' } })
    expect(bank.received).toHaveLength(asked)
  })

  it('a client that hangs up in the middle changes nothing: the payment is made, and its repeat gets the receipt', async () => {
    const input = {
      idempotencyKey: randomUUID(),
      orderId: order,
      customerId: 'c',
      amountCents: 5_006,
      card: TEST_CARD,
    }
    const gate = bank.faults.hold('before', { endpoint: 'authorizations', method: 'POST' })
    const hangUp = new AbortController()
    const query =
      'mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { __typename } }'
    const gone = one.client.post(query, { input }, { signal: hangUp.signal })
    await gate.arrived
    hangUp.abort()
    await expect(gone).rejects.toThrow('aborted')
    gate.open()
    expect(succeeded(await two.client.authorize(input))).toMatchObject({
      replayed: true,
      payment: { state: 'AUTHORIZED' },
    })
    expect(await holdsOf(5_006)).toHaveLength(1)
  })

  it('keys of different clients are different keys', async () => {
    const other = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, clientName: 'another' })
    const idempotencyKey = randomUUID()
    const mine = await authorized(here.client, { idempotencyKey, orderId: order })
    const theirs = await authorized(other.client, { idempotencyKey, orderId: `${order}-b` })
    expect(theirs.id).not.toBe(mine.id)
  })
})

describe('the same key for another request', () => {
  it.each([
    ['orderId', { orderId: 'another' }],
    ['customerId', { customerId: 'another' }],
    ['amountCents', { amountCents: 1 }],
    ['allowAnotherForOrder', { allowAnotherForOrder: true }],
    ['card.number', { card: { ...TEST_CARD, number: '4242424242424242' } }],
    ['card.expiryMonth', { card: { ...TEST_CARD, expiryMonth: 11 } }],
    ['card.expiryYear', { card: { ...TEST_CARD, expiryYear: 2031 } }],
  ])('is refused and names %s, never its value', async (field, change) => {
    const input = {
      idempotencyKey: randomUUID(),
      orderId: order,
      customerId: 'customer-1',
      amountCents: 5_002,
    }
    await authorized(here.client, input)
    const asked = bank.received.length
    const document = `mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { ... on IdempotencyKeyReused { code field message } } }`
    const { authorizePayment } = await here.client.query<{ authorizePayment: Record<string, string> }>(
      document,
      {
        input: { card: TEST_CARD, ...input, ...change },
      },
    )
    expect(authorizePayment).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED', field })
    expect(JSON.stringify(authorizePayment)).not.toMatch(/another"|4242/)
    expect(bank.received).toHaveLength(asked)
  })

  it.each([
    ['paymentId', async () => ({ paymentId: (await authorized(here.client)).id })],
    ['expectedAmountCents', () => Promise.resolve({ expectedAmountCents: 4_999 })],
  ])('is refused for a capture with another %s', async (_, change) => {
    const { id } = await authorized(here.client)
    const input = { idempotencyKey: randomUUID(), paymentId: id }
    succeeded(await here.client.capture(input))
    expect(await here.client.capture({ ...input, ...(await change()) })).toMatchObject({
      code: 'IDEMPOTENCY_KEY_REUSED',
    })
  })

  it('is refused for another operation', async () => {
    const idempotencyKey = randomUUID()
    const { id } = await authorized(here.client, { idempotencyKey })
    expect(await here.client.capture({ idempotencyKey, paymentId: id })).toMatchObject({
      code: 'IDEMPOTENCY_KEY_REUSED',
    })
  })
})

describe('several requests for one payment or order', () => {
  it('capture against void at the same instant over two processes has one winner', async () => {
    const { id } = await authorized(one.client, { amountCents: 5_003 })
    const answers = await Promise.all([
      one.client.capture({ paymentId: id }),
      two.client.void({ paymentId: id }),
    ])
    expect(count(codes(answers), 'SUCCESS')).toBe(1)
    expect(['INVALID_TRANSITION', 'OPERATION_IN_FLIGHT']).toContain(
      codes(answers).find((code) => code !== 'SUCCESS'),
    )
    const [hold] = await holdsOf(5_003)
    const uses = (await bank.transactions()).filter((row) => row.reference_id === hold?.id)
    expect(uses).toHaveLength(1)
  })

  it('20 checkouts of one order with 20 keys over two processes place one hold', async () => {
    const input = { orderId: order, amountCents: 5_004 }
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? one : two).client.authorize(input)),
    )
    expect(count(codes(answers), 'SUCCESS')).toBe(1)
    expect(count(codes(answers), 'ORDER_ALREADY_HAS_PAYMENT')).toBe(19)
    expect(await holdsOf(5_004)).toHaveLength(1)
  })

  it('an order may be paid twice when the client says so', async () => {
    await authorized(one.client, { orderId: order, amountCents: 5_005 })
    await authorized(one.client, { orderId: order, amountCents: 5_005, allowAnotherForOrder: true })
    expect(await holdsOf(5_005)).toHaveLength(2)
  })

  it('an order may be paid again once its payment is over', async () => {
    const { id } = await authorized(one.client, { orderId: order })
    succeeded(await one.client.void({ paymentId: id }))
    expect((await authorized(one.client, { orderId: order })).state).toBe('AUTHORIZED')
  })

  it('a void that waited behind a slow capture and was told OPERATION_IN_FLIGHT never runs', async () => {
    const patient = startTestGateway({
      databaseUrl: database.url,
      bankUrl: bank.url,
      clientName: 'dev',
      settings: { requestDeadlineMs: 10_000, attemptTimeoutMs: 10_000 },
    })
    const hasty = startTestGateway({
      databaseUrl: database.url,
      bankUrl: bank.url,
      clientName: 'dev',
      settings: { requestDeadlineMs: 300 },
    })
    const { id } = await authorized(patient.client)
    const voidsSent = () => bank.received.filter((line) => line.path.endsWith('/voids')).length
    const sentBefore = voidsSent()
    const gate = bank.faults.hold('before', { endpoint: 'captures', method: 'POST' })
    const slow = patient.client.capture({ paymentId: id })
    await gate.arrived
    const idempotencyKey = randomUUID()
    const [elsewhere, samePlace] = await Promise.all([
      hasty.client.void({ paymentId: id, idempotencyKey }),
      hasty.client.void({ paymentId: id }),
    ])
    gate.open()
    expect(elsewhere).toMatchObject({ code: 'OPERATION_IN_FLIGHT', retry: 'WAIT' })
    expect(samePlace).toMatchObject({ code: 'OPERATION_IN_FLIGHT', retry: 'WAIT' })
    expect(succeeded(await slow).payment.state).toBe('CAPTURED')
    expect(voidsSent()).toBe(sentBefore)
    expect(await hasty.client.void({ paymentId: id, idempotencyKey })).toMatchObject({
      code: 'INVALID_TRANSITION',
    })
  })

  it('a replay does not queue behind another operation that is slow', async () => {
    const { id } = await authorized(here.client)
    const capture = { paymentId: id, idempotencyKey: randomUUID() }
    const first = succeeded(await here.client.capture(capture))
    const gate = bank.faults.hold('before', { endpoint: 'refunds', method: 'POST' })
    const slow = here.client.refund({ paymentId: id })
    await gate.arrived
    const again = await here.client.capture(capture)
    gate.open()
    expect(succeeded(again)).toMatchObject({ replayed: true, transition: first.transition })
    succeeded(await slow)
  })

  it('a gateway that is stopping sends nothing more, and says that nothing was done', async () => {
    const stopping = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, clientName: 'dev' })
    const { id } = await authorized(here.client)
    const gate = bank.faults.hold('before', { endpoint: 'captures', method: 'POST' })
    const elsewhere = here.client.capture({ paymentId: id })
    await gate.arrived
    const asked = bank.received.length
    const waiting = stopping.client.refund({ paymentId: id })
    stopping.gateway.inFlight.draining = true
    gate.open()
    succeeded(await elsewhere)
    expect(['BANK_UNAVAILABLE', 'OPERATION_IN_FLIGHT']).toContain((await waiting).code)
    expect(await stopping.client.authorize()).toMatchObject({ code: 'BANK_UNAVAILABLE', retry: 'SAME_KEY' })
    expect(bank.received.slice(asked).filter((line) => line.path.endsWith('/refunds'))).toEqual([])
  })

  it('a refused request that comes again later, when it would be allowed, is refused again', async () => {
    const { id } = await authorized(one.client)
    const refund = { paymentId: id, idempotencyKey: randomUUID() }
    expect(await one.client.refund(refund)).toMatchObject({ code: 'INVALID_TRANSITION' })
    succeeded(await one.client.capture({ paymentId: id }))
    expect(await two.client.refund(refund)).toMatchObject({
      code: 'INVALID_TRANSITION',
      payment: { state: 'CAPTURED' },
    })
    expect(succeeded(await two.client.refund({ paymentId: id })).payment.state).toBe('REFUNDED')
  })

  it('refuses what the state does not allow', async () => {
    const { id } = await captured(one.client)
    expect(await one.client.void({ paymentId: id })).toMatchObject({
      code: 'INVALID_TRANSITION',
      retry: 'DO_NOT_RETRY',
    })
    expect(await one.client.refund({ paymentId: id, expectedAmountCents: 1 })).toMatchObject({
      code: 'AMOUNT_MISMATCH',
    })
    expect(await one.client.refund({ paymentId: 'pay_01a209f9-42e5-769e-be1c-b0b5bca8f12c' })).toMatchObject({
      code: 'PAYMENT_NOT_FOUND',
      payment: null,
    })
  })
})
