import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { cursorOf } from '../../src/payment/ids.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, succeeded, TEST_CARD } from '../support/client.ts'
import type { Client, Problem } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { noEnd, startTestGateway } from '../support/gateway.ts'
import { ASKERS, clientFor } from './askers.ts'

/** A checkout page with its customer's token: pays for one order, sees its own payment, and nothing else. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const service = clientFor(gateway, ASKERS.service)

type Checkout = { customerId: string; orderId: string; amountCents: number }
function newCheckout(): Checkout {
  return { customerId: `customer-${randomUUID()}`, orderId: `order-${randomUUID()}`, amountCents: 4_999 }
}
function holding({ customerId: id, orderId, amountCents }: Checkout): Client {
  const customer = { id, orderId, amountCents }
  return clientFor(gateway, { client: `customer:${id}`, role: 'customer', customer, until: noEnd })
}

/** What a customer may ask of a problem and of a payment. */
const SEEN = `id orderId customerId state version amount { cents formatted } card { brand last4 } createdAt authorizedAt authorizationExpiresAt`
const PAY = `mutation ($input: AuthorizePaymentInput!) { result: authorizePayment(input: $input) {
  is: __typename
  ... on PaymentSuccess { replayed payment { ${SEEN} } }
  ... on PaymentProblem { code message retry payment { id } }
  ... on InvalidInput { fields { path reason } }
} }`
type Said = { is: string; payment: { id: string; card: object } | null; fields?: { path: string }[] }
async function pay(by: Client, input: Record<string, unknown>): Promise<Said> {
  const full = { idempotencyKey: randomUUID(), card: TEST_CARD, ...input }
  return (await by.query<{ result: Said }>(PAY, { input: full })).result
}
const operationsOf = async (orderId: string) =>
  await database.sql`select 1 from operations where input ->> 'orderId' = ${orderId}`

describe('pays', () => {
  it('for the order of the token, and is told what a receipt says', async () => {
    const checkout = newCheckout()
    const said = await pay(holding(checkout), checkout)
    expect(said).toMatchObject({
      is: 'AuthorizePaymentSuccess',
      payment: {
        orderId: checkout.orderId,
        customerId: checkout.customerId,
        state: 'AUTHORIZED',
        amount: { cents: 4_999, formatted: '$49.99' },
        card: { brand: 'visa', last4: '1111' },
      },
    })
    const [payment] = (
      await service.query<{ paymentsByOrder: { transitions: { actor: string }[] }[] }>(
        '{ paymentsByOrder(orderId: "' + checkout.orderId + '") { transitions { actor } } }',
      )
    ).paymentsByOrder
    expect(payment?.transitions.map(({ actor }) => actor)).toEqual(
      Array(2).fill(`customer:${checkout.customerId}`),
    )
  })

  it('under keys of their own: the same key of somebody else is another', async () => {
    const [one, other] = [newCheckout(), newCheckout()]
    const idempotencyKey = randomUUID()
    const first = await pay(holding(one), { ...one, idempotencyKey })
    const second = await pay(holding(other), { ...other, idempotencyKey })
    const again = await pay(holding(one), { ...one, idempotencyKey })
    expect(second.is).toBe('AuthorizePaymentSuccess')
    expect(second.payment?.id).not.toBe(first.payment?.id)
    expect(again).toMatchObject({ replayed: true, payment: { id: first.payment?.id } })
  })

  it.each([
    ['for somebody else', { customerId: 'another' }, ['input.customerId']],
    ['for another order', { orderId: 'another' }, ['input.orderId']],
    ['a cent', { amountCents: 1 }, ['input.amountCents']],
    ['a cent less', { amountCents: 4_998 }, ['input.amountCents']],
    ['more', { amountCents: 5_000 }, ['input.amountCents']],
    ['the order once more', { allowAnotherForOrder: true }, ['input.allowAnotherForOrder']],
    [
      'anything else at all',
      { customerId: 'another', orderId: 'another', amountCents: 1 },
      ['input.customerId', 'input.orderId', 'input.amountCents'],
    ],
  ])('never %s: nothing is stored or sent', async (_, change, paths) => {
    const checkout = newCheckout()
    const before = (await bank.transactions()).length
    const idempotencyKey = randomUUID()
    const said = await pay(holding(checkout), { ...checkout, ...change, idempotencyKey })
    expect(said).toMatchObject({ is: 'InvalidInput', code: 'INVALID_INPUT', payment: null })
    expect(said.fields?.map(({ path }) => path)).toEqual(paths)
    expect(await operationsOf({ ...checkout, ...change }.orderId)).toEqual([])
    expect(await bank.transactions()).toHaveLength(before)
    // The key is free: put right, the request is carried out.
    expect((await pay(holding(checkout), { ...checkout, idempotencyKey })).is).toBe('AuthorizePaymentSuccess')
  })

  it('and nothing is taken when the document asks for something that is not theirs to see', async () => {
    const checkout = newCheckout()
    const before = (await bank.transactions()).length
    const { data, errors } = await holding(checkout).post(
      PAY.replace('replayed', 'replayed transition { version }'),
      { input: { idempotencyKey: randomUUID(), card: TEST_CARD, ...checkout } },
    )
    expect(data).toBeUndefined()
    expect(errors).toMatchObject([
      { message: 'You may not ask for PaymentSuccess.transition. Nothing was carried out.' },
    ])
    expect(await bank.transactions()).toHaveLength(before)
    expect(await operationsOf(checkout.orderId)).toEqual([])
  })
})

