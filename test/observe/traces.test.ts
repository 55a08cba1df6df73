import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { SpanKind, SpanStatusCode } from '@opentelemetry/api'
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Claimed } from '../../src/events/deliveries.ts'
import { createReceiver } from '../../src/events/receiver.ts'
import { systemClock } from '../../src/gateway.ts'
import { install } from '../../src/observe/tracing.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { ASKERS, serverFor } from '../access/askers.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, client as clientAt, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway, startTestGateway } from '../support/gateway.ts'

/** One trace tells the whole story of a payment, to whoever asked for one, and holds nothing but ids. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const at = { databaseUrl: database.url, bankUrl: bank.url }
const { client, gateway, fetch } = startTestGateway(at)
const exporter = new InMemorySpanExporter()
await install([new SimpleSpanProcessor(exporter)])
beforeEach(() => {
  exporter.reset()
  bank.faults.clear()
})

const spans = () => exporter.getFinishedSpans()
const named = (name: string) => spans().filter((span) => span.name === name)
const traceOf = (span: ReadableSpan | undefined) => span?.spanContext().traceId
const OPERATION = expect.stringMatching(/^op_[0-9a-f-]{36}$/) as string
const AUTHORIZATIONS = 'POST /api/v1/authorizations'

/** A caller that is a part of a trace. */
function caller(sampled = true) {
  const traceId = randomUUID().replaceAll('-', '')
  const spanId = '00f067aa0ba902b7'
  const headers = { traceparent: `00-${traceId}-${spanId}-0${Number(sampled)}` }
  return { traceId, spanId, headers, client: clientAt('http://gateway/graphql', { fetch, headers }) }
}

it.each([
  ['vendor=4242|4242|4242|4242', undefined],
  ['vendor=a4242424242424242', undefined],
  ['vendor=00f067aa0ba902b7', 'vendor=00f067aa0ba902b7'],
])("a caller's tracestate %s goes on as %s", async (tracestate, kept) => {
  const by = caller()
  await fetch('http://gateway/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...by.headers, tracestate },
    body: '{"query":"{ __typename }"}',
  })
  const [http] = named('POST /graphql')
  expect(traceOf(http)).toBe(by.traceId)
  expect(http?.spanContext().traceState?.serialize()).toBe(kept)
})

