import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** What FicMart's developers see of each answer: every member of the results, with all that it can tell. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const start = (settings = {}) => startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, settings })
const { client } = start()
const impatient = start({ requestDeadlineMs: 150 }).client
beforeEach(() => bank.faults.clear())

const ANSWER = /* GraphQL */ `
  __typename
  ... on PaymentSuccess {
    replayed
    payment { id state orderId customerId amount { cents currency formatted } card { brand last4 expiryMonth expiryYear } }
    transition { version fromState toState cause actor operation { kind status result { __typename } } }
  }
  ... on PaymentProblem { code message retry retryAfterMs replayed payment { id state } }
  ... on IdempotencyKeyReused { field }
  ... on InvalidInput { fields { path reason } }
`
const OF_FOLLOW_UPS = /* GraphQL */ `
  ... on InvalidTransition { from to allowed }
  ... on AmountMismatch { expected { cents } actual { cents formatted } }
`
type Answer = Record<string, unknown> & { __typename: string; message?: string }

async function ask(name: string, input: Record<string, unknown>, by = client): Promise<Answer> {
  const field = `${name.toLowerCase()}Payment`
  const members = name === 'Authorize' ? ANSWER : ANSWER + OF_FOLLOW_UPS
  const document = `mutation ($input: ${name}PaymentInput!) { ${field}(input: $input) { ${members} } }`
  const data = await by.query<Record<string, Answer>>(document, {
    input: { idempotencyKey: randomUUID(), ...input },
  })
  const answer = data[field]
  if (answer === undefined) throw new Error('no answer')
  return answer
}
const authorize = (input: Record<string, unknown> = {}, by = client) =>
  ask(
    'Authorize',
    { orderId: randomUUID(), customerId: 'customer-1', amountCents: 123_456, card: TEST_CARD, ...input },
    by,
  )

describe('a success', () => {
  it('tells the payment, what was done and who did it', async () => {
    const orderId = randomUUID()
    expect(await authorize({ orderId })).toEqual({
      __typename: 'AuthorizePaymentSuccess',
      replayed: false,
      payment: {
        id: expect.stringMatching(/^pay_[0-9a-f-]{36}$/),
        state: 'AUTHORIZED',
        orderId,
        customerId: 'customer-1',
        amount: { cents: 123_456, currency: 'USD', formatted: '$1,234.56' },
        card: { brand: 'visa', last4: '1111', expiryMonth: 12, expiryYear: 2030 },
      },
      transition: {
        version: 2,
        fromState: 'PENDING',
        toState: 'AUTHORIZED',
        cause: 'AUTHORIZE',
        actor: 'ficmart',
        operation: {
          kind: 'AUTHORIZE',
          status: 'SUCCEEDED',
          result: { __typename: 'AuthorizePaymentSuccess' },
        },
      },
    })
  })

  it.each([
    ['Capture', 'CAPTURED', authorized],
    ['Void', 'VOIDED', authorized],
    ['Refund', 'REFUNDED', captured],
  ] as const)('of %s is a member of its own', async (name, state, make) => {
    const { id } = await make(client)
    const idempotencyKey = randomUUID()
    const first = await ask(name, { paymentId: id, idempotencyKey, expectedAmountCents: 4_999 })
    expect(first).toMatchObject({
      __typename: `${name}PaymentSuccess`,
      payment: { id, state },
      replayed: false,
    })
    const again = await ask(name, { paymentId: id, idempotencyKey, expectedAmountCents: 4_999 })
    expect(again).toEqual({ ...first, replayed: true })
  })

  it('of two mutations in one document comes one after the other', async () => {
    const { id } = await authorized(client)
    const one = `capturePayment(input: { idempotencyKey: "${randomUUID()}", paymentId: "${id}" }) { ...state }`
    const two = `refundPayment(input: { idempotencyKey: "${randomUUID()}", paymentId: "${id}" }) { ...state }`
    expect(
      await client.query(`mutation { ${one} ${two} }
        fragment state on PaymentSuccess { payment { state operationInFlight { kind } transitions { toState } } }`),
    ).toEqual({
      capturePayment: {
        payment: {
          state: 'CAPTURED',
          operationInFlight: null,
          transitions: ['PENDING', 'AUTHORIZED', 'CAPTURED'].map((toState) => ({ toState })),
        },
      },
      refundPayment: {
        payment: {
          state: 'REFUNDED',
          operationInFlight: null,
          transitions: ['PENDING', 'AUTHORIZED', 'CAPTURED', 'REFUNDED'].map((toState) => ({ toState })),
        },
      },
    })
  })
})

