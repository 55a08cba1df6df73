import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { initGraphQLTada } from 'gql.tada'
import type { ResultOf, TadaDocumentNode } from 'gql.tada'
import { print } from 'graphql'
import type { Introspection } from './schema-types.ts'

/**
 * FicMart's order service, as far as it takes payments. What it must get right is small: an idempotency key for each
 * intention, made before the first request and kept until there is an answer, and each problem treated by its `retry`.
 * The documents are typed by the schema: a field that is gone, or a problem that is new, does not compile.
 */
export type OrderServiceOptions = {
  /** The gateway's endpoint, for instance `http://localhost:4000/graphql`. */
  url: string
  /** Sent as `Authorization: Bearer`; none for a gateway on this machine that is open to everybody. */
  apiKey?: string | undefined
  /** How long to go on asking for one intention before its caller is told that it is still open. */
  patienceMs?: number
  /** Told of every answer that was not the last one. */
  onRetry?: (problem: Problem, waitMs: number) => void
}

export type Card = { number: string; cvv: string; expiryMonth: number; expiryYear: number }
export type Payment = ResultOf<typeof VIEW>
export type Problem = ResultOf<typeof PROBLEM>

export type Outcome =
  | { is: 'done'; payment: Payment; replayed: boolean }
  /** It was not done, and asking again does not change it: a declined card, say. */
  | { is: 'refused'; problem: Problem }
  /** Perhaps done. Keep the intention, and ask again later with the same call: it goes on with the same key. */
  | { is: 'open'; problem: Problem | null }

const graphql = initGraphQLTada<{
  introspection: Introspection
  disableMasking: true
  scalars: { ID: string; Cents: number; DateTime: string }
}>()

const VIEW = graphql(`
  fragment View on Payment {
    id
    orderId
    state
    amount {
      cents
      formatted
    }
    card {
      brand
      last4
    }
    transitions {
      toState
      at
    }
  }
`)
const PROBLEM = graphql(`
  fragment Problem on PaymentProblem {
    code
    message
    retry
    retryAfterMs
  }
`)

const SUCCESS = graphql(
  `
    fragment Success on PaymentSuccess {
      replayed
      currentPayment {
        ...View
      }
    }
  `,
  [VIEW],
)

const AUTHORIZE = graphql(
  `
    mutation Authorize($input: AuthorizePaymentInput!) {
      result: authorizePayment(input: $input) {
        ...Success
        ...Problem
      }
    }
  `,
  [SUCCESS, PROBLEM],
)
const CAPTURE = graphql(
  `
    mutation Capture($input: CapturePaymentInput!) {
      result: capturePayment(input: $input) {
        ...Success
        ...Problem
      }
    }
  `,
  [SUCCESS, PROBLEM],
)
const VOID = graphql(
  `
    mutation Void($input: VoidPaymentInput!) {
      result: voidPayment(input: $input) {
        ...Success
        ...Problem
      }
    }
  `,
  [SUCCESS, PROBLEM],
)
const REFUND = graphql(
  `
    mutation Refund($input: RefundPaymentInput!) {
      result: refundPayment(input: $input) {
        ...Success
        ...Problem
      }
    }
  `,
  [SUCCESS, PROBLEM],
)
const HISTORY = graphql(
  `
    query History($customerId: String!, $after: String) {
      customerHistory(customerId: $customerId, first: 50, after: $after) {
        edges {
          node {
            ...View
          }
        }
        pageInfo {
          hasNextPage
          endCursor
        }
      }
    }
  `,
  [VIEW],
)

type Answer = ResultOf<typeof SUCCESS> | Problem

