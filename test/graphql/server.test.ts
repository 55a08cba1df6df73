import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect as openSocket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { parse, validate } from 'graphql'
import { afterAll, describe, expect, it } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { graphiqlOptions } from '../../src/graphql/graphiql.ts'
import { schema } from '../../src/graphql/schema.ts'
import { httpServer } from '../../src/graphql/http.ts'
import { createServer } from '../../src/graphql/server.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, client, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { serving, startTestGateway } from '../support/gateway.ts'

/** The API over HTTP: who may ask, how much, by which method, and what else the server answers. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const server = createServer(gateway, serving())
const http = httpServer(server).listen(0, '127.0.0.1')
await once(http, 'listening')
afterAll(() => {
  http.closeAllConnections()
  http.close()
})
const { port } = http.address() as AddressInfo
const url = `http://127.0.0.1:${port}`

const post = (body: string, headers: Record<string, string> = {}) =>
  fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  })

const payFor = (orderId: string) =>
  JSON.stringify({
    query: 'mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { __typename } }',
    variables: {
      input: { idempotencyKey: randomUUID(), orderId, customerId: '1', amountCents: 100, card: TEST_CARD },
    },
  })

describe('a request', () => {
  it('is answered over a real connection', async () => {
    const payment = await authorized(client(`${url}/graphql`))
    expect(payment.state).toBe('AUTHORIZED')
  })

  it('of a client that hangs up is carried out all the same', async () => {
    const idempotencyKey = randomUUID()
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const body = JSON.stringify({
      query: 'mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { __typename } }',
      variables: {
        input: { idempotencyKey, orderId: randomUUID(), customerId: '1', amountCents: 100, card: TEST_CARD },
      },
    })
    const socket = openSocket(port, '127.0.0.1')
    socket.write(
      `POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    await gate.arrived
    socket.destroy()
    await once(socket, 'close')
    gate.open()
    const again = await client(`${url}/graphql`).query(
      'mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { ... on PaymentSuccess { payment { state } } } }',
      (JSON.parse(body) as { variables: Record<string, unknown> }).variables,
    )
    expect(again).toEqual({ authorizePayment: { payment: { state: 'AUTHORIZED' } } })
    expect(await bank.transactions('AUTHORIZATION')).toHaveLength(2)
  })

  it('of more than 100 kB is refused', async () => {
    const response = await post(
      JSON.stringify({ query: '{ __typename }', variables: { a: 'x'.repeat(100_000) } }),
    )
    expect(response.status).toBe(413)
    expect(await response.json()).toEqual({
      errors: [{ message: 'Request body too large', extensions: { code: 'REQUEST_ENTITY_TOO_LARGE' } }],
    })
  })

  it('that does not say how long it is, is counted', async () => {
    const chunked = async (bytes: number) => {
      const body = new Blob([
        `{"query":"{ __typename }","operationName":null,"extensions":{"a":"${'x'.repeat(bytes)}"}}`,
      ])
      const response = await fetch(`${url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: body.stream(),
        duplex: 'half',
      } as RequestInit)
      return { status: response.status, answer: await response.json() }
    }
    expect(await chunked(1_000)).toEqual({ status: 200, answer: { data: { __typename: 'Query' } } })
    const { status, answer } = await chunked(100_000)
    expect(status).toBe(413)
    expect(answer).toMatchObject({ errors: [{ extensions: { code: 'REQUEST_ENTITY_TOO_LARGE' } }] })
  })

  it.each([
    ['a batch', '[{"query":"{ __typename }"}]', 400],
    ['no JSON', '{"query"', 400],
    ['no document', '{}', 400],
    ['a mistake', '{"query":"{ nothing }"}', 200],
  ])('with %s is refused, with a code', async (_, body, status) => {
    const response = await post(body, { accept: 'application/json' })
    expect(await response.json()).toMatchObject({
      errors: [
        {
          message: expect.stringMatching(/\w/) as string,
          extensions: { code: expect.any(String) as string },
        },
      ],
    })
    expect(response.status).toBe(status)
  })

  it('that changes something must be a POST', async () => {
    const query = encodeURIComponent(
      'mutation { voidPayment(input: { idempotencyKey: "1", paymentId: "1" }) { __typename } }',
    )
    const get = async (document: string) =>
      (await fetch(`${url}/graphql?query=${document}`, { headers: { 'graphql-require-preflight': '1' } }))
        .status
    expect([await get(query), await get('{__typename}')]).toEqual([405, 200])
  })

  it.each(['text/html', 'application/vnd.api+json', 'application/json;charset=latin1'])(
    'that asks for an answer in %s is refused before anything is done',
    async (accept) => {
      const response = await post(payFor(accept), { accept })
      expect(response.status).toBe(406)
      expect(await database.sql`select from payments where order_id = ${accept}`).toHaveLength(0)
    },
  )

  it.each(['*/*', 'text/html, application/*;q=0.8', 'Application/JSON', 'application/graphql-response+json'])(
    'that asks for an answer in %s is answered',
    async (accept) => {
      const response = await post(payFor(accept), { accept })
      expect([response.status, await response.text()]).toEqual([
        200,
        expect.stringContaining('AuthorizePaymentSuccess'),
      ])
    },
  )

  it('that follows payments and takes no stream is refused, and keeps no place', async () => {
    const document = 'subscription { paymentUpdated(by: { orderId: "o" }) { id } }'
    const response = await post(JSON.stringify({ query: document }), { accept: 'application/json' })
    expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'NOT_ACCEPTABLE' } }] })
    expect(gateway.live.followers.size).toBe(0)
  })

  it('from another site is told nothing of CORS', async () => {
    const response = await post('{"query":"{ __typename }"}', { origin: 'https://elsewhere.example' })
    expect(response.headers.get('access-control-allow-origin')).toBeNull()
  })

  it('for a host that is none is refused without a stack', async () => {
    const socket = openSocket(port, '127.0.0.1')
    socket.write('GET /graphql HTTP/1.1\r\nHost: [4111\r\n\r\n')
    let answer = ''
    for await (const chunk of socket) answer += String(chunk)
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(answer).not.toMatch(/ at |4111/)
  })

  it('to another path is 404', async () => {
    const root = await fetch(`${url}/`, { headers: { accept: 'text/html' } })
    expect([root.status, await root.text()]).toEqual([404, expect.stringContaining('at /graphql')])
    expect((await fetch(`${url}/nowhere`, { headers: { accept: 'text/html' } })).status).toBe(404)
  })
})

describe('health', () => {
  it('is asked of the database once for all who ask at a time', async () => {
    const { sql } = gateway
    let asked = 0
    gateway.sql = new Proxy(sql, {
      apply: (target, self, args: Parameters<typeof sql>) => {
        asked += 1
        return Reflect.apply(target, self, args)
      },
    })
    const answers = await Promise.all(
      Array.from({ length: 50 }, async () => await server.fetch('http://gateway/health/ready')),
    )
    gateway.sql = sql
    expect([new Set(answers.map(({ status }) => status)), asked]).toEqual([new Set([200]), 1])
  })

  it('live and ready are 200 while all is well', async () => {
    expect((await fetch(`${url}/health/live`)).status).toBe(200)
    expect((await fetch(`${url}/health/ready`)).status).toBe(200)
  })

  it('ready is 503 without the database, and while the gateway stops; live is 200', async () => {
    const nowhere = connect('postgres://127.0.0.1:1/none', { connectionsMax: 1, statementTimeoutMs: 100 })
    const noDatabase = createServer({ ...gateway, sql: nowhere }, serving())
    const draining = createServer(
      { ...gateway, inFlight: { ...gateway.inFlight, draining: true } },
      serving(),
    )
    for (const one of [noDatabase, draining]) {
      const ready = await one.fetch('http://gateway/health/ready')
      expect([ready.status, await ready.json()]).toMatchObject([
        503,
        {
          errors: [
            {
              message: expect.stringContaining('send no requests here') as string,
              extensions: { code: 'UNAVAILABLE' },
            },
          ],
        },
      ])
      expect((await one.fetch('http://gateway/health/live')).status).toBe(200)
    }
    await nowhere.end({ timeout: 1 })
  })
})

/** Of a tab: its first operation's. */
const nameOf = (query: string) => /^(?:query|mutation|subscription) (\w+)/m.exec(query)?.[1]