describe('a null for a variable that has a default', () => {
  const pay = (orderId: string, more = '') =>
    `authorizePayment(input: { idempotencyKey: "${randomUUID()}", orderId: "${orderId}", customerId: "customer-1", amountCents: 1, card: $card }) { __typename ${more} }`
  const refused = [{ message: expect.stringMatching(/^\$with: Expected a value, got null/) }]

  it.each([
    [
      'in a directive below the mutation',
      '$with: Boolean = true',
      (orderId: string) => pay(orderId, '... @include(if: $with) { __typename }'),
    ],
    [
      'in a fragment',
      '$with: Boolean = true',
      (orderId: string) =>
        `${pay(orderId, '...more')} } fragment more on PaymentSuccess { __typename @skip(if: $with)`,
    ],
    [
      'in the second mutation',
      '$with: String = "a"',
      (orderId: string) =>
        `${pay(orderId)} capturePayment(input: { idempotencyKey: $with, paymentId: "pay_0" }) { __typename }`,
    ],
  ])('%s is refused before anything is carried out', async (_, definition, fields) => {
    const orderId = randomUUID()
    const document = `mutation ($card: CardInput!, ${definition}) { ${fields(orderId)} }`
    const { data, errors } = await client.post(document, { card: TEST_CARD, with: null })
    expect([data, errors]).toMatchObject([undefined, refused])
    expect(await client.query(`{ paymentsByOrder(orderId: "${orderId}") { id } }`)).toEqual({
      paymentsByOrder: [],
    })
    expect((await client.post(document, { card: TEST_CARD })).errors).toBeUndefined()
  })

  it('is nothing special where null may be', async () => {
    const { errors } = await client.post(
      'query ($first: Int = 5) { payments(first: $first) { __typename } }',
      { first: null },
    )
    expect(errors).toBeUndefined()
  })
})

