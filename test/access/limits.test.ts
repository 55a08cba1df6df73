import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { buildClientSchema, buildSchema, findBreakingChanges, getIntrospectionQuery, parse } from 'graphql'
import type { GraphQLSchema, IntrospectionQuery } from 'graphql'
import { describe, expect, it } from 'vitest'
import { tooMuch } from '../../src/graphql/document.ts'
import { graphiqlOptions } from '../../src/graphql/graphiql.ts'
import { schema } from '../../src/graphql/schema.ts'
import { startTestBank } from '../support/bank.ts'
import { TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { ASKER_NAMES, ASKERS, CHECKOUT, clientFor, serverFor } from './askers.ts'

/** Each limit as somebody would attack it. What is refused has asked nothing of the database or the bank. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
/** Whoever says a word to this database has gone too far. */
const guarded = {
  ...gateway,
  sql: new Proxy(gateway.sql, {
    apply: () => {
      throw new Error('a refused document reached the database')
    },
  }),
}
const many = (count: number, text: (at: number) => string) =>
  Array.from({ length: count }, (_, at) => text(at)).join(' ')
const CALLS = 'bankCalls { id attempt endpoint durationMs conclusion }'
const changesIn = (one: GraphQLSchema, other: GraphQLSchema) => [
  ...findBreakingChanges(one, other),
  ...findBreakingChanges(other, one),
]
const LOOKUP = 'paymentsByOrder(orderId: "1")'

describe('a document', () => {
  const cases: [string, string, RegExp][] = [
    ['has too many tokens', `{ ${many(1_000, () => '__typename')} }`, /more than 1000 tokens/],
    [
      'is too deep',
      `{ ${LOOKUP} { ${'operationInFlight { payment { '.repeat(6)} id ${'} }'.repeat(6)} } }`,
      /depth is 14, and may be 12/,
    ],
    [
      'is too deep by fragments',
      `{ ${LOOKUP} { ...f0 } } ${many(6, (at) => `fragment f${at} on Payment { operationInFlight { payment { ${at < 5 ? `...f${at + 1}` : 'id'} } } }`)}`,
      /depth is 14, and may be 12/,
    ],
    [
      'has too many fields',
      `{ ${LOOKUP} { ${many(401, () => 'id')} } }`,
      /number of fields is 402, and may be 400/,
    ],
    [
      'asks one thing under many names',
      `query ($o: String!) { ${many(90, (at) => `a${at}: paymentsByOrder(orderId: $o) { id }`)} }`,
      /more than 1000 tokens/,
    ],
    [
      'asks one field under many names',
      `{ ${LOOKUP} { ...f ...g } } fragment f on Payment { ${many(200, (at) => `a${at}: id`)} } fragment g on Payment { ...f }`,
      /number of fields is 401, and may be 400/,
    ],
    [
      'multiplies by fragments',
      `{ ${LOOKUP} { ...f0 } } ${many(30, (at) => `fragment f${at} on Payment { id ${at < 29 ? `...f${at + 1} ...f${at + 1}` : ''} }`)}`,
      /number of fields is 1073741824, and may be 400/,
    ],
    [
      'asks for pages under many names',
      `{ ${many(30, (at) => `a${at}: payments { edges { node { id } } }`)} }`,
      /cost is \d+, and may be 30000/,
    ],
    [
      'asks for pages inside of a long one',
      `{ payments(first: 100) { edges { node { operations { ${CALLS} payment { operations { ${CALLS} } } } } } } }`,
      /cost is \d+, and may be 30000/,
    ],
    [
      'asks for many payments',
      `mutation { ${many(31, (at) => `a${at}: voidPayment(input: { idempotencyKey: "${at}", paymentId: "x" }) { __typename }`)} }`.slice(
        0,
        100_000,
      ),
      /cost is 31\d{3}, and may be 30000/,
    ],
  ]

  it.each(cases)('that %s is refused', async (_, document, reason) => {
    const started = performance.now()
    const { data, errors = [] } = await clientFor(guarded, ASKERS.service).post(document)
    expect(data).toBeUndefined()
    expect(errors.map(({ message }) => message).join()).toMatch(reason)
    expect(errors[0]?.extensions).toEqual({ code: 'LIMIT_EXCEEDED' })
    // However it is made, saying no is quick.
    expect(performance.now() - started).toBeLessThan(2_000)
  })

  it('is priced by the length of its pages, in variables and defaults too', async () => {
    const by = clientFor(guarded, ASKERS.service)
    const pages = (first: string) =>
      many(
        18,
        (at) =>
          `a${at}: payments(first: ${first}) { edges { node { id orderId state version customerId } } }`,
      )
    const refused = [{ extensions: { code: 'LIMIT_EXCEEDED' } }]
    for (const [document, variables] of [
      [`{ ${pages('100')} }`, {}],
      [`query ($first: Int) { ${pages('$first')} }`, { first: 100 }],
      [`query ($first: Int = 100) { ${pages('$first')} }`, {}],
    ] as const) {
      expect((await by.post(document, variables)).errors).toMatchObject(refused)
    }
    const free = clientFor(gateway, ASKERS.service)
    const asked = `query ($first: Int) { ${pages('$first')} }`
    expect((await free.post(asked, { first: 10 })).errors).toBeUndefined()
    expect((await free.post(asked, { first: 100 })).errors).toMatchObject(refused)
  })

  it('is priced by the operation that is run, not by the first', async () => {
    const query = `query cheap { __typename } query dear { ${many(30, (at) => `a${at}: payments { edges { node { id } } }`)} }`
    const by = clientFor(guarded, ASKERS.service)
    const { errors } = await by.post(query, {}, { body: JSON.stringify({ query, operationName: 'dear' }) })
    expect(errors).toMatchObject([{ extensions: { code: 'LIMIT_EXCEEDED' } }])
    const cheap = await by.post(query, {}, { body: JSON.stringify({ query, operationName: 'cheap' }) })
    expect(cheap).toEqual({ data: { __typename: 'Query' } })
  })

  it('with a page that is none cannot buy others with it', async () => {
    const document = `{ bad: payments(first: 0) { edges { cursor } } ${many(30, (at) => `a${at}: payments { edges { node { id } } }`)} }`
    const { data, errors } = await clientFor(guarded, ASKERS.service).post(document)
    expect(data).toBeUndefined()
    expect(errors).toMatchObject([{ extensions: { code: 'LIMIT_EXCEEDED' } }])
  })

  it('of a customer is a small one', async () => {
    const history = (first: number) =>
      `{ customerHistory(customerId: "customer-1", first: ${first}) { edges { node { id orderId customerId state version amount { cents } card { brand last4 } createdAt authorizedAt capturedAt } } } }`
    const by = clientFor(gateway, ASKERS.customer)
    expect((await by.post(history(100))).errors).toBeUndefined()
    const three = `{ ${many(3, (at) => `a${at}: customerHistory(customerId: "customer-1", first: 1) { edges { cursor } }`)} }`
    expect((await by.post(three)).errors).toMatchObject([
      { message: expect.stringMatching(/cost is 3\d{3}, and may be 3000/) },
    ])
    expect((await clientFor(gateway, ASKERS.service).post(three)).errors).toBeUndefined()
  })

  it('as people write them is none of that', async () => {
    for (const tab of graphiqlOptions().defaultTabs ?? []) {
      const query = tab.query ?? ''
      if (/^subscription/m.test(query)) {
        // Its stream would have no end.
        const request = { operationName: null, variables: {}, role: 'dev' } as const
        expect([query, tooMuch(schema, parse(query), request)]).toEqual([query, []])
        continue
      }
      const { errors = [] } = await clientFor(gateway, ASKERS.dev).post(query)
      expect([query, errors.filter(({ extensions }) => extensions?.['code'] === 'LIMIT_EXCEEDED')]).toEqual([
        query,
        [],
      ])
    }
    const introspection = getIntrospectionQuery({
      inputValueDeprecation: true,
      schemaDescription: true,
      oneOf: true,
    })
    expect((await clientFor(gateway, ASKERS.dev).post(introspection)).errors).toBeUndefined()
  })
})

describe('a request', () => {
  it('of several at one time is refused', async () => {
    const response = await serverFor(guarded, ASKERS.service).fetch('http://gateway/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: `[${Array(50).fill('{"query":"{ payments { pageInfo { endCursor } } }"}').join(',')}]`,
    })
    expect(response.status).toBe(400)
  })

  it('of more than 100 kB is refused, whatever it says of its length', async () => {
    const server = serverFor(guarded, ASKERS.service)
    const body = JSON.stringify({ query: '{ __typename }', variables: { a: 'x'.repeat(100_000) } })
    const chunks = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(body))
        controller.close()
      },
    })
    for (const sent of [body, chunks]) {
      const init = {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: sent,
        duplex: 'half',
      }
      const response = await server.fetch('http://gateway/graphql', init)
      expect(response.status).toBe(413)
    }
  })

  it('too many are told when to come back; another client is not', async () => {
    const rateLimits = { clientPerSecond: 5, customerPerMinute: 2 }
    let asker: keyof typeof ASKERS = 'service'
    const server = serverFor(gateway, ASKERS.dev, { rateLimits, whoAsks: async () => ASKERS[asker] })
    const ask = async (as: typeof asker) => {
      asker = as
      return await server.fetch('http://gateway/graphql', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"query":"{ __typename }"}',
      })
    }
    const statuses = async (as: typeof asker, count: number) => {
      const all: number[] = []
      for (let at = 0; at < count; at += 1) all.push((await ask(as)).status)
      return all
    }
    expect(await statuses('customer', 3)).toEqual([200, 200, 429])
    expect(await statuses('stranger', 3)).toEqual([200, 200, 429])
    expect(await statuses('dev', 20)).toEqual(Array(20).fill(200))
    // Within one second of the first: five, and not one more.
    expect((await statuses('service', 40)).filter((status) => status === 429).length).toBeGreaterThan(0)

    const refused = await ask('customer')
    const { errors } = (await refused.json()) as {
      errors: { extensions: { code: string; retryAfterMs: number } }[]
    }
    expect(errors).toMatchObject([
      {
        message: expect.stringContaining('Nothing was done') as string,
        extensions: { code: 'RATE_LIMITED' },
      },
    ])
    const retryAfterMs = errors[0]?.extensions.retryAfterMs ?? 0
    expect(retryAfterMs).toBeGreaterThan(0)
    expect(retryAfterMs).toBeLessThanOrEqual(60_000)
    expect(Number(refused.headers.get('retry-after'))).toBe(Math.ceil(retryAfterMs / 1000))
  })

  it('that is refused for its rate has taken no payment', async () => {
    const rateLimits = { clientPerSecond: 1_000, customerPerMinute: 1 }
    const by = clientFor(gateway, ASKERS.customer, { rateLimits })
    await by.post('{ __typename }')
    const input = { idempotencyKey: randomUUID(), card: TEST_CARD, ...CHECKOUT }
    const { errors } = await by.post(
      'mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { __typename } }',
      { input },
    )
    expect(errors).toMatchObject([{ extensions: { code: 'RATE_LIMITED' } }])
    expect(
      await database.sql`select 1 from operations where idempotency_key = ${input.idempotencyKey}`,
    ).toEqual([])
  })
})