export function orderService({ url, apiKey, patienceMs = 120_000, onRetry }: OrderServiceOptions) {
  /** By intention. A real service keeps the key with the order, in the transaction that makes the intention. */
  const keys = new Map<string, string>()

  async function carryOut(intention: string, ask: (key: string) => Promise<Answer>): Promise<Outcome> {
    const deadline = performance.now() + patienceMs
    let last: Problem | null = null
    for (;;) {
      const key = keys.get(intention) ?? randomUUID()
      keys.set(intention, key)
      // No answer is no outcome: the same request again, under the same key.
      const answer = await ask(key).catch((error: unknown) => {
        if (error instanceof Refused) throw error
        return null
      })
      if (answer !== null && 'currentPayment' in answer) {
        return { is: 'done', payment: answer.currentPayment, replayed: answer.replayed }
      }
      // The advice of this answer and no other: after none the request may have been carried out.
      const problem = answer !== null && 'code' in answer ? answer : null
      last = problem ?? last
      const waitMs = problem?.retryAfterMs ?? 1_000
      switch (problem?.retry) {
        case 'DO_NOT_RETRY':
          // A new try, with another card, is another intention.
          keys.delete(intention)
          return { is: 'refused', problem }
        case 'NEW_KEY':
          // The key belongs to another request: a fault in here, which a new key would only hide.
          if (problem.code === 'IDEMPOTENCY_KEY_REUSED') return { is: 'refused', problem }
          keys.delete(intention)
          break
        case 'SAME_KEY':
        case 'WAIT':
        case undefined:
      }
      if (performance.now() + waitMs > deadline) return { is: 'open', problem: last }
      if (problem !== null) onRetry?.(problem, waitMs)
      await pause(waitMs)
    }
  }

  async function post<Data, Variables>(
    document: TadaDocumentNode<Data, Variables>,
    variables: Variables,
  ): Promise<Data> {
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        // With it a request that cannot be carried out is HTTP 400, not 200 with an error inside.
        accept: 'application/graphql-response+json',
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      body: JSON.stringify({ query: print(document), variables }),
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    })
    const { data, errors } = (await response.json()) as {
      data?: Data | null
      errors?: { message: string; extensions?: { code?: string } }[]
    }
    if (data !== null && data !== undefined) return data
    const [error] = errors ?? []
    // What no repeat can mend: a document or a key that is not valid.
    if (response.status >= 400 && response.status < 500 && response.status !== 429) {
      throw new Refused(error?.message ?? `HTTP ${response.status}`)
    }
    throw new Error(error?.message ?? `HTTP ${response.status}`)
  }

  return {
    /** The order was placed: hold its amount. */
    placed: (order: { orderId: string; customerId: string; amountCents: number; card: Card }) =>
      carryOut(`authorize ${order.orderId}`, async (idempotencyKey) => {
        return (await post(AUTHORIZE, { input: { ...order, idempotencyKey } })).result
      }),
    /** The goods leave: charge it. */
    shipped: ({ id: paymentId, amount }: Payment) =>
      carryOut(`capture ${paymentId}`, async (idempotencyKey) => {
        const input = { idempotencyKey, paymentId, expectedAmountCents: amount.cents }
        return (await post(CAPTURE, { input })).result
      }),
    /** The order was cancelled before it was charged: let the hold go. */
    cancelled: ({ id: paymentId }: Payment) =>
      carryOut(`void ${paymentId}`, async (idempotencyKey) => {
        return (await post(VOID, { input: { idempotencyKey, paymentId } })).result
      }),
    /** The goods came back: give the money back. */
    returned: ({ id: paymentId, amount }: Payment) =>
      carryOut(`refund ${paymentId}`, async (idempotencyKey) => {
        const input = { idempotencyKey, paymentId, expectedAmountCents: amount.cents }
        return (await post(REFUND, { input })).result
      }),
    /** All receipts of a customer, newest first. */
    async receipts(customerId: string): Promise<Payment[]> {
      const receipts: Payment[] = []
      for (let after: string | null = null; ;) {
        const { customerHistory: page }: ResultOf<typeof HISTORY> = await post(HISTORY, { customerId, after })
        receipts.push(...page.edges.map(({ node }) => node))
        if (!page.pageInfo.hasNextPage) return receipts
        after = page.pageInfo.endCursor
      }
    },
  }
}

/** A little above the gateway's own deadline (10 s): it answers in its own terms before that. */
const ANSWER_WITHIN_MS = 15_000

/** The gateway refused the request itself; a repeat is refused as well. */
export class Refused extends Error {}