describe('a payment', () => {
  it("is one trace below its caller's span: the field, the claim, each exchange with the bank, the settling", async () => {
    const by = caller()
    bank.faults.add('chaos', { endpoint: 'authorizations' })
    const { id } = await authorized(by.client)
    const story = spans().filter((span) => traceOf(span) === by.traceId)
    const [[http], [operation], [field]] = [
      named('POST /graphql'),
      named('mutation'),
      named('authorizePayment'),
    ]
    expect(http?.parentSpanContext?.spanId).toBe(by.spanId)
    expect(operation?.parentSpanContext?.spanId).toBe(http?.spanContext().spanId)
    expect(field?.parentSpanContext?.spanId).toBe(operation?.spanContext().spanId)
    expect(field?.attributes).toEqual({
      'gateway.operation': OPERATION,
      'gateway.payment': id,
      'gateway.result': 'SUCCESS',
    })
    const steps = story.filter((span) => span !== field && span !== operation && span !== http)
    expect(steps.map(({ name }) => name)).toEqual([
      'claim',
      AUTHORIZATIONS,
      'claim again',
      AUTHORIZATIONS,
      'settle',
    ])
    for (const step of steps) expect(step.parentSpanContext?.spanId).toBe(field?.spanContext().spanId)
    const operationId = field?.attributes['gateway.operation']
    const conclusions = named(AUTHORIZATIONS).map(({ attributes }) => attributes)
    expect(conclusions).toEqual([
      expect.objectContaining({
        'gateway.operation': operationId,
        'bank.conclusion': 'notDone',
        'http.response.status_code': 500,
        'error.type': '500',
        'bank.error_code': 'internal_error',
      }),
      expect.objectContaining({ 'gateway.operation': operationId, 'bank.conclusion': 'done' }),
    ])
    expect(named('settle')[0]?.attributes).toMatchObject({
      'gateway.operation': operationId,
      'gateway.payment': id,
    })
  })

  it('of a caller without a trace begins one, and one of a caller that wants none leaves nothing', async () => {
    await authorized(client)
    expect(named('POST /graphql')[0]?.parentSpanContext).toBeUndefined()
    expect(spans().map(({ name }) => name)).toEqual([
      'claim',
      AUTHORIZATIONS,
      'settle',
      'authorizePayment',
      'mutation',
      'POST /graphql',
    ])
    exporter.reset()
    await authorized(caller(false).client)
    expect(spans()).toEqual([])
  })

  it("of a customer is in no trace that the customer's browser names", async () => {
    const server = serverFor(gateway, ASKERS.customer)
    const by = caller()
    const asked = {
      fetch: (url: string, init: RequestInit) => server.fetch(url, init),
      headers: { traceparent: `00-${by.traceId}-${by.spanId}-01` },
    }
    await clientAt('http://gateway/graphql', asked).post(
      '{ __typename paymentsByOrder(orderId: "order-1") { id } }',
    )
    const [[http], [field]] = [named('POST /graphql'), named('paymentsByOrder')]
    expect(http?.parentSpanContext).toBeUndefined()
    expect(traceOf(field)).toBe(traceOf(http))
    expect(traceOf(field)).not.toBe(by.traceId)
  })

  it('that is answered late goes on in its trace', async () => {
    const hasty = startTestGateway({ ...at, settings: { requestDeadlineMs: 500 } })
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    expect(await hasty.client.authorize()).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    const [field] = named('authorizePayment')
    expect(named('settle')).toEqual([])
    gate.open()
    await expect.poll(() => named('settle').length).toBe(1)
    expect(traceOf(named('settle')[0])).toBe(traceOf(field))
  })

  it('that waited for a place at the bank, or for its turn, is in its own trace and not in that of who left it', async () => {
    const narrow = startTestGateway({ ...at, bank: { maxInFlight: 1, maxQueued: 10 } })
    const of = () => {
      const by = caller()
      const headers = { traceparent: `00-${by.traceId}-${by.spanId}-01` }
      return { ...by, client: clientAt('http://gateway/graphql', { fetch: narrow.fetch, headers }) }
    }
    const callers = Array.from({ length: 4 }, of)
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const asking = callers.map(({ client }) => client.authorize())
    await gate.arrived
    await expect.poll(() => narrow.gateway.bank.state().queued).toBe(3)
    gate.open()
    await Promise.all(asking)
    for (const name of ['claim', AUTHORIZATIONS, 'settle']) {
      const traces = named(name).map(traceOf)
      expect(traces).toHaveLength(callers.length)
      expect(new Set(traces)).toEqual(new Set(callers.map(({ traceId }) => traceId)))
    }

    const { id } = await authorized(client)
    exporter.reset()
    const [one, two] = [caller(), caller()]
    await Promise.all([one.client.capture({ paymentId: id }), two.client.void({ paymentId: id })])
    const claims = named('claim').filter((span) => span.parentSpanContext !== undefined)
    expect(new Set(claims.map(traceOf))).toEqual(new Set([one.traceId, two.traceId]))
  })
})

