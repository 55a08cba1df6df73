import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createTcpServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { beforeEach, describe, expect, it } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { answered } from '../../src/db/persist.ts'
import { systemClock } from '../../src/gateway.ts'
import { reconcileWhatIsDue } from '../../src/recovery/reconcile/schedule.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { ASKERS, serverFor } from '../access/askers.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, client as clientAt, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { scrape } from '../support/metrics.ts'

/** What Prometheus reads at /metrics after FicMart, the bank and Postgres have been at work. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const at = { databaseUrl: database.url, bankUrl: bank.url }
const { client, gateway } = startTestGateway(at)
let laterMs = 0
const databaseTime = () => new Date(Date.now() + laterMs)
gateway.clock = { ...systemClock, databaseTime }
/** Another process, so that its clock may be put forward: what it keeps for seconds is read anew each time. */
const { gateway: reader, fetch } = startTestGateway(at)
let readMs = 0
reader.clock = { ...systemClock, databaseTime, monotonicMs: () => (readMs += 10_000) }
const HOUR_MS = 3_600_000
beforeEach(() => {
  bank.faults.clear()
  laterMs = 0
})

/** How much each series has grown while `work` was done. */
async function growth(work: () => Promise<unknown>): Promise<(series: string) => number> {
  const before = await scrape(fetch)
  await work()
  const after = await scrape(fetch)
  return (series) => (after.value(series) ?? 0) - (before.value(series) ?? 0)
}