describe('may not', () => {
  const checkout = newCheckout()
  it.each(['capture', 'void', 'refund'] as const)('%s', async (operation) => {
    const { id } = await authorized(service, { ...newCheckout(), customerId: checkout.customerId })
    await expect(holding(checkout)[operation]({ paymentId: id })).rejects.toThrow('FORBIDDEN')
    // Nor learn from the refusal of an input that it may not give.
    await expect(holding(checkout)[operation]({ paymentId: 'nonsense' })).rejects.toThrow('FORBIDDEN')
    expect(await database.sql`select state from payments where id = ${id.slice(4)}`).toEqual([
      { state: 'AUTHORIZED' },
    ])
  })

  it.each([
    ['two fields', (one: string, other: string) => `mutation { a: ${one} b: ${other} }`],
    [
      'two fragments',
      (one: string, other: string) =>
        `mutation { ...a ...b } fragment a on Mutation { a: ${one} } fragment b on Mutation { b: ${other} }`,
    ],
    ['two operations', (one: string, other: string) => `mutation A { a: ${one} } mutation B { b: ${other} }`],
  ])('have two mutations in a document: %s', async (_, document) => {
    const mine = newCheckout()
    const one = (key: string) =>
      `authorizePayment(input: { idempotencyKey: "${key}", orderId: "${mine.orderId}", customerId: "${mine.customerId}", amountCents: 4999, card: { number: "${TEST_CARD.number}", cvv: "123", expiryMonth: 12, expiryYear: 2030 } }) { __typename }`
    const query = document(one('1'), one('2'))
    const body = JSON.stringify({ query, operationName: query.includes('mutation A') ? 'A' : undefined })
    const { errors } = await holding(mine).post(query, {}, { body })
    expect(errors).toMatchObject([
      { message: 'A document of a customer has one mutation.', extensions: { code: 'LIMIT_EXCEEDED' } },
    ])
    expect(await operationsOf(mine.orderId)).toEqual([])
  })
})