describe('by the semantic conventions', () => {
  const one = (name: string) => {
    const [span] = named(name)
    if (span === undefined)
      throw new Error(
        `no span ${name} in ${spans()
          .map((span) => span.name)
          .join(', ')}`,
      )
    return span
  }
  const address = (url: string) => {
    const { hostname, port } = new URL(url)
    return { 'server.address': hostname, 'server.port': Number(port) }
  }
  const POSTGRES = {
    'peer.service': 'postgresql',
    'db.system.name': 'postgresql',
    'db.namespace': new URL(database.url).pathname.slice(1),
    ...address(database.url),
  }

  const DELIVERY: Claimed = {
    paymentId: randomUUID(),
    version: 2,
    attempts: 1,
    fromState: 'PENDING',
    toState: 'AUTHORIZED',
    at: new Date(),
    bankAt: null,
    orderId: 'order-1',
    customerId: 'customer-1',
    amountCents: 4_999,
    currency: 'USD',
    cardBrand: 'visa',
    cardLast4: '1111',
  }

  it('an HTTP request and its GraphQL operation', async () => {
    await client.post(
      'query History { customerHistory(customerId: "c", first: 1) { edges { node { id } } } }',
    )
    expect(one('POST /graphql')).toMatchObject({
      kind: SpanKind.SERVER,
      status: { code: SpanStatusCode.UNSET },
      attributes: {
        'http.request.method': 'POST',
        'http.route': '/graphql',
        'url.path': '/graphql',
        'url.scheme': 'http',
        'http.response.status_code': 200,
      },
    })
    expect(one('query')).toMatchObject({
      kind: SpanKind.SERVER,
      attributes: { 'graphql.operation.type': 'query', 'graphql.operation.name': 'History' },
    })
    expect(one('customerHistory').kind).toBe(SpanKind.INTERNAL)
  })

  it('a request that is refused before anything runs', async () => {
    await client.post('{ nonsense }')
    expect(spans().map(({ name }) => name)).toEqual(['POST /graphql'])
    exporter.reset()
    const nobody = { whoAsks: async () => ({ refused: 'UNAUTHENTICATED', message: 'no' }) as const }
    const server = serverFor(gateway, ASKERS.dev, nobody)
    const by = caller()
    const headers = { 'content-type': 'application/json', traceparent: `00-${by.traceId}-${by.spanId}-01` }
    await server.fetch('http://gateway/graphql', {
      method: 'POST',
      headers,
      body: '{"query":"{ __typename }"}',
    })
    expect(one('POST /graphql')).toMatchObject({
      parentSpanContext: undefined,
      status: { code: SpanStatusCode.UNSET },
      attributes: { 'http.response.status_code': 401 },
    })
  })

  it('an exchange with the bank, and a step and a read of Postgres, each with whom it was', async () => {
    const { id } = await authorized(client)
    expect(one(AUTHORIZATIONS)).toMatchObject({
      kind: SpanKind.CLIENT,
      status: { code: SpanStatusCode.UNSET },
      attributes: {
        'peer.service': 'bank',
        ...address(bank.url),
        'http.request.method': 'POST',
        'url.template': '/api/v1/authorizations',
        'url.full': `${bank.url}/api/v1/authorizations`,
        'http.response.status_code': 200,
      },
    })
    expect(one('claim')).toMatchObject({
      kind: SpanKind.CLIENT,
      attributes: { ...POSTGRES, 'db.query.summary': 'claim' },
    })
    exporter.reset()
    await client.query('query ($id: ID!) { payment(by: { id: $id }) { state } }', { id })
    const read = one('SELECT payments')
    expect(read).toMatchObject({
      kind: SpanKind.CLIENT,
      attributes: {
        ...POSTGRES,
        'db.query.summary': 'SELECT payments',
        'db.operation.name': 'SELECT',
        'db.collection.name': 'payments',
      },
    })
    expect(traceOf(read)).toBe(traceOf(one('payment')))
  })

  it('what failed, by its kind: a status, an SQLSTATE, a connection', async () => {
    await startTestGateway({ ...at, bankUrl: 'http://127.0.0.1:9' }).client.authorize()
    expect(one(AUTHORIZATIONS)).toMatchObject({
      status: { code: SpanStatusCode.ERROR },
      attributes: { 'server.port': 9, 'error.type': 'ECONNREFUSED' },
    })
    exporter.reset()
    const away = startTestGateway({ ...at, databaseUrl: 'postgres://nobody@127.0.0.1:1/none' })
    await away.client.post('{ paymentsByOrder(orderId: "1") { id } }')
    for (const name of ['SELECT payments', 'paymentsByOrder', 'query'])
      expect([name, one(name).status.code]).toEqual([name, SpanStatusCode.ERROR])
    expect(one('SELECT payments').attributes['error.type']).toMatch(/^(ECONNREFUSED|ERR_SOCKET_CLOSED)$/)
    expect(one('query').attributes['error.type']).toBe('DATABASE_UNAVAILABLE')
  })

  it('a webhook', async () => {
    const receiver = createReceiver({ url: `${bank.url}/hook?token=secret`, secrets: ['whsec_c2VjcmV0'] })
    await receiver.send(DELIVERY)
    await receiver.close()
    expect(one('POST')).toMatchObject({
      kind: SpanKind.CLIENT,
      status: { code: SpanStatusCode.ERROR },
      attributes: {
        'peer.service': 'webhook-receiver',
        ...address(bank.url),
        'http.request.method': 'POST',
        'http.response.status_code': 404,
        'error.type': '404',
      },
    })
    expect(said()).not.toContain('secret')
  })
})