describe('counted as it happens', () => {
  it('payments, by operation and result', async () => {
    const idempotencyKey = randomUUID()
    const grew = await growth(async () => {
      const { id } = await authorized(client, { idempotencyKey, orderId: idempotencyKey })
      await client.authorize({ idempotencyKey, orderId: idempotencyKey })
      await client.authorize({
        card: { ...TEST_CARD, number: '5555555555554444', cvv: '789', expiryMonth: 9 },
      })
      await client.authorize({ amountCents: -1 })
      await client.capture({ paymentId: id })
      await client.void({ paymentId: id })
    })
    const of = (field: string, result: string, replayed = false) =>
      grew(`gateway_answers_total{field="${field}",result="${result}",replayed="${replayed}"}`)
    expect(of('authorizePayment', 'SUCCESS')).toBe(1)
    expect(of('authorizePayment', 'SUCCESS', true)).toBe(1)
    expect(of('authorizePayment', 'INSUFFICIENT_FUNDS')).toBe(1)
    expect(of('authorizePayment', 'INVALID_INPUT')).toBe(1)
    expect(of('capturePayment', 'SUCCESS')).toBe(1)
    expect(of('voidPayment', 'INVALID_TRANSITION')).toBe(1)
    expect(grew('gateway_answer_seconds_count{field="authorizePayment"}')).toBe(4)
    const settled = (operation: string, outcome: string) =>
      grew(`gateway_operations_settled_total{operation="${operation}",outcome="${outcome}"}`)
    expect(settled('AUTHORIZE', 'SUCCEEDED')).toBe(1)
    expect(settled('AUTHORIZE', 'INSUFFICIENT_FUNDS')).toBe(1)
    expect(settled('CAPTURE', 'SUCCEEDED')).toBe(1)
  })

  it('who asks for receipts while the database is away, under the code that the client is told', async () => {
    const away = startTestGateway({ ...at, databaseUrl: 'postgres://nobody@127.0.0.1:1/none' })
    const grew = await growth(() =>
      expect(away.client.query('{ paymentsByOrder(orderId: "1") { id } }')).rejects.toThrow(
        'DATABASE_UNAVAILABLE',
      ),
    )
    const of = { field: 'paymentsByOrder', result: 'DATABASE_UNAVAILABLE' }
    expect(grew(`gateway_answers_total{field="${of.field}",result="${of.result}",replayed="false"}`)).toBe(1)
    expect(grew(`gateway_request_errors_total{code="${of.result}"}`)).toBe(1)
  })

  it('exchanges with the bank by conclusion, how long they took, and how many an operation needed', async () => {
    bank.faults.add('chaos', { endpoint: 'authorizations', times: 2 })
    const grew = await growth(() => authorized(client))
    const exchanges = (conclusion: string) =>
      grew(
        `gateway_bank_exchange_seconds_count{endpoint="POST /api/v1/authorizations",purpose="SEND",conclusion="${conclusion}"}`,
      )
    expect([exchanges('notDone'), exchanges('done')]).toEqual([2, 1])
    expect(grew('gateway_operation_attempts_sum{operation="AUTHORIZE"}')).toBe(3)
    expect(grew('gateway_operation_attempts_count{operation="AUTHORIZE"}')).toBe(1)
    const steps = ['claim', 'claim again', 'settle'].map((step) =>
      grew(`gateway_database_step_seconds_count{step="${step}"}`),
    )
    expect(steps).toEqual([1, 2, 1])
  })

  it('what is not let through to the bank, and the state of its circuit and places', async () => {
    const narrow = startTestGateway({ ...at, bank: { maxInFlight: 1, maxQueued: 1 } })
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const first = narrow.client.authorize()
    await gate.arrived
    const queued = narrow.client.authorize()
    await expect.poll(() => narrow.gateway.bank.state().queued).toBe(1)
    const grew = await growth(() => narrow.client.authorize())
    expect(grew('gateway_bank_refusals_total{reason="full"}')).toBe(1)
    const full = await scrape(narrow.fetch)
    expect([full.value('gateway_bank_in_flight'), full.value('gateway_bank_queued')]).toEqual([1, 1])
    gate.open()
    await Promise.all([first, queued])

    const breaker = { windowMs: 10_000, callsMin: 4, healthWaitMs: 60_000, healthWaitMsMax: 60_000 }
    const cut = startTestGateway({ ...at, bank: { breaker } })
    expect((await scrape(cut.fetch)).value('gateway_bank_circuit_open')).toBe(0)
    bank.faults.add('chaos', { times: null })
    while (cut.gateway.bank.state().circuit === 'closed') await cut.client.authorize()
    const refused = await growth(() => cut.client.authorize())
    expect(refused('gateway_bank_refusals_total{reason="circuit_open"}')).toBe(1)
    expect((await scrape(cut.fetch)).value('gateway_bank_circuit_open')).toBe(1)
  })

  it('statements that wait for a connection', async () => {
    const narrow = startTestGateway(at)
    const lock = await database.sql`select pg_advisory_lock(1), pg_backend_pid() as pid`
    const { max } = narrow.gateway.sql.options
    const waiting = Array.from({ length: max + 3 }, () =>
      answered(narrow.gateway.sql`select pg_advisory_xact_lock(1)`),
    )
    const now = await scrape(narrow.fetch)
    expect(now.value('gateway_database_statements_in_flight')).toBeGreaterThanOrEqual(max + 3)
    expect(now.value('gateway_database_connections_max')).toBe(max)
    await database.sql`select pg_terminate_backend(${lock[0]?.['pid'] as number}::int)`.catch(() => {})
    await Promise.all(waiting)
    // The scrape's own read, which nobody waited for, was behind them.
    const inFlight = async () => (await scrape(fetch)).value('gateway_database_statements_in_flight')
    await expect.poll(inFlight).toBe(0)
  })

  it('that the process stops', async () => {
    const stopping = startTestGateway(at)
    expect((await scrape(stopping.fetch)).value('gateway_draining')).toBe(0)
    stopping.gateway.inFlight.draining = true
    expect((await scrape(stopping.fetch)).value('gateway_draining')).toBe(1)
  })
})

