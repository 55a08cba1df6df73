import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { connect as connectTo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it, vi } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { client, succeeded } from '../support/client.ts'
import type { Fetch } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'
import type { GatewayProcess } from '../support/gateway-process.ts'
import { expectBookedOnce, startOrders, unclaimed } from '../support/orders.ts'

/** Processes that are told to stop while clients use them: everybody is answered, nobody is cut off. */

const ORDERLY_MS = 25_000

async function setUp(env: Record<string, string> = {}) {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const all = { DATABASE_URL: database.url, BANK_URL: bank.url, SHUTDOWN_DELAY_MS: '3000', ...env }
  return { database, bank, start: () => spawnGateway(all) }
}

describe.concurrent('a process that is told to stop', { timeout: 120_000 }, () => {
  it('what is at the bank is waited for and settled, nothing else is sent, everybody is answered, and it ends by itself', async () => {
    const { bank, start } = await setUp()
    const gateway = await start()
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const underWay = gateway.client.authorize({ orderId: 'before' })
    await gate.arrived
    const kept = keepAlive(gateway)
    expect((await kept.ready()).statusCode).toBe(200)

    gateway.child.kill('SIGTERM')
    await vi.waitUntil(async () => (await fetch(`${gateway.url}/health/ready`)).status === 503)
    const input = { idempotencyKey: randomUUID(), orderId: 'after' }
    const refused = await gateway.client.authorize(input)
    expect(refused).toMatchObject({
      code: 'BANK_UNAVAILABLE',
      retry: 'SAME_KEY',
      retryAfterMs: expect.any(Number),
      payment: null,
    })
    // On a connection that is kept alive: answered, and told to come by another.
    expect((await kept.ready()).headers.connection).toBe('close')
    expect(bank.received.filter(({ method }) => method === 'POST')).toHaveLength(1)

    gate.open()
    expect(succeeded(await underWay).payment.state).toBe('AUTHORIZED')
    expect(await gateway.exited).toBe(0)
    // The next process finds the one receipt, and the key of the other still free.
    const next = await start()
    expect(await next.client.query(`{ paymentsByOrder(orderId: "before") { state } }`)).toEqual({
      paymentsByOrder: [{ state: 'AUTHORIZED' }],
    })
    expect(succeeded(await next.client.authorize(input)).replayed).toBe(false)
  })

  it('the answer to a request that was under way says that the connection ends', async () => {
    const { bank, start } = await setUp()
    const gateway = await start()
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const kept = keepAlive(gateway)
    const underWay = kept.authorize()
    await gate.arrived
    gateway.child.kill('SIGTERM')
    await vi.waitUntil(() => gateway.output().includes('stopping'))
    gate.open()
    expect((await underWay).headers.connection).toBe('close')
    expect(await gateway.exited).toBe(0)
  })

  it('connections without a request hold nothing up', async () => {
    const { start } = await setUp({ SHUTDOWN_DELAY_MS: '0' })
    const gateway = await start()
    const { port } = new URL(gateway.url)
    const silent = connectTo(Number(port), '127.0.0.1')
    const half = connectTo(Number(port), '127.0.0.1', () => half.write('POST /graphql HTTP/1.1\r\n'))
    await Promise.all([once(silent, 'connect'), once(half, 'connect')])
    await keepAlive(gateway).ready()
    const startedMs = performance.now()
    gateway.child.kill('SIGTERM')
    expect(await gateway.exited).toBe(0)
    expect(performance.now() - startedMs).toBeLessThan(8_000)
  })

  it('Ctrl-C does not wait for load balancers', async () => {
    const { start } = await setUp({ SHUTDOWN_DELAY_MS: '10000' })
    const gateway = await start()
    gateway.child.kill('SIGINT')
    expect(await Promise.race([gateway.exited, pause(8_000, 'late')])).toBe(0)
  })

  it('a bank that never answers keeps nobody for longer than 25 seconds: its client is told that the outcome is unknown', async () => {
    const { bank, database, start } = await setUp({
      BANK_ATTEMPT_TIMEOUT_MS: '60000',
      REQUEST_DEADLINE_MS: '60000',
    })
    const gateway = await start()
    bank.faults.add('hang-before', { endpoint: 'authorizations' })
    const underWay = gateway.client.authorize()
    await bank.until((received) => received.some(({ method }) => method === 'POST'))
    const startedMs = performance.now()
    gateway.child.kill('SIGTERM')
    expect(await underWay).toMatchObject({ code: 'OUTCOME_UNKNOWN', retry: 'SAME_KEY' })
    expect(await gateway.exited).toBe(0)
    expect(performance.now() - startedMs).toBeLessThan(ORDERLY_MS)
    expect(await database.sql`select status from operations`).toEqual([{ status: 'UNRESOLVED' }])
  })

  it('a rolling restart of three processes under load breaks no connection, and every order is placed once', async () => {
    const { bank, database, start } = await setUp({
      SHUTDOWN_DELAY_MS: '3000',
      BANK_ATTEMPT_TIMEOUT_MS: '5000',
      BANK_QUIET_PERIOD_MS: '3000',
    })
    Object.assign(bank.settings, { minLatencyMs: 20, maxLatencyMs: 300, failureRate: 0.05 })
    const balancer = balance(await Promise.all([start(), start(), start()]))
    const orders = startOrders(client('http://gateway/graphql', { fetch: balancer.fetch }), 12)
    await orders.until(6)
    for (const old of balancer.behind()) {
      const startedMs = performance.now()
      old.child.kill('SIGTERM')
      expect(await old.exited).toBe(0)
      expect(performance.now() - startedMs).toBeLessThan(ORDERLY_MS)
      balancer.remove(old)
      balancer.add(await start())
      await orders.until(orders.count() + 6)
    }
    const placed = await orders.finish()
    balancer.close()
    // `fetch` rejects where a connection breaks, and `client` where the answer is not the API's own.
    expect(balancer.asked()).toBeGreaterThan(2 * placed.length - 1)
    await expectBookedOnce(bank, placed)
    expect(await unclaimed(bank, database.sql)).toEqual([])
  })
})