describe('a problem', () => {
  const told = { message: expect.stringMatching(/\w/), replayed: false, retryAfterMs: null }
  const waits = { ...told, retryAfterMs: expect.any(Number) }

  it('IdempotencyKeyReused names the field, never its value', async () => {
    const input = { idempotencyKey: randomUUID(), orderId: randomUUID() }
    await authorize(input)
    const answer = await authorize({ ...input, amountCents: 77_777 })
    expect(answer).toEqual({
      ...told,
      __typename: 'IdempotencyKeyReused',
      code: 'IDEMPOTENCY_KEY_REUSED',
      retry: 'NEW_KEY',
      field: 'amountCents',
      payment: null,
    })
    expect(answer.message).not.toMatch(/77,?777/)
  })

  it('PaymentNotFound', async () => {
    expect(await ask('Void', { paymentId: `pay_${randomUUID()}` })).toEqual({
      ...told,
      __typename: 'PaymentNotFound',
      code: 'PAYMENT_NOT_FOUND',
      retry: 'DO_NOT_RETRY',
      payment: null,
    })
  })

  it('InvalidTransition says from where to where, and what is allowed; its replay says the same', async () => {
    const { id } = await captured(client)
    const input = { paymentId: id, idempotencyKey: randomUUID() }
    const answer = await ask('Void', input)
    expect(answer).toEqual({
      ...told,
      __typename: 'InvalidTransition',
      code: 'INVALID_TRANSITION',
      retry: 'DO_NOT_RETRY',
      from: 'CAPTURED',
      to: 'VOIDED',
      allowed: ['REFUND'],
      payment: { id, state: 'CAPTURED' },
    })
    await ask('Refund', { paymentId: id })
    expect(await ask('Void', input)).toEqual({
      ...answer,
      replayed: true,
      payment: { id, state: 'REFUNDED' },
    })
  })

  it('AmountMismatch tells both amounts', async () => {
    const { id } = await authorized(client)
    expect(await ask('Capture', { paymentId: id, expectedAmountCents: 5_000 })).toEqual({
      ...told,
      __typename: 'AmountMismatch',
      code: 'AMOUNT_MISMATCH',
      retry: 'DO_NOT_RETRY',
      expected: { cents: 5_000 },
      actual: { cents: 4_999, formatted: '$49.99' },
      payment: { id, state: 'AUTHORIZED' },
    })
  })

  it('OrderAlreadyHasPayment shows that payment', async () => {
    const { id, orderId } = await authorizedWithOrder()
    expect(await authorize({ orderId })).toEqual({
      ...told,
      __typename: 'OrderAlreadyHasPayment',
      code: 'ORDER_ALREADY_HAS_PAYMENT',
      retry: 'DO_NOT_RETRY',
      payment: { id, state: 'AUTHORIZED' },
    })
    expect(await authorize({ orderId, allowAnotherForOrder: true })).toMatchObject({
      __typename: 'AuthorizePaymentSuccess',
    })
  })

  async function authorizedWithOrder() {
    const orderId = randomUUID()
    return { orderId, ...(await authorized(client, { orderId })) }
  }

  it.each([
    ['INSUFFICIENT_FUNDS', { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }],
    ['CVV_INVALID', { ...TEST_CARD, cvv: '999' }],
    ['CARD_INVALID', { ...TEST_CARD, number: '378282246310005' }],
  ])('PaymentDeclined with %s', async (code, card) => {
    expect(await authorize({ card })).toEqual({
      ...told,
      __typename: 'PaymentDeclined',
      code,
      retry: 'DO_NOT_RETRY',
      payment: { id: expect.any(String), state: 'DECLINED' },
    })
  })

  it('PaymentDeclined with CARD_EXPIRED, before the bank is asked', async () => {
    const card = { number: '5105105105105100', cvv: '321', expiryMonth: 3, expiryYear: 2020 }
    expect(await authorize({ card })).toEqual({
      ...told,
      __typename: 'PaymentDeclined',
      code: 'CARD_EXPIRED',
      retry: 'DO_NOT_RETRY',
      payment: { id: expect.any(String), state: 'DECLINED' },
    })
  })

  it('BankUnavailable says that it was not carried out', async () => {
    bank.faults.add('chaos', { times: null, endpoint: 'authorizations' })
    expect(await authorize()).toEqual({
      ...told,
      __typename: 'BankUnavailable',
      code: 'BANK_UNAVAILABLE',
      retry: 'NEW_KEY',
      payment: { id: expect.any(String), state: 'FAILED' },
    })
  })

  it('PaymentOutcomeUnknown, and OperationInFlight for whoever comes meanwhile', async () => {
    const { id } = await authorized(client)
    const gate = bank.faults.hold('before', { endpoint: 'captures' })
    const capture = { paymentId: id, idempotencyKey: randomUUID() }
    const unknown = ask('Capture', capture, impatient)
    await gate.arrived
    expect(await ask('Void', { paymentId: id }, impatient)).toEqual({
      ...waits,
      __typename: 'OperationInFlight',
      code: 'OPERATION_IN_FLIGHT',
      retry: 'WAIT',
      payment: { id, state: 'AUTHORIZED' },
    })
    expect(await unknown).toMatchObject({
      ...waits,
      __typename: 'PaymentOutcomeUnknown',
      code: 'OUTCOME_UNKNOWN',
      retry: 'SAME_KEY',
    })
    gate.open()
    expect(await ask('Capture', capture)).toMatchObject({
      __typename: 'CapturePaymentSuccess',
      payment: { id, state: 'CAPTURED' },
    })
  })

  it('AuthorizationExpired', async () => {
    const { id, authorizationId } = await authorized(client)
    await bank.sql`update transactions set expires_at = now() where id = ${authorizationId}`
    expect(await ask('Capture', { paymentId: id })).toEqual({
      ...told,
      __typename: 'AuthorizationExpired',
      code: 'AUTHORIZATION_EXPIRED',
      retry: 'DO_NOT_RETRY',
      payment: { id, state: 'AUTHORIZED' },
    })
  })

  it('BankReferenceMissing', async () => {
    const { id } = await captured(client)
    await database.sql`update payments set capture_id = null where id = ${id.slice('pay_'.length)}`
    expect(await ask('Refund', { paymentId: id })).toEqual({
      ...told,
      __typename: 'BankReferenceMissing',
      code: 'BANK_REFERENCE_MISSING',
      retry: 'DO_NOT_RETRY',
      payment: { id, state: 'CAPTURED' },
    })
  })

  it('InvalidInput tells every bad field at once', async () => {
    const card = { number: '4111 1111 1111 1112', cvv: '12', expiryMonth: 13, expiryYear: 30 }
    const answer = await authorize({ idempotencyKey: '', orderId: ' ', amountCents: 0, card })
    expect(answer).toEqual({
      ...told,
      __typename: 'InvalidInput',
      code: 'INVALID_INPUT',
      retry: 'DO_NOT_RETRY',
      payment: null,
      fields: [
        { path: 'input.idempotencyKey', reason: 'must not be empty' },
        { path: 'input.orderId', reason: 'must not begin or end with a blank' },
        { path: 'input.amountCents', reason: 'must be 1 to 99999999 cents' },
        { path: 'input.card.number', reason: 'is not a card number: a digit is wrong or missing (Luhn)' },
        { path: 'input.card.cvv', reason: 'must be 3 or 4 digits' },
        { path: 'input.card.expiryMonth', reason: 'must be 1 to 12' },
        { path: 'input.card.expiryYear', reason: 'must be a year with four digits, 2000 to 2099' },
      ],
    })
  })
})