describe('read from the receipts', () => {
  it('is what somebody may have to act on, and how long it has waited', async () => {
    const now = async () => {
      const { value } = await scrape(fetch)
      return (name: string) => value(`gateway_${name}`) ?? Number.NaN
    }
    const before = await now()
    const zero = [
      'operations_due',
      'payments_in_review',
      'possible_orphan_holds',
      'stray_holds',
      'holds_expired',
    ]
    expect(zero.map(before)).toEqual([0, 0, 0, 0, 0])

    // Under way, then left to recovery.
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const slow = client.authorize()
    await gate.arrived
    expect((await now())('operations_under_way')).toBe(1)
    gate.open()
    await slow
    bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: null })
    bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
    await client.authorize()
    laterMs += 60_000
    const left = await now()
    expect([left('operations_due'), left('operations_under_way')]).toEqual([1, 0])
    expect(left('oldest_unresolved_seconds')).toBeGreaterThan(60)
    while ((await now())('operations_due') > 0) await sweep(gateway)

    // Failed, with a hold that turns up an hour later.
    const failed = await now()
    expect(failed('possible_orphan_holds')).toBe(1)
    bank.faults.clear()
    laterMs += HOUR_MS
    expect((await now())('late_looks_due')).toBe(1)
    bank.faults.add('chaos', { endpoint: 'voids', times: null })
    await sweep(gateway)
    const found = await now()
    expect([found('possible_orphan_holds'), found('stray_holds')]).toEqual([0, 1])
    expect(found('oldest_stray_hold_seconds')).toBeGreaterThan(0)

    bank.faults.add('other-amount', { endpoint: 'captures' })
    await client.capture({ paymentId: (await authorized(client)).id })
    laterMs += HOUR_MS
    const review = await now()
    expect([review('payments_in_review'), review('operations_in_review')]).toEqual([1, 1])
    expect(review('oldest_review_seconds')).toBeGreaterThan(3_000)
  })

  it('tells of holds that are about to end, and of those that have and are not released', async () => {
    const early = await scrape(fetch)
    expect(early.value('gateway_holds_expiring')).toBe(0)
    laterMs += 160 * HOUR_MS
    expect((await scrape(fetch)).value('gateway_holds_expiring')).toBeGreaterThan(0)
    laterMs += 10 * HOUR_MS
    const late = await scrape(fetch)
    expect(late.value('gateway_holds_expiring')).toBe(0)
    expect(late.value('gateway_holds_expired')).toBeGreaterThan(0)
  })

  it('is what the newest reconciliation found, and when', async () => {
    const { amount } = await captured(client)
    await bank.sql`update transactions set amount_cents = ${amount.cents + 1} where type = 'CAPTURE'`
    // None yet: that is late, too.
    laterMs = 50 * HOUR_MS
    expect((await scrape(fetch)).value('gateway_last_reconciliation_seconds')).toBeGreaterThan(49 * 3_600)
    laterMs = 0
    const reconciled = async () => {
      await client.query(
        'mutation { startReconciliation(input: { days: 7 }) { ... on ReconciliationAccepted { reconciliation { id } } } }',
      )
      gateway.clock = systemClock
      await reconcileWhatIsDue(gateway, 0, new AbortController().signal)
      gateway.clock = { ...systemClock, databaseTime }
    }
    await reconciled()
    type Runs = { reconciliations: { edges: { node: { status: string; discrepancyCount: number } }[] } }
    const { reconciliations } = await client.query<Runs>(
      '{ reconciliations(first: 1) { edges { node { status discrepancyCount } } } }',
    )
    laterMs = HOUR_MS
    const { value } = await scrape(fetch)
    expect(reconciliations.edges[0]?.node).toEqual({
      status: 'FINISHED',
      discrepancyCount: value('gateway_discrepancies'),
    })
    expect(value('gateway_discrepancies')).toBeGreaterThan(0)
    expect(value('gateway_last_reconciliation_seconds')).toBeGreaterThan(3_500)

    // What a statement has shown is not forgotten because a later look by GET cannot see it.
    await database.sql`update reconciliations set kind = 'STATEMENT', source = 'bank.csv'`
    await bank.sql`update transactions set amount_cents = ${amount.cents} where type = 'CAPTURE'`
    await reconciled()
    expect((await scrape(fetch)).value('gateway_discrepancies')).toBe(value('gateway_discrepancies'))
  })

  it('is read once in three seconds, however many ask', async () => {
    const asked: string[] = []
    const watched = startTestGateway(at)
    let nowMs = 0
    watched.gateway.clock = {
      ...systemClock,
      monotonicMs: () => nowMs,
      databaseTime: () => (asked.push('read'), null),
    }
    await Promise.all(Array.from({ length: 10 }, () => scrape(watched.fetch)))
    nowMs = 2_999
    await scrape(watched.fetch)
    expect(asked).toHaveLength(1)
    nowMs = 3_000
    await scrape(watched.fetch)
    expect(asked).toHaveLength(2)
  })
})

