import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { pageOfPayments } from '../../src/payment/page.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, TEST_CARD } from '../support/client.ts'
import type { PaymentView } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** A customer's history and the operators' lists: paged, filtered, and at a fixed number of statements a page. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client, gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const { sql } = database
const uuidOf = (payment: { id: string }) => payment.id.slice('pay_'.length)
const declining = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
let customerId: string
let orderId: string
beforeEach(() => {
  customerId = `customer-${randomUUID()}`
  orderId = `order-${randomUUID()}`
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
    await sql`
      insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
      select 'auth_stray', o.id, o.payment_id, 1, now(), now() from operations o where o.payment_id = ${uuidOf(orphan)}`
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
    expect(await found({ strayHold: true })).toEqual([orphan.id])
    expect(await found({ strayHold: false })).toEqual(without(orphan.id))
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
        delivery {
          status
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
    // The page, transitions, operations in flight, operations; their bank calls, causes, webhooks, payments, outcomes.
    expect(await count(document, 1)).toBeLessThanOrEqual(11)
    expect(await count(document, 50)).toBe(await count(document, 1))
  }
})