/** A load balancer: one after another of those that were ready when it last looked, over connections that it keeps. */
function balance(gateways: readonly GatewayProcess[]) {
  const behind = new Set<GatewayProcess>()
  const ready = new Set(gateways)
  let turn = 0
  const watch = async (gateway: GatewayProcess) => {
    while (behind.has(gateway)) {
      const answer = await fetch(`${gateway.url}/health/ready`).catch(() => null)
      if (answer?.status === 200) ready.add(gateway)
      else ready.delete(gateway)
      await pause(100)
    }
  }
  const add = (gateway: GatewayProcess) => {
    behind.add(gateway)
    void watch(gateway)
  }
  gateways.forEach(add)
  const pass: Fetch = async (url, init) => {
    const gateway = [...ready][(turn += 1) % ready.size]
    if (gateway === undefined) throw new Error('no gateway is ready')
    return await fetch(new URL(new URL(url).pathname, gateway.url), init)
  }
  return {
    behind: () => [...behind],
    add,
    remove: (gateway: GatewayProcess) => behind.delete(gateway),
    fetch: pass,
    asked: () => turn,
    close: () => behind.clear(),
  }
}

/** A client with one connection that it would like to keep. */
function keepAlive({ url }: GatewayProcess) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  async function ask(path: string, body?: object): Promise<IncomingMessage> {
    const asked = request(`${url}${path}`, {
      agent,
      method: body === undefined ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json' },
    })
    asked.end(body === undefined ? undefined : JSON.stringify(body))
    const [answer] = (await once(asked, 'response')) as [IncomingMessage]
    answer.resume()
    await once(answer, 'end')
    return answer
  }
  return {
    ready: () => ask('/health/ready'),
    authorize: () =>
      ask('/graphql', {
        query: `mutation { authorizePayment(input: { idempotencyKey: "kept", orderId: "kept", customerId: "c",
          amountCents: 100, card: { number: "4111111111111111", cvv: "123", expiryMonth: 12, expiryYear: 2030 } })
          { __typename } }`,
      }),
  }
}