describe('without the database', () => {
  const RECEIPTS = /^gateway_(operations_due|payments_in_review|oldest_\w+|stray_holds|holds_\w+) /m

  it('that refuses, a scrape says so at once and gives no old number', async () => {
    const lost = startTestGateway(at)
    expect((await scrape(lost.fetch)).text).toMatch(RECEIPTS)
    lost.gateway.sql = connect('postgres://127.0.0.1:1/none', { connectionsMax: 1, statementTimeoutMs: 100 })
    let nowMs = performance.now() + 10_000
    lost.gateway.clock = { ...systemClock, monotonicMs: () => nowMs }
    const without = await scrape(lost.fetch)
    expect(without.value('gateway_database_up')).toBe(0)
    expect(without.text).not.toMatch(RECEIPTS)
    expect(without.value('gateway_bank_circuit_open')).toBe(0)
    lost.gateway.sql = connect(at.databaseUrl, { connectionsMax: 1, statementTimeoutMs: 1_000 })
    whenFileEnds(() => lost.gateway.sql.end({ timeout: 1 }))
    nowMs += 10_000
    expect((await scrape(lost.fetch)).value('gateway_database_up')).toBe(1)
  })

  it('that is silent, a scrape does not wait for it, and many do not pile up', async () => {
    const sockets = new Set<Socket>()
    const silent = createTcpServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => {})
    }).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    const lost = startTestGateway({ ...at, databaseUrl: `postgres://127.0.0.1:${port}/none` })
    const beforeMs = performance.now()
    const scrapes = await Promise.all(Array.from({ length: 5 }, () => scrape(lost.fetch)))
    expect(performance.now() - beforeMs).toBeLessThan(3_000)
    expect(scrapes.map(({ value }) => value('gateway_database_up'))).toEqual([0, 0, 0, 0, 0])
    expect(sockets.size).toBe(1)
    for (const socket of sockets) socket.destroy()
    silent.close()
  })
})

describe('who may read it', () => {
  it.each([
    ['ops', 200],
    ['dev', 200],
    ['service', 401],
    ['customer', 401],
  ] as const)('%s: %i', async (role, status) => {
    const response = await serverFor(gateway, ASKERS[role]).fetch('http://gateway/metrics')
    expect(response.status).toBe(status)
    const text = await response.text()
    expect(text.includes('gateway_')).toBe(status === 200)
    expect(response.headers.get('content-type')).toMatch(
      status === 200 ? /^text\/plain/ : /^application\/json/,
    )
    if (status !== 200)
      expect(JSON.parse(text)).toMatchObject({ errors: [{ extensions: { code: 'UNAUTHENTICATED' } }] })
  })

  it('nobody without a key, where keys are set', async () => {
    const refused = { refused: 'UNAUTHENTICATED', message: 'no' } as const
    const server = serverFor(gateway, ASKERS.dev, { whoAsks: async () => refused })
    const response = await server.fetch('http://gateway/metrics')
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
  })

  it('counts who is turned away at the door', async () => {
    const refused = { refused: 'UNAUTHENTICATED', message: 'no' } as const
    const server = serverFor(gateway, ASKERS.dev, { whoAsks: async () => refused })
    const grew = await growth(async () => {
      const stranger = { fetch: (url: string, init: RequestInit) => server.fetch(url, init) }
      await clientAt('http://gateway/graphql', stranger).post('{ __typename }')
      await client.post('{ nothing }')
    })
    expect(grew('gateway_request_errors_total{code="UNAUTHENTICATED"}')).toBe(1)
    expect(grew('gateway_request_errors_total{code="GRAPHQL_VALIDATION_FAILED"}')).toBe(1)
  })
})

it('no label holds an id, a number of a card, or what a client made up', async () => {
  const orderId = `order-${randomUUID()}`
  const payment = await captured(client, { orderId, customerId: 'somebody-special' })
  await client.query(`query Mine { theirs: paymentsByOrder(orderId: "${orderId}") { id } }`)
  const { text } = await scrape(fetch)
  expect(text).toContain('field="paymentsByOrder"')
  for (const secret of [
    payment.id.slice(4),
    orderId,
    'somebody-special',
    TEST_CARD.number,
    'Mine',
    'theirs',
  ]) {
    expect(text).not.toContain(secret)
  }
  expect(text).not.toMatch(/[0-9a-f]{8}-[0-9a-f]{4}|(pay|op|auth|cap)_[0-9a-f]/)
  expect(text).not.toMatch(/\d{13}(?!.*$)/m)
})
