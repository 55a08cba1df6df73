import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { pageOfPayments } from '../../src/payment/page.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, succeeded, TEST_CARD } from '../support/client.ts'
import type { PaymentView } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** What FicMart's order service and operators can read. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const start = (clientName: string) =>
  startTestGateway({
    databaseUrl: database.url,
    bankUrl: bank.url,
    clientName,
    settings: { attemptTimeoutMs: 10_000 },
  })
const { client, gateway } = start('ficmart')
const { sql } = database
const uuidOf = (payment: { id: string }) => payment.id.slice('pay_'.length)
const declining = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
let customerId: string
let orderId: string
beforeEach(() => {
  customerId = `customer-${randomUUID()}`
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
    const evidence = { nested: { a: null }, currency: 'EUR', amountCents: 1 }
    await sql`update payments set review_reason = 'odd', review_since = now(), review_evidence = ${sql.json(evidence)}
              where id = ${uuidOf(payment)}`
    expect(
      await client.query(
        'query ($id: ID!) { payment(by: { id: $id }) { review { reason evidence { name value } } } }',
        { id: payment.id },
      ),
    ).toEqual({
      payment: {
        review: {
          reason: 'odd',
          evidence: [
            { name: 'amountCents', value: '1' },
            { name: 'currency', value: 'EUR' },
            { name: 'nested', value: '{"a":null}' },
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

type Page = {
  edges: { cursor: string; node: PaymentView & { createdAt: string } }[]
  pageInfo: {
    hasNextPage: boolean
    hasPreviousPage: boolean
    startCursor: string | null
    endCursor: string | null
  }
}

async function listPayments(variables: Record<string, unknown>): Promise<Page> {
  const document = `query ($first: Int, $after: String, $filter: PaymentFilter) {
    page: payments(first: $first, after: $after, filter: $filter) {
      edges { cursor node { id state createdAt } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`
  return (await client.query<{ page: Page }>(document, variables)).page
}
const idsOf = ({ edges }: Page) => edges.map(({ node }) => node.id)

describe('customerHistory', () => {
  async function history(variables: Record<string, unknown>): Promise<Page> {
    const document = `query ($customerId: String!, $first: Int, $after: String, $filter: CustomerHistoryFilter) {
      page: customerHistory(customerId: $customerId, first: $first, after: $after, filter: $filter) {
        edges { cursor node { id state createdAt transitions { toState } } }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`
    return (await client.query<{ page: Page }>(document, { customerId, ...variables })).page
  }

  it('is walked page by page, newest first, without gap or repetition, while new payments come', async () => {
    const made: string[] = []
    for (let i = 0; i < 7; i += 1) made.unshift((await authorized(client, { customerId })).id)
    const one = await history({ first: 3 })
    await authorized(client, { customerId })
    const two = await history({ first: 3, after: one.pageInfo.endCursor })
    const three = await history({ first: 3, after: two.edges.at(-1)?.cursor })
    expect([one, two, three].flatMap(idsOf)).toEqual(made)
    expect([one, two, three].map(({ pageInfo }) => [pageInfo.hasPreviousPage, pageInfo.hasNextPage])).toEqual(
      [
        [false, true],
        [true, true],
        [true, false],
      ],
    )
    expect(two.pageInfo.startCursor).toBe(two.edges[0]?.cursor)
    const beyond = await history({ after: three.pageInfo.endCursor })
    expect(beyond).toEqual({
      edges: [],
      pageInfo: { hasNextPage: false, hasPreviousPage: true, startCursor: null, endCursor: null },
    })
  })

  it('ends exactly where a page is full', async () => {
    await authorized(client, { customerId })
    await authorized(client, { customerId })
    expect((await history({ first: 2 })).pageInfo.hasNextPage).toBe(false)
    expect((await history({ first: 1 })).pageInfo.hasNextPage).toBe(true)
  })

  it('takes 20 when not told, and has the whole history of each', async () => {
    await Promise.all(Array.from({ length: 21 }, () => authorized(client, { customerId, amountCents: 100 })))
    const page = await history({ first: null })
    expect(page.edges).toHaveLength(20)
    for (const { node } of page.edges) {
      expect(node).toMatchObject({ transitions: [{ toState: 'PENDING' }, { toState: 'AUTHORIZED' }] })
    }
  })

  it('is filtered by state and by time, and is the customer’s own', async () => {
    const first = await authorized(client, { customerId })
    await client.authorize({ customerId, card: declining })
    const last = await captured(client, { customerId })
    await authorized(client)
    const all = await history({})
    expect(all.edges).toHaveLength(3)
    const [newest, , oldest] = all.edges.map(({ node }) => node.createdAt)
    expect(idsOf(await history({ filter: { states: ['AUTHORIZED', 'CAPTURED'] } }))).toEqual([
      last.id,
      first.id,
    ])
    expect(idsOf(await history({ filter: { states: [] } }))).toEqual([])
    expect(idsOf(await history({ filter: { createdAfter: newest } }))).toEqual([last.id])
    expect((await history({ filter: { createdBefore: newest } })).edges).toHaveLength(2)
    expect((await history({ filter: { createdBefore: oldest } })).edges).toHaveLength(0)
    expect((await history({ filter: { createdAfter: oldest, createdBefore: newest } })).edges).toHaveLength(2)
  })
})

describe('payments', () => {
  it('are filtered by whatever an operator looks for', async () => {
    const plain = await authorized(client, { customerId, orderId })
    const review = await captured(client, { customerId })
    const orphan = (await client.authorize({ customerId, card: declining })).payment
    const expiring = await authorized(client, { customerId })
    if (orphan === null) throw new Error('declined without a payment')
    await sql`update payments set review_reason = 'odd', review_since = now() where id = ${uuidOf(review)}`
    await sql`update payments set possible_orphan_hold_since = now() where id = ${uuidOf(orphan)}`
    await sql`update payments set authorization_expires_at = '2026-01-02' where id = ${uuidOf(expiring)}`
    const gate = bank.faults.hold('before', { endpoint: 'captures' })
    const capture = client.capture({ paymentId: plain.id })
    await gate.arrived

    const found = async (filter: object) => idsOf(await listPayments({ filter: { customerId, ...filter } }))
    const all = [expiring.id, orphan.id, review.id, plain.id]
    const without = (id: string) => all.filter((one) => one !== id)
    expect(await found({})).toEqual(all)
    expect(await found({ orderId })).toEqual([plain.id])
    expect(await found({ states: ['CAPTURED', 'DECLINED'] })).toEqual([orphan.id, review.id])
    expect(await found({ needsReview: true })).toEqual([review.id])
    expect(await found({ needsReview: false })).toEqual(without(review.id))
    expect(await found({ possibleOrphanHold: true })).toEqual([orphan.id])
    expect(await found({ possibleOrphanHold: false })).toEqual(without(orphan.id))
    expect(await found({ operationInFlight: true })).toEqual([plain.id])
    expect(await found({ operationInFlight: false })).toEqual(without(plain.id))
    expect(await found({ expiringBefore: '2026-01-03T00:00:00Z' })).toEqual([expiring.id])
    expect(await found({ expiringBefore: '2026-01-01T00:00:00Z' })).toEqual([])
    expect(await found({ needsReview: true, states: ['AUTHORIZED'] })).toEqual([])
    expect(
      await found({ createdAfter: '2020-01-01T00:00:00Z', createdBefore: '2099-01-01T00:00:00+01:00' }),
    ).toEqual(all)
    expect(await found({ createdBefore: '2020-01-01T00:00:00Z' })).toEqual([])
    expect(idsOf(await listPayments({ filter: null, first: 1 }))).toEqual([expiring.id])

    gate.open()
    await capture
  })

  it('that are rare among many are looked for bit by bit: pages may be short, none is missed', async () => {
    const payments = await Promise.all(
      Array.from({ length: 12 }, (_, i) =>
        client.authorize({ customerId, amountCents: 100, card: i === 0 ? declining : TEST_CARD }),
      ),
    )
    const found: string[] = []
    let after: string | null = null
    let pages = 0
    for (let hasMore = true; hasMore; pages += 1) {
      const page = await pageOfPayments(gateway, { customerId, states: ['DECLINED'] }, { first: 5, after }, 4)
      found.push(...page.payments.map(({ id }) => `pay_${id}`))
      after = page.end
      hasMore = page.hasMore
    }
    expect(found).toEqual([payments[0]?.payment?.id])
    expect(pages).toBe(4)
  })
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

    // Under review no goods leave, unless the review is only about the id of a certain capture.
    await sql`update payments set review_reason = 'odd', review_since = now() where id = ${uuidOf(whole)}`
    expect(await check()).toMatchObject(no('UNDER_REVIEW'))
    await sql`update payments set capture_id = null where id = ${uuidOf(whole)}`
    expect(await check()).toMatchObject({ mayShip: true, reason: 'CAPTURED' })
  })
})

it('a page costs the same number of statements whatever its size', async () => {
  for (let i = 0; i < 5; i += 1) {
    await Promise.all(Array.from({ length: 10 }, () => captured(client, { customerId, amountCents: 100 })))
  }
  const EVERYTHING = /* GraphQL */ `
    fragment everything on Payment {
      id
      state
      amount {
        formatted
      }
      authorizedAt
      capturedAt
      voidedAt
      transitions {
        toState
        operation {
          kind
        }
      }
      operationInFlight {
        kind
      }
      allowedOperations {
        operation
        blockedBy
      }
      operations {
        kind
        bankCalls {
          conclusion
        }
        payment {
          id
        }
        transition {
          toState
        }
        result {
          __typename
        }
      }
    }
  `
  const history = `query ($customerId: String!, $first: Int) {
    customerHistory(customerId: $customerId, first: $first) { edges { node { ...everything } } } } ${EVERYTHING}`
  const payments = `query ($customerId: String!, $first: Int) {
    payments(filter: { customerId: $customerId, states: [CAPTURED] }, first: $first) { edges { node { ...everything } } } } ${EVERYTHING}`

  const statements: string[] = []
  Object.assign(gateway.sql.options, { debug: (_: number, statement: string) => statements.push(statement) })
  async function count(document: string, first: number) {
    statements.length = 0
    const data = await client.query<Record<string, Page>>(document, { customerId, first })
    expect(Object.values(data)[0]?.edges).toHaveLength(first)
    return statements.length
  }
  for (const document of [history, payments]) {
    // The page, transitions, operations in flight, operations; their bank calls, causes, payments, outcomes.
    expect(await count(document, 1)).toBeLessThanOrEqual(10)
    expect(await count(document, 50)).toBe(await count(document, 1))
  }
})
