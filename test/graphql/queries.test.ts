import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, succeeded } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** One payment or operation, and the payments of an order, as FicMart's order service reads them. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const start = (clientName: string) =>
  startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, clientName })
const { client } = start('ficmart')
const { sql } = database
const uuidOf = (payment: { id: string }) => payment.id.slice('pay_'.length)
const declining = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
let orderId: string
beforeEach(() => {
  orderId = `order-${randomUUID()}`
})

describe('payment', () => {
  const find = async (by: object, asker = client) => {
    const document = 'query ($by: PaymentBy!) { payment(by: $by) { id state } }'
    return (await asker.query<{ payment: { id: string } | null }>(document, { by })).payment
  }

  it('is found by its id, by a key of the asker, and by each id at the bank', async () => {
    const keys = [randomUUID(), randomUUID()]
    const { id } = await authorized(client, { idempotencyKey: keys[0] })
    const { payment } = succeeded(await client.capture({ paymentId: id, idempotencyKey: keys[1] }))
    const found = { id, state: 'CAPTURED' }
    expect(await find({ id })).toEqual(found)
    for (const idempotencyKey of keys) expect(await find({ idempotencyKey })).toEqual(found)
    for (const bankReference of [payment.authorizationId, payment.captureId]) {
      expect(await find({ bankReference })).toEqual(found)
    }
    expect(await find({ idempotencyKey: keys[0] }, start('somebody-else').client)).toBeNull()
  })

  it('is null when there is none', async () => {
    expect(await find({ id: `pay_${randomUUID()}` })).toBeNull()
    expect(await find({ idempotencyKey: 'unknown' })).toBeNull()
    expect(await find({ bankReference: 'auth_unknown' })).toBeNull()
  })

  it('tells when it came into each of its states, and what may be done with it', async () => {
    const { id } = await captured(client)
    const { payment } = await client.query<{ payment: Record<string, unknown> }>(
      `query ($id: ID!) { payment(by: { id: $id }) {
        version createdAt authorizedAt capturedAt refundedAt voidedAt expiredAt declinedAt failedAt authorizationExpiresAt
        transitions { version fromState toState at bankAt cause actor }
        allowedOperations { operation allowed blockedBy }
        operations { kind status attempts ambiguous leasedUntil bankCalls { purpose endpoint httpStatus conclusion } }
        review { reason } possibleOrphanHoldSince operationInFlight { kind }
      } }`,
      { id },
    )
    const moment = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string
    const lines = payment['transitions'] as { at: string }[]
    expect(payment).toMatchObject({
      version: 3,
      createdAt: moment,
      authorizedAt: lines[1]?.at,
      capturedAt: lines[2]?.at,
      refundedAt: null,
      voidedAt: null,
      expiredAt: null,
      declinedAt: null,
      failedAt: null,
      authorizationExpiresAt: moment,
      transitions: [
        {
          version: 1,
          fromState: null,
          toState: 'PENDING',
          bankAt: null,
          cause: 'AUTHORIZE',
          actor: 'ficmart',
        },
        { version: 2, fromState: 'PENDING', toState: 'AUTHORIZED', bankAt: moment, cause: 'AUTHORIZE' },
        { version: 3, fromState: 'AUTHORIZED', toState: 'CAPTURED', bankAt: moment, cause: 'CAPTURE' },
      ],
      allowedOperations: [
        { operation: 'CAPTURE', allowed: false, blockedBy: 'INVALID_TRANSITION' },
        { operation: 'VOID', allowed: false, blockedBy: 'INVALID_TRANSITION' },
        { operation: 'REFUND', allowed: true, blockedBy: null },
      ],
      operations: ['authorizations', 'captures'].map((endpoint, index) => ({
        kind: ['AUTHORIZE', 'CAPTURE'][index],
        status: 'SUCCEEDED',
        attempts: 1,
        ambiguous: false,
        leasedUntil: null,
        bankCalls: [
          { purpose: 'SEND', endpoint: `POST /api/v1/${endpoint}`, httpStatus: 200, conclusion: 'done' },
        ],
      })),
      review: null,
      possibleOrphanHoldSince: null,
      operationInFlight: null,
    })
  })

  it('shows its review with the evidence', async () => {
    const payment = await authorized(client)
    const capture = { paymentId: payment.id, idempotencyKey: randomUUID() }
    bank.faults.add('other-amount', { endpoint: 'captures' })
    expect(await client.capture(capture)).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    const document =
      'query ($id: ID!) { payment(by: { id: $id }) { state review { reason since evidence { operationId reason facts { name value } } } } }'
    const reason = expect.stringContaining('does not fit the request')
    expect(await client.query(document, { id: payment.id })).toEqual({
      payment: {
        state: 'AUTHORIZED',
        review: {
          reason,
          since: expect.any(String),
          evidence: [
            {
              operationId: expect.stringMatching(/^op_/),
              reason,
              facts: expect.arrayContaining([
                { name: 'amountCents', value: '5000' },
                { name: 'expectedAmountCents', value: '4999' },
              ]),
            },
          ],
        },
      },
    })
  })
})