it('recovery is a trace of its own, found by the operation', async () => {
  bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
  bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: 6 })
  await client.authorize()
  const operation = named('authorizePayment')[0]?.attributes['gateway.operation'] as string
  exporter.reset()
  gateway.clock = { ...systemClock, databaseTime: () => new Date(Date.now() + 60_000) }
  await sweep(gateway)
  gateway.clock = systemClock
  const [recovery] = named('recovery')
  expect(recovery?.parentSpanContext).toBeUndefined()
  expect(recovery?.attributes).toEqual({ 'gateway.due': operation })
  const steps = spans().filter((span) => span !== recovery && !span.name.startsWith('SELECT '))
  expect(steps.map(({ name }) => name)).toEqual(['claim again', 'GET /health', AUTHORIZATIONS, 'settle'])
  for (const step of steps) expect(traceOf(step)).toBe(traceOf(recovery))
  expect(named('settle')[0]?.attributes['gateway.operation']).toBe(operation)
})

it('a fault is marked, without the words of it', async () => {
  const broken = startTestGateway(at)
  broken.gateway.clock = {
    ...systemClock,
    databaseTime: () => {
      throw Object.assign(new TypeError(`no such card: ${TEST_CARD.number}`), { code: 'XX000' })
    },
  }
  await broken.client.authorize().catch(() => null)
  const [field] = named('authorizePayment')
  expect(field?.status.code).toBe(2)
  expect(field?.attributes).toMatchObject({ 'error.type': 'TypeError' })
  expect(said()).not.toContain('no such card')
})

it('no span holds a card, a key, an order or a customer', async () => {
  const secrets = [randomUUID(), randomUUID(), randomUUID()]
  const [idempotencyKey, orderId, customerId] = secrets
  await captured(client, { idempotencyKey, orderId, customerId })
  await client.authorize({ idempotencyKey: secrets[1], orderId, customerId })
  expect(spans().length).toBeGreaterThan(8)
  for (const secret of [...secrets, TEST_CARD.number, 'cvv']) expect(said()).not.toContain(secret)
})

const said = () =>
  JSON.stringify(
    spans().map(({ name, attributes, events, links, status }) => [name, attributes, events, links, status]),
  )