describe('GraphiQL', () => {
  it('is one page that loads nothing from elsewhere', async () => {
    const response = await fetch(`${url}/graphql`, { headers: { accept: 'text/html' } })
    const page = await response.text()
    expect(response.headers.get('content-security-policy')).toMatch(/^default-src 'self' data: blob: /)
    expect(page).toContain('<title>FicMart payments</title>')
    // No tag of the page itself names another place; its scripts are in it.
    const [head = ''] = page.split('<style>')
    expect(head).not.toMatch(/https?:/)
    expect(page).not.toMatch(/<(script|link|img|iframe)\b[^>]*\b(src|href)="(https?:)?\/\//)
    expect(page).not.toMatch(/\bimport\(["'`]https?:|importScripts\(["'`]https?:|@import ["'(]*https?:/)
    expect(page).toContain('try-authorize-')
  })

  it('has tabs that are valid, with new keys each time', () => {
    const [one = [], two = []] = [graphiqlOptions(), graphiqlOptions()].map(({ defaultTabs = [] }) =>
      defaultTabs.map(({ query }) => query ?? ''),
    )
    expect(one.map(nameOf)).toEqual([
      'Authorize',
      'Capture',
      'Order',
      'Customer',
      'Live',
      'Stuck',
      'RerunRecovery',
      'Reconciliation',
      'Webhooks',
    ])
    expect(one[0]).not.toBe(two[0])
    for (const query of one) {
      expect([nameOf(query), validate(schema, parse(query))]).toEqual([nameOf(query), []])
      expect(query).not.toContain('</')
    }
  })

  it('asks for the holds that run out within a day of when the page was made', () => {
    const made = new Date('2026-11-24T23:30:00.000Z')
    const queries = (graphiqlOptions('ops', made).defaultTabs ?? []).map(({ query }) => query ?? '')
    const expiring = queries.filter((query) => query.includes('query Expiring '))
    expect(expiring.join('\n')).toContain('expiringBefore: "2026-11-25T23:30:00.000Z"')
  })

  it('runs its first tab', async () => {
    const [first] = graphiqlOptions().defaultTabs ?? []
    const data = await client(`${url}/graphql`).query<Record<string, unknown>>(first?.query ?? '')
    expect(data).toMatchObject({ authorizePayment: { currentPayment: { state: 'AUTHORIZED' } } })
  })
})
