import { createHash, randomUUID } from 'node:crypto'
import { Kind, parse, print, validate } from 'graphql'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { openAccess } from '../../src/access/access.ts'
import { readConfig, StartRefused } from '../../src/config.ts'
import { graphiqlOptions } from '../../src/graphql/graphiql.ts'
import { schema } from '../../src/graphql/schema.ts'
import { createServer } from '../../src/graphql/server.ts'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { serving, startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { ASKERS, serverFor } from './askers.ts'

/** What a browser may do, for the checkout page, for operators in GraphiQL, and for a page of somebody else's. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const SHOP = 'https://shop.ficmart.example'
const URL_OF_API = 'http://gateway/graphql'

describe('a page of another origin', () => {
  const server = serverFor(gateway, ASKERS.customer, { corsOrigins: [SHOP, 'http://localhost:3000'] })
  const preflight = async (origin: string, headers = 'authorization,content-type') =>
    await server.fetch(URL_OF_API, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': headers },
    })
  const cors = ({ headers }: Response) =>
    Object.fromEntries([...headers].filter(([name]) => name.startsWith('access-control-')))

  it.each([SHOP, 'http://localhost:3000'])('on the list may ask: %s', async (origin) => {
    const allowed = { 'access-control-allow-origin': origin }
    const asked = await preflight(origin)
    expect(asked.status).toBe(204)
    expect(cors(asked)).toEqual({
      ...allowed,
      'access-control-allow-methods': 'POST',
      'access-control-allow-headers':
        'content-type, authorization, x-request-id, traceparent, tracestate, baggage, graphql-require-preflight',
      'access-control-expose-headers': 'retry-after, x-request-id',
      'access-control-max-age': '3600',
    })
    const response = await server.fetch(URL_OF_API, {
      method: 'POST',
      headers: { origin, 'content-type': 'application/json' },
      body: '{"query":"{ __typename }"}',
    })
    expect(response.status).toBe(200)
    expect(cors(response)).toMatchObject(allowed)
  })

  it.each([
    'https://shop.ficmart.example.evil.example',
    'http://shop.ficmart.example',
    'https://shop.ficmart.example:8443',
    'https://SHOP.ficmart.example',
    // Every sandboxed frame, and every file on a disk.
    'null',
    '*',
    '',
  ])('that is not on the list is told nothing: %j', async (origin) => {
    expect(cors(await preflight(origin))).toEqual({})
  })

  it('is on no list when there is none', async () => {
    const none = serverFor(gateway, ASKERS.customer)
    expect(cors(await none.fetch(URL_OF_API, { method: 'OPTIONS', headers: { origin: SHOP } }))).toEqual({})
  })

  it.each([
    'shop.ficmart.example',
    'https://shop.ficmart.example/',
    '*',
    'null',
    'https://*.ficmart.example/x',
  ])('is named as browsers name it: CORS_ORIGINS=%s does not start', (origins) => {
    expect(() => readConfig({ CORS_ORIGINS: `${SHOP},${origins}` })).toThrow(StartRefused)
  })
})

describe('what a page can make a browser send without asking us first', () => {
  const server = serverFor(gateway, ASKERS.dev)
  const idempotencyKey = randomUUID()
  const query = `mutation { voidPayment(input: { idempotencyKey: "${idempotencyKey}", paymentId: "pay_${randomUUID()}" }) { __typename } }`
  const json = JSON.stringify({ query })
  it.each<[string, RequestInit, string]>([
    ['a text', { method: 'POST', headers: { 'content-type': 'text/plain' }, body: json }, ''],
    [
      'a text that pretends',
      { method: 'POST', headers: { 'content-type': 'text/plain; application/json' }, body: json },
      '',
    ],
    [
      'a form',
      {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: `query=${encodeURIComponent(query)}`,
      },
      '',
    ],
    ['a form with files', { method: 'POST', body: Object.assign(new FormData(), {}) }, ''],
    ['something without a type', { method: 'POST', body: new Blob([json]) }, ''],
    ['nothing', { method: 'POST' }, ''],
    ['a link', { method: 'GET' }, `?query=${encodeURIComponent('{ payments { edges { cursor } } }')}`],
    ['a link to a mutation', { method: 'GET' }, `?query=${encodeURIComponent(query)}`],
  ])('%s is not read', async (_, init, search) => {
    const response = await server.fetch(`${URL_OF_API}${search}`, init)
    expect(response.status).toBe(403)
    expect(await response.json()).toMatchObject({
      errors: [
        {
          message: expect.stringContaining('Send a POST with the content type application/json') as string,
          extensions: { code: 'CSRF_PREVENTED' },
        },
      ],
    })
    expect(await database.sql`select 1 from operations where idempotency_key = ${idempotencyKey}`).toEqual([])
  })

  it('but with a header that makes it ask, it is', async () => {
    const response = await server.fetch(`${URL_OF_API}?query={__typename}`, {
      headers: { 'graphql-require-preflight': '1' },
    })
    expect(await response.json()).toEqual({ data: { __typename: 'Query' } })
  })
})

describe('GraphiQL', async () => {
  const hash = (key: string) => createHash('sha256').update(key).digest('hex')
  const { whoAsks, close } = await openAccess(
    {
      production: true,
      host: '0.0.0.0',
      apiKeys: [`shop:service:${hash('shop-key')}`, `desk:ops:${hash('desk-key')}`],
      apiKeysFile: '/nowhere/keys',
      openToNetwork: false,
      customerTokens: null,
    },
    pino({ level: 'silent' }),
  )
  whenFileEnds(close)
  const server = createServer(gateway, { ...serving(), whoAsks })
  const basic = (key: string) => `Basic ${Buffer.from(`me:${key}`).toString('base64')}`
  const open = async (authorization?: string) =>
    await server.fetch(URL_OF_API, {
      headers: { accept: 'text/html,*/*;q=0.8', ...(authorization !== undefined && { authorization }) },
    })

  it.each([undefined, basic('wrong'), basic('shop-key'), 'Bearer shop-key', 'Bearer wrong'])(
    'asks for a key of an operator: %j',
    async (authorization) => {
      const response = await open(authorization)
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toMatch(
        /^Basic realm="FicMart payment gateway, operators"/,
      )
      expect(await response.text()).toBe(
        'GraphiQL is for operators: any name, and their API key as the password.\n',
      )
    },
  )

  it('opens for an operator, and what the page then sends is answered', async () => {
    const page = await open(basic('desk-key'))
    expect([page.status, page.headers.get('cache-control')]).toEqual([200, 'no-store'])
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'self'/)
    const text = await page.text()
    expect(text).toContain('<title>FicMart payments</title>')
    expect(text).not.toContain('desk-key')
    // By GET the variables would stand in the address.
    expect(text.includes('"method":"POST"')).toBe(true)
    const send = async (headers: Record<string, string>) =>
      await server.fetch(URL_OF_API, {
        method: 'POST',
        headers: { authorization: basic('desk-key'), ...headers },
        body: '{"query":"{ __schema { queryType { name } } }"}',
      })
    expect(await (await send({ 'content-type': 'application/json' })).json()).toEqual({
      data: { __schema: { queryType: { name: 'Query' } } },
    })
    // A browser would send the key with what another page makes it send, too.
    expect((await send({ 'content-type': 'text/plain' })).status).toBe(403)
  })

  const run = async (query: string, operationName: string) => {
    const response = await serverFor(gateway, ASKERS.ops).fetch(URL_OF_API, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream, application/json' },
      body: JSON.stringify({ query, operationName }),
    })
    if (response.body === null || response.headers.get('content-type') !== 'text/event-stream')
      return await response.json()
    // What is live has nothing to tell yet, but it has begun.
    const reader = response.body.getReader()
    const { value } = await reader.read()
    await reader.cancel()
    return { began: String(value) }
  }
  const tabs = (graphiqlOptions('ops').defaultTabs ?? []).map(({ query }) => parse(query ?? ''))
  const operations = tabs.flatMap((document) =>
    document.definitions
      .filter((definition) => definition.kind === Kind.OPERATION_DEFINITION)
      .map(({ operation, name }) => ({ query: print(document), operation, name: name?.value ?? '' })),
  )
  const named = (wanted: (operation: string) => boolean) =>
    operations.filter(({ operation }) => wanted(operation))

  it('gives operators no tab that takes a payment', () => {
    expect(tabs).toHaveLength(7)
    expect(named((operation) => operation === 'mutation').map(({ name }) => name)).toEqual([
      'RerunRecovery',
      'EnterBankReference',
      'CloseReview',
      'StartReconciliation',
      'ResendWebhook',
    ])
  })

  it.each(named((operation) => operation !== 'mutation'))(
    'has a tab that operators may run as it is: $name',
    async ({ query, name }) => {
      expect(validate(schema, parse(query))).toEqual([])
      expect(await run(query, name)).not.toHaveProperty('errors')
    },
  )

  it.each(
    named((operation) => operation === 'mutation').filter(({ name }) => name !== 'StartReconciliation'),
  )(
    'has a tab that does nothing until it is filled in, and only when it is chosen: $name',
    async ({ query, name }) => {
      const { data } = (await run(query, name)) as { data: Record<string, unknown> }
      expect(Object.values(data)).toMatchObject([
        {
          __typename: 'InvalidInput',
          fields: expect.arrayContaining([expect.objectContaining({ path: 'input.reason' })]) as unknown,
        },
      ])
      const definitions = parse(query).definitions.filter(({ kind }) => kind === Kind.OPERATION_DEFINITION)
      expect(definitions.length).toBeGreaterThan(1)
    },
  )
})