describe('the process', () => {
  /** A collector, and a bank in between that shows what it is told. */
  const batches: { url: string; body: Buffer }[] = []
  const bankHeaders: IncomingHttpHeaders[] = []
  const collect = async (request: IncomingMessage, response: ServerResponse) => {
    batches.push({ url: request.url ?? '', body: await buffer(request) })
    response.end()
  }
  const passOn = async (request: IncomingMessage, response: ServerResponse) => {
    const { method = 'GET', url = '', headers } = request
    bankHeaders.push(headers)
    const body = await buffer(request)
    const answer = await globalThis.fetch(bank.url + url, {
      method,
      headers: { 'idempotency-key': headers['idempotency-key']?.toString() ?? 'none' },
      ...(method === 'POST' && { body }),
    })
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' })
    response.end(await answer.text())
  }
  const serving = (answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>) =>
    createServer((request, response) => void answer(request, response)).listen(0, '127.0.0.1')
  const [collector, front] = [serving(collect), serving(passOn)]
  const silent = createServer(() => {}).listen(0, '127.0.0.1')
  const urlOf = (server: typeof front) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  beforeAll(async () => {
    for (const server of [collector, front, silent]) if (!server.listening) await once(server, 'listening')
  })
  afterAll(() => {
    for (const server of [collector, front, silent]) {
      server.closeAllConnections()
      server.close()
    }
  })

  it('sends its traces where the environment says, the last ones when it stops, and the bank is told nothing', async () => {
    const started = await spawnGateway({
      DATABASE_URL: database.url,
      BANK_URL: urlOf(front),
      OTEL_EXPORTER_OTLP_ENDPOINT: urlOf(collector),
      OTEL_BSP_SCHEDULE_DELAY: '600000',
      OTEL_SERVICE_NAME: 'the-gateway',
    })
    const by = caller()
    const headers = { traceparent: `00-${by.traceId}-${by.spanId}-01`, 'x-request-id': 'shop-1' }
    const { id } = await authorized(clientAt(`${started.url}/graphql`, { headers }))
    const metrics = await (await globalThis.fetch(`${started.url}/metrics`)).text()
    expect(metrics).toMatch(/^nodejs_eventloop_lag_p99_seconds [\d.e-]+$/m)
    expect(metrics).toMatch(/^process_resident_memory_bytes \d+$/m)
    started.child.kill('SIGTERM')
    expect(await started.exited).toBe(0)
    expect(batches.map(({ url }) => url)).toEqual(['/v1/traces'])
    const [sent = Buffer.alloc(0)] = batches.map(({ body }) => body)
    const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string }
    for (const word of ['the-gateway', 'service.version', version, 'authorizePayment', 'settle', id])
      expect(sent.includes(word)).toBe(true)
    expect(sent.includes(Buffer.from(by.traceId, 'hex'))).toBe(true)
    expect(sent.includes(TEST_CARD.number)).toBe(false)
    expect(bankHeaders.some((headers) => 'idempotency-key' in headers)).toBe(true)
    for (const headers of bankHeaders) {
      expect(Object.keys(headers)).not.toEqual(expect.arrayContaining(['traceparent']))
      expect(JSON.stringify(headers)).not.toMatch(/trace|shop-1/)
    }
  })

  it.each([
    ['refuses', 'http://127.0.0.1:9'],
    ['is silent', () => urlOf(silent)],
  ])('pays and stops as ever when the collector %s, and says so', async (_, endpoint) => {
    const started = await spawnGateway({
      DATABASE_URL: database.url,
      BANK_URL: bank.url,
      OTEL_EXPORTER_OTLP_ENDPOINT: typeof endpoint === 'string' ? endpoint : endpoint(),
      OTEL_EXPORTER_OTLP_TIMEOUT: '100',
      OTEL_BSP_SCHEDULE_DELAY: '10',
    })
    expect((await authorized(started.client)).state).toBe('AUTHORIZED')
    await expect
      .poll(started.output, { timeout: 10_000 })
      .toContain('traces may be missing; payments are not affected')
    started.child.kill('SIGTERM')
    expect(await started.exited).toBe(0)
  })

  it('does not wait for its last traces for long', async () => {
    const started = await spawnGateway({
      DATABASE_URL: database.url,
      BANK_URL: bank.url,
      OTEL_EXPORTER_OTLP_ENDPOINT: urlOf(silent),
    })
    await authorized(started.client)
    const stoppedMs = performance.now()
    started.child.kill('SIGTERM')
    expect(await started.exited).toBe(0)
    expect(performance.now() - stoppedMs).toBeLessThan(8_000)
  })

  it('says which exporters it knows, and starts', async () => {
    const env = { DATABASE_URL: database.url, BANK_URL: bank.url, OTEL_TRACES_EXPORTER: 'zipkin' }
    const started = await spawnGateway(env)
    expect(started.output()).toMatch(/"exporter":"zipkin".*known are otlp/)
  })
})