describe('the schema', () => {
  const INTROSPECTIONS = [
    '{ __schema { types { name } } }',
    '{ __type(name: "Payment") { name } }',
    '{ ...f } fragment f on Query { __type(name: "Payment") { name } }',
  ]
  it.each(ASKER_NAMES)('is told to whoever has a key, and to no customer: %s', async (asker) => {
    const may = !['customer', 'stranger'].includes(asker)
    for (const document of INTROSPECTIONS) {
      const { errors } = await clientFor(gateway, ASKERS[asker]).post(document)
      if (may) expect(errors).toBeUndefined()
      else expect(errors).toMatchObject([{ extensions: { code: 'FORBIDDEN' } }])
    }
    const { errors } = await clientFor(gateway, ASKERS[asker]).post('{ paymentByOrder { id } }')
    expect(errors?.[0]?.message).toBe(
      may
        ? 'Cannot query field "paymentByOrder" on type "Query". Did you mean "paymentsByOrder"?'
        : 'Cannot query field "…" on type "Query".',
    )
  })

  const get = (asker: keyof typeof ASKERS, init: RequestInit = {}) =>
    serverFor(guarded, ASKERS[asker]).fetch('http://gateway/schema.graphql', init)

  it.each(ASKER_NAMES)('is served as a text to whoever has a key, and to no customer: %s', async (asker) => {
    const response = await get(asker)
    const text = await response.text()
    if (['customer', 'stranger'].includes(asker)) {
      const message = expect.stringMatching(/^The schema is for API clients/)
      expect([response.status, JSON.parse(text)]).toEqual([
        403,
        { errors: [{ message, extensions: { code: 'FORBIDDEN' } }] },
      ])
      return
    }
    expect([response.status, text]).toEqual([200, await readFile('schema.graphql', 'utf8')])
    const introspected = await clientFor(gateway, ASKERS[asker]).query<IntrospectionQuery>(
      getIntrospectionQuery(),
    )
    expect(changesIn(buildSchema(text), buildClientSchema(introspected))).toEqual([])
  })

  it('is served to nobody who is not known', async () => {
    const refusals = { UNAUTHENTICATED: 401, UNAVAILABLE: 503 } as const
    for (const refused of ['UNAUTHENTICATED', 'UNAVAILABLE'] as const) {
      const server = serverFor(guarded, ASKERS.dev, {
        whoAsks: async () => ({ refused, message: 'No key.' }),
      })
      const response = await server.fetch('http://gateway/schema.graphql')
      expect([response.status, await response.json()]).toEqual([
        refusals[refused],
        { errors: [{ message: 'No key.', extensions: { code: refused } }] },
      ])
    }
  })

  it('is not sent again to whoever has it', async () => {
    const first = await get('service')
    const etag = first.headers.get('etag') ?? ''
    expect(first.headers.get('cache-control')).toBe('private, no-cache')
    expect(first.headers.get('vary')).toBe('Authorization, Origin')
    for (const tags of [etag, `"other", W/${etag}`, '*']) {
      const again = await get('service', { headers: { 'if-none-match': tags } })
      expect([tags, again.status, await again.text(), again.headers.get('etag')]).toEqual([
        tags,
        304,
        '',
        etag,
      ])
    }
    const changed = await get('service', { headers: { 'if-none-match': '"other"' } })
    expect([changed.status, await changed.text()]).toEqual([200, await first.text()])
    const head = await get('service', { method: 'HEAD' })
    expect([head.status, await head.text(), head.headers.get('etag')]).toEqual([200, '', etag])
    const post = await get('service', { method: 'POST' })
    expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
    expect(await post.json()).toMatchObject({ errors: [{ extensions: { code: 'BAD_REQUEST' } }] })
  })
})