it('paymentsByOrder gives all of them, newest first', async () => {
  const declined = await client.authorize({ orderId, card: declining })
  const first = await authorized(client, { orderId })
  const second = await authorized(client, { orderId, allowAnotherForOrder: true })
  const document = 'query ($orderId: String!) { paymentsByOrder(orderId: $orderId) { id orderId } }'
  const ids = [second, first, declined.payment].map((payment) => ({ id: payment?.id, orderId }))
  expect(await client.query(document, { orderId })).toEqual({ paymentsByOrder: ids })
})

describe('operation', () => {
  const FIND = /* GraphQL */ `
    query ($key: String!, $client: String) {
      operation(idempotencyKey: $key, client: $client) {
        id
        client
        kind
        status
        code
        attempts
        sentAt
        resolvedAt
        payment {
          id
        }
        transition {
          toState
        }
        result {
          __typename
          ... on PaymentSuccess {
            replayed
            payment {
              state
            }
            transition {
              toState
            }
          }
          ... on PaymentProblem {
            code
            retry
            replayed
            payment {
              id
            }
          }
          ... on InvalidTransition {
            from
            to
            allowed
          }
        }
      }
    }
  `
  const find = async (key: string, name?: string, asker = client) =>
    (await asker.query<{ operation: unknown }>(FIND, { key, client: name })).operation

  it('tells what a repeat would be answered: a success, with today’s payment', async () => {
    const key = randomUUID()
    const { id } = await authorized(client, { idempotencyKey: key })
    await client.void({ paymentId: id })
    expect(await find(key)).toMatchObject({
      id: expect.stringMatching(/^op_/) as string,
      client: 'ficmart',
      kind: 'AUTHORIZE',
      status: 'SUCCEEDED',
      code: null,
      attempts: 1,
      payment: { id },
      transition: { toState: 'AUTHORIZED' },
      result: {
        __typename: 'AuthorizePaymentSuccess',
        replayed: true,
        payment: { state: 'VOIDED' },
        transition: { toState: 'AUTHORIZED' },
      },
    })
  })

  it('tells a refusal, a decline, and that nothing is known of a key', async () => {
    const [refused, declined] = [randomUUID(), randomUUID()]
    const { id } = await authorized(client)
    await client.refund({ paymentId: id, idempotencyKey: refused })
    await client.authorize({ idempotencyKey: declined, card: declining })
    expect(await find(refused)).toMatchObject({
      status: 'REFUSED',
      code: 'INVALID_TRANSITION',
      attempts: 0,
      sentAt: null,
      transition: null,
      result: {
        code: 'INVALID_TRANSITION',
        from: 'AUTHORIZED',
        to: 'REFUNDED',
        allowed: ['CAPTURE', 'VOID'],
        replayed: true,
      },
    })
    expect(await find(declined)).toMatchObject({
      code: 'INSUFFICIENT_FUNDS',
      transition: { toState: 'DECLINED' },
      result: { __typename: 'PaymentDeclined', code: 'INSUFFICIENT_FUNDS', replayed: true },
    })
    expect(await find(randomUUID())).toBeNull()
  })

  it('that is under way is of unknown outcome', async () => {
    const { id } = await authorized(client)
    const key = randomUUID()
    const gate = bank.faults.hold('after-store', { endpoint: 'voids' })
    const voided = client.void({ paymentId: id, idempotencyKey: key })
    await gate.arrived
    expect(await find(key)).toMatchObject({
      status: 'UNRESOLVED',
      resolvedAt: null,
      result: { __typename: 'PaymentOutcomeUnknown', retry: 'SAME_KEY', replayed: false, payment: { id } },
    })
    gate.open()
    await voided
  })

  it('of another client is found by its name, and the gateway’s own have no result', async () => {
    const key = randomUUID()
    const payment = await authorized(client, { idempotencyKey: key })
    const other = start('ops').client
    expect(await find(key, undefined, other)).toBeNull()
    expect(await find(key, 'ficmart', other)).toMatchObject({ payment: { id: payment.id } })
    await sql`insert into operations (id, client, idempotency_key, kind, payment_id, input, status, attempt,
                                      transition_version, created_at, resolved_at)
              values (${randomUUID()}, 'gateway', ${key}, 'EXPIRE', ${uuidOf(payment)}, '{}', 'SUCCEEDED', 1, 1, now(), now())`
    expect(await find(key, 'gateway', other)).toMatchObject({ kind: 'EXPIRE', result: null })
  })
})