describe("somebody else's payment is answered as one that does not exist", async () => {
  const theirs = newCheckout()
  const key = randomUUID()
  const payment = await captured(service, theirs)
  await pay(holding({ ...newCheckout(), orderId: theirs.orderId }), { idempotencyKey: key, ...theirs })
  const nobody = newCheckout()
  const by = holding(newCheckout())
  const page = `{ edges { cursor node { ${SEEN} } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } }`
  const cursor = cursorOf('ffffffff-ffff-7fff-bfff-ffffffffffff')

  it.each<[string, string, string]>([
    [`payment(by: { id: $v }) { ${SEEN} }`, payment.id, `pay_${randomUUID()}`],
    [`payment(by: { bankReference: $v }) { ${SEEN} }`, payment.authorizationId ?? '', 'auth_none'],
    [`payment(by: { bankReference: $v }) { ${SEEN} }`, payment.captureId ?? '', 'cap_none'],
    [`paymentsByOrder(orderId: $v) { ${SEEN} }`, theirs.orderId, nobody.orderId],
    [`customerHistory(customerId: $v) ${page}`, theirs.customerId, nobody.customerId],
    [
      `customerHistory(customerId: $v, first: 1, after: "${cursor}") ${page}`,
      theirs.customerId,
      nobody.customerId,
    ],
    [
      `customerHistory(customerId: $v, filter: { states: [CAPTURED] }) ${page}`,
      theirs.customerId,
      nobody.customerId,
    ],
  ])('%s', async (field, value, other) => {
    const type = field.includes('id: $v') ? 'ID!' : 'String!'
    const ask = (asker: Client, v: string) => asker.post(`query ($v: ${type}) { it: ${field} }`, { v })
    const answer = await ask(by, value)
    expect(answer.errors).toBeUndefined()
    expect(answer).toEqual(await ask(by, other))
    // It is there, for whoever may see it.
    expect(await ask(holding(theirs), value)).not.toEqual(answer)
    expect(await ask(service, value)).not.toEqual(answer)
  })

  it('in a problem too, whose payment it is that stands in the way', async () => {
    const sameOrder = { ...newCheckout(), orderId: theirs.orderId }
    const idempotencyKey = randomUUID()
    const refused = { code: 'ORDER_ALREADY_HAS_PAYMENT', payment: null }
    expect(await pay(holding(sameOrder), { ...sameOrder, idempotencyKey })).toMatchObject(refused)
    expect(await pay(holding(sameOrder), { ...sameOrder, idempotencyKey })).toMatchObject(refused)
    expect(
      await holding(sameOrder).query(`{ payment(by: { idempotencyKey: "${idempotencyKey}" }) { id } }`),
    ).toEqual({ payment: null })
    // The one whose it is sees it.
    const { code, payment: shown } = (await pay(holding(theirs), theirs)) as unknown as Problem
    expect([code, shown?.id]).toEqual(['ORDER_ALREADY_HAS_PAYMENT', payment.id])
  })

  it('in the list of an order that two have paid for, each sees their own', async () => {
    const sameOrder = { ...newCheckout(), orderId: theirs.orderId }
    const { id } = succeeded(await service.authorize({ ...sameOrder, allowAnotherForOrder: true })).payment
    const list = (asker: Client) => asker.query(`{ paymentsByOrder(orderId: "${theirs.orderId}") { id } }`)
    expect(await list(holding(sameOrder))).toEqual({ paymentsByOrder: [{ id }] })
    expect(await list(holding(theirs))).toEqual({ paymentsByOrder: [{ id: payment.id }] })
    expect(await list(service)).toEqual({ paymentsByOrder: [{ id }, { id: payment.id }] })
  })
})

it('only operators may name another client', async () => {
  const document = '{ operation(idempotencyKey: "x", client: "another") { id } }'
  const { errors } = await service.post(document)
  expect(errors).toMatchObject([
    { message: 'Only operators may name another client.', extensions: { code: 'FORBIDDEN' } },
  ])
  expect(await clientFor(gateway, ASKERS.ops).query(document)).toEqual({ operation: null })
  expect(await service.query(document.replace('another', ASKERS.service.client))).toEqual({ operation: null })
})
