import { setTimeout as pause } from 'node:timers/promises'
import { Pool } from 'undici'
import { percentile } from '../../proof/support/report.ts'
import { DOCUMENTS } from './documents.ts'

/**
 * The load, in a process of its own: FicMart's order service with many connections that are kept. Either each of them
 * asks again as soon as it is answered, or requests come at a steady pace, whether or not the earlier ones are
 * answered; then each is timed from the moment it was due, so that a gateway that stalls cannot hide it.
 */

export type Job = {
  urls: string[]
  apiKey: string
  connections: number
  /** Names the orders and keys: the same again are duplicates. */
  name: string
  work: Work
  /** Ends when so many are done, or after so long. */
  until: { count: number } | { ms: number }
  perSecond?: number
}
export type Work = { do: 'authorize' | 'life' } | { do: 'read'; document: string; variables: unknown[] }

export type Done = {
  /** Whole ones: a life counts once. */
  count: number
  ms: number
  /** Of answers that were duplicates of an earlier one. */
  replayed: number
  failed: number
  /** One of them, to look at. */
  failure: string | null
  p50Ms: number
  p99Ms: number
}

type Answered = {
  __typename: string
  code?: string
  message?: string
  replayed?: boolean
  payment?: { id: string }
}

const ANSWER_WITHIN_MS = 120_000
const CARD = { number: '4111111111111111', cvv: '123', expiryMonth: 12, expiryYear: 2030 }
const AMOUNT_CENTS = 4_999
const CUSTOMERS = 1_000

async function run(job: Job): Promise<Done> {
  const { work, until, urls, connections } = job
  const pools = urls.map(
    (url) =>
      new Pool(url, {
        connections: Math.ceil(connections / urls.length),
        pipelining: 1,
        headersTimeout: ANSWER_WITHIN_MS,
        bodyTimeout: ANSWER_WITHIN_MS,
      }),
  )
  const done: Done = { count: 0, ms: 0, replayed: 0, failed: 0, failure: null, p50Ms: 0, p99Ms: 0 }
  const latencies: number[] = []
  const startedMs = performance.now()
  let begun = 0
  const isOver = () => ('count' in until ? begun >= until.count : performance.now() - startedMs >= until.ms)

  const one = async (dueMs = performance.now()) => {
    const number = begun
    begun += 1
    const pool = pools[number % pools.length]
    if (pool === undefined) return
    try {
      await carryOut(pool, number)
      done.count += 1
      latencies.push(performance.now() - dueMs)
    } catch (error) {
      done.failed += 1
      done.failure ??= String(error).slice(0, 400)
    }
  }

  const carryOut = async (pool: Pool, number: number): Promise<void> => {
    if (work.do === 'read') {
      await ask(pool, work.document, work.variables[number % work.variables.length])
      return
    }
    const key = `${job.name}-${number}`
    const customerId = `customer-${number % CUSTOMERS}`
    const authorize = {
      idempotencyKey: key,
      orderId: `order-${key}`,
      customerId,
      amountCents: AMOUNT_CENTS,
      card: CARD,
    }
    const { id: paymentId } = await mutate(pool, DOCUMENTS.authorize, authorize)
    if (work.do === 'authorize') return
    await mutate(pool, DOCUMENTS.capture, { idempotencyKey: `capture-${key}`, paymentId })
    await mutate(pool, DOCUMENTS.refund, { idempotencyKey: `refund-${key}`, paymentId })
  }

  const mutate = async (pool: Pool, document: string, input: unknown): Promise<{ id: string }> => {
    const { result } = (await ask(pool, document, { input })) as { result: Answered }
    if (result.payment === undefined || result.code !== undefined)
      throw new Error(`${result.code}: ${result.message}`)
    if (result.replayed === true) done.replayed += 1
    return result.payment
  }

  const ask = async (pool: Pool, query: string, variables: unknown): Promise<unknown> => {
    const { body } = await pool.request({
      method: 'POST',
      path: '/graphql',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${job.apiKey}` },
      body: JSON.stringify({ query, variables }),
    })
    const { data, errors } = (await body.json()) as { data?: unknown; errors?: unknown }
    if (errors !== undefined) throw new Error(JSON.stringify(errors))
    return data
  }

  if (job.perSecond === undefined) {
    await Promise.all(
      Array.from({ length: connections }, async () => {
        while (!isOver()) await one()
      }),
    )
  } else {
    const running: Promise<void>[] = []
    while (!isOver()) {
      const due = startedMs + (begun / job.perSecond) * 1_000
      if (due > performance.now()) await pause(Math.max(1, due - performance.now()))
      running.push(one(due))
    }
    await Promise.all(running)
  }
  done.ms = performance.now() - startedMs
  done.p50Ms = percentile(latencies, 0.5)
  done.p99Ms = percentile(latencies, 0.99)
  await Promise.all(pools.map((pool) => pool.destroy()))
  return done
}

process.on('message', (job: Job) => {
  run(job).then(
    (done) => process.send?.({ done }),
    (error: unknown) => process.send?.({ error: String(error) }),
  )
})
process.on('disconnect', () => process.exit())
process.send?.('ready')
