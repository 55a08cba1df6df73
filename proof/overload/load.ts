import { setTimeout as pause } from 'node:timers/promises'
import { Pool } from 'undici'
import { TEST_CARD } from '../../test/support/client.ts'
import { seeded } from '../support/random.ts'

/**
 * Open-loop load: authorizes come as customers do, by a Poisson process, whether or not earlier ones were answered.
 * Some repeat an earlier request, as a client does that has lost its answer.
 */
export type Plan = {
  url: string
  /** Begins every idempotency key. */
  name: string
  perSecond: number
  seconds: number
  seed: number
  /** The share of requests that repeat an earlier one, answered or not. */
  repeats: number
}

export type Answered = {
  key: string
  isRepeat: boolean
  /** SUCCESS, a problem's code, or BROKEN: no answer of the API's. */
  answer: string
  replayed: boolean
  retryAfterMs: number | null
  /** Since the load began. */
  sentMs: number
  answeredMs: number
}

export async function load(plan: Plan): Promise<Answered[]> {
  const random = seeded(plan.seed)
  // As many connections as it takes: that they run out must not slow the load down.
  const pool = new Pool(new URL(plan.url).origin, { connections: null, pipelining: 1 })
  const answers: Promise<Answered>[] = []
  const startedMs = performance.now()
  let dueMs = 0
  for (let fresh = 0; dueMs < plan.seconds * 1_000;) {
    while (dueMs <= performance.now() - startedMs) {
      const isRepeat = fresh > 0 && random() < plan.repeats
      const number = isRepeat ? Math.floor(random() * fresh) : (fresh += 1) - 1
      answers.push(ask(pool, startedMs, `${plan.name}-${number}`, isRepeat))
      dueMs += (-Math.log(1 - random()) / plan.perSecond) * 1_000
    }
    await pause(1)
  }
  const all = await Promise.all(answers)
  await pool.close()
  return all
}

async function ask(pool: Pool, startedMs: number, key: string, isRepeat: boolean): Promise<Answered> {
  const sentMs = performance.now() - startedMs
  const input = {
    idempotencyKey: key,
    orderId: key,
    customerId: 'overload',
    amountCents: 100,
    card: TEST_CARD,
  }
  const told = await pool
    .request({
      method: 'POST',
      path: '/graphql',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: AUTHORIZE, variables: { input } }),
    })
    .then(async ({ body }) => (await body.json()) as { data?: { result?: Result | null } | null })
    .catch(() => null)
  const result = told?.data?.result ?? { code: 'BROKEN' }
  return {
    key,
    isRepeat,
    answer: result.code ?? 'SUCCESS',
    replayed: result.replayed ?? false,
    retryAfterMs: result.retryAfterMs ?? null,
    sentMs,
    answeredMs: performance.now() - startedMs,
  }
}

type Result = { code?: string; replayed?: boolean; retryAfterMs?: number | null }

const AUTHORIZE = /* GraphQL */ `
  mutation ($input: AuthorizePaymentInput!) {
    result: authorizePayment(input: $input) {
      ... on PaymentProblem {
        code
        retryAfterMs
      }
      ... on AuthorizePaymentSuccess {
        replayed
      }
    }
  }
`
