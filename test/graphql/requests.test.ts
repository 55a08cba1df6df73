import { randomUUID } from 'node:crypto'
import {
  getNamedType,
  isInputObjectType,
  isIntrospectionType,
  isNonNullType,
  isObjectType,
  isRequiredArgument,
  isRequiredInputField,
} from 'graphql'
import type { GraphQLArgument, GraphQLField, GraphQLInputField } from 'graphql'
import { describe, expect, it } from 'vitest'
import { ERROR_CODES } from '../../src/graphql/errors.ts'
import { schema } from '../../src/graphql/schema.ts'
import { leastUuidAt } from '../../src/payment/ids.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { ASKERS, CHECKOUT, clientFor, serverFor } from '../access/askers.ts'
import type { Asker } from '../access/askers.ts'

/** Requests as client libraries send them, and answers as they read them: status, `data`, path and code. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway, logged } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const dev = clientFor(gateway, ASKERS.dev)
const { id: paymentId, authorizationId } = await authorized(clientFor(gateway, ASKERS.service), CHECKOUT)

const ACCEPTS = ['application/graphql-response+json', 'application/json', 'text/event-stream']
type Answer = {
  data?: Record<string, unknown> | null
  errors?: { message: string; path?: (string | number)[]; extensions: Record<string, unknown> }[]
}

async function send(body: object, { accept = ACCEPTS[0], as = 'dev' }: { accept?: string; as?: Asker } = {}) {
  const response = await serverFor(gateway, ASKERS[as]).fetch('http://gateway/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: accept ?? '' },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  const json = /^data: (\{.*\})$/m.exec(text)?.[1] ?? text
  return { status: response.status, ...(JSON.parse(json) as Answer) }
}

/** What is given, by the name of the argument or input field. */
const VALID: Record<string, unknown> = {
  ...CHECKOUT,
  // Of none.
  paymentId: `pay_${leastUuidAt(0)}`,
  idempotencyKey: 'a-key',
  id: paymentId,
  ids: [paymentId],
  reconciliationId: `rec_${leastUuidAt(0)}`,
  webhookId: `evt_${leastUuidAt(0)}_1`,
  bankReference: authorizationId,
  reason: 'some reason',
  outcome: 'NO_CHANGE',
  ...TEST_CARD,
}

type Given = GraphQLArgument | GraphQLInputField
/** All that must be given, and `also`. */
function valuesFor(givens: readonly Given[], field: string, also: Record<string, unknown> = {}): object {
  const needed = givens.filter((given) => isRequiredArgument(given) || isRequiredInputField(given))
  const values = needed.map(({ name, type }) => {
    if (field === 'reconciliation') return [name, VALID['reconciliationId']]
    const named = getNamedType(type)
    if (!isInputObjectType(named)) return [name, VALID[name]]
    return [
      name,
      named.isOneOf ? { paymentId, id: paymentId } : valuesFor(Object.values(named.getFields()), field),
    ]
  })
  return { ...Object.fromEntries(values), ...also }
}

/** Each argument, and each field of one that is an input, as a path. */
function placesIn(givens: readonly Given[], above: string[] = []): { path: string[]; given: Given }[] {
  return givens.flatMap((given) => {
    const named = getNamedType(given.type)
    const path = [...above, given.name]
    const inner = isInputObjectType(named) ? placesIn(Object.values(named.getFields()), path) : []
    return [{ path, given }, ...inner]
  })
}

/** `value` at a path of the arguments; what stands beside it is valid. */
function withValueAt(field: GraphQLField<unknown, unknown>, path: readonly string[], value: unknown) {
  const build = (
    givens: readonly Given[],
    [name = '', ...rest]: readonly string[],
  ): Record<string, unknown> => {
    const given = givens.find((one) => one.name === name)
    const named = given && getNamedType(given.type)
    if (rest.length === 0 || !isInputObjectType(named))
      return { ...valuesFor(givens, field.name), [name]: value }
    const inner = build(Object.values(named.getFields()), rest)
    const others = named.isOneOf ? { [rest[0] ?? '']: inner[rest[0] ?? ''] } : inner
    return { ...valuesFor(givens, field.name), [name]: others }
  }
  return build(field.args, path)
}

function request(kind: string, field: GraphQLField<unknown, unknown>, variables: Record<string, unknown>) {
  const given = field.args.filter(({ name }) => variables[name] !== undefined)
  const declared = given.map(({ name, type }) => `$${name}: ${type.toString()}`).join(', ')
  const passed = given.map(({ name }) => `${name}: $${name}`).join(', ')
  const body = /Connection!?$/.test(field.type.toString()) ? '{ edges { cursor } }' : '{ __typename }'
  const within = (text: string) => (text === '' ? '' : `(${text})`)
  const query = `${kind} ${within(declared)} { it: ${field.name}${within(passed)} ${body} beside: __typename }`
  return { query, variables }
}

const fieldsOf = (type = schema.getQueryType()) => Object.values(type?.getFields() ?? {})
const BAD: Record<string, unknown> = { Int: 0, String: '', ID: 'x', Cents: 0 }

describe('an argument that is not valid', () => {
  const cases = fieldsOf().flatMap((field) =>
    placesIn(field.args)
      .filter(({ given }) => getNamedType(given.type).name in BAD)
      .map(({ path, given }) => ({ field, path, bad: BAD[getNamedType(given.type).name] })),
  )

  it.each(cases.map((one) => [`${one.field.name}(${one.path.join('.')})`, one] as const))(
    '%s is an error of its field, with a path and `data`',
    async (_, { field, path, bad }) => {
      const asked = request('query', field, withValueAt(field, path, bad))
      for (const accept of ACCEPTS) {
        const { status, data, errors } = await send(asked, { accept })
        expect([asked, errors]).toMatchObject([
          asked,
          [{ path: ['it'], extensions: { code: 'INVALID_INPUT' } }],
        ])
        const fields = errors?.flatMap(({ extensions }) => extensions['fields'] as { path: string }[])
        // Of a list the first.
        expect(fields?.map((one) => one.path.replace(/\.0$/, ''))).toContain(path.join('.'))
        // Where it may not be null, the null goes up to `data`.
        expect(data).toEqual(isNonNullType(field.type) ? null : { it: null, beside: 'Query' })
        expect(status).toBe(200)
      }
    },
  )

  it('leaves the field beside it its answer', async () => {
    const by = (id: string) => `payment(by: { id: "${id}" }) { id }`
    expect(await send({ query: `{ bad: ${by('x')} good: ${by(paymentId)} }` })).toMatchObject({
      data: { bad: null, good: { id: paymentId } },
      errors: [{ path: ['bad'] }],
    })
  })

  it('of a page that lies deeper leaves what stands above it', async () => {
    const deeper = Object.values(schema.getTypeMap())
      .filter((type) => isObjectType(type) && !isIntrospectionType(type))
      .filter((type) => !/^(Query|Mutation|Subscription)$/.test(type.name))
      .flatMap((type) => (isObjectType(type) ? fieldsOf(type).filter(({ args }) => args.length > 0) : []))
    expect(deeper.map(({ name }) => name)).toEqual(['discrepancies'])
    const begun = await dev.query<{ it: { reconciliation: { id: string } } }>(
      'mutation { it: startReconciliation(input: {}) { ... on ReconciliationAccepted { reconciliation { id } } } }',
    )
    const query = `query ($id: ID!) {
      a: reconciliation(id: $id) { id discrepancies(first: 0) { edges { cursor } } }
      b: reconciliation(id: $id) { id discrepancies(first: 1) { edges { cursor } } }
    }`
    const { id } = begun.it.reconciliation
    expect(await send({ query, variables: { id } })).toMatchObject({
      status: 200,
      data: { a: null, b: { id, discrepancies: { edges: [] } } },
      errors: [{ path: ['a', 'discrepancies'], extensions: { code: 'INVALID_INPUT' } }],
    })
  })

  it.each(fieldsOf(schema.getMutationType()).map((field) => [field.name, field] as const))(
    'of %s is a member of its result',
    async (_, field) => {
      for (const { path, given } of placesIn(field.args)) {
        const bad = BAD[getNamedType(given.type).name]
        if (bad === undefined) continue
        const { status, data, errors } = await send(request('mutation', field, withValueAt(field, path, bad)))
        expect([path, status, errors, data]).toEqual([
          path,
          200,
          undefined,
          { it: { __typename: 'InvalidInput' }, beside: 'Mutation' },
        ])
      }
    },
  )

  it.each(ACCEPTS)('of a subscription is a refusal, for one that accepts %s', async (accept) => {
    const query = 'subscription { paymentUpdated(by: { orderId: "" }) { id } }'
    const { status, data, errors } = await send({ query }, { accept, as: 'customer' })
    // Told in a stream it is over, and asked no more (test/http/clients.test.ts).
    const expected = accept === 'text/event-stream' ? 200 : 400
    expect([status, data, errors?.[0]?.extensions['code']]).toEqual([expected, undefined, 'INVALID_INPUT'])
  })
})

describe('a subscription that may be skipped', () => {
  const FIELD = 'paymentUpdated(by: { orderId: "order-1" })'
  const cases: [string, object?][] = [
    [`subscription { ${FIELD} @skip(if: true) { id } }`],
    [`subscription { ${FIELD} @include(if: false) { id } }`],
    [`subscription { ${FIELD} @include(if: true) { id } }`],
    [`subscription ($s: Boolean!) { ${FIELD} @skip(if: $s) { id } }`, { s: true }],
    [`subscription ($s: Boolean!) { ${FIELD} @skip(if: $s) { id } }`, { s: false }],
    [`subscription ($s: Boolean! = false) { ${FIELD} @include(if: $s) { id } }`],
    [`subscription Named { ... @skip(if: true) { ${FIELD} { id } } }`],
    [`subscription { ...f @include(if: false) } fragment f on Subscription { ${FIELD} { id } }`],
    [
      `subscription { ...f } fragment f on Subscription { ...g } fragment g on Subscription { ${FIELD} @skip(if: true) { id } }`,
    ],
    [`query Q { __typename } subscription S { ${FIELD} @skip(if: true) { id } }`],
  ]
  it.each(cases)('%s is refused, and wakes nobody', async (query, variables) => {
    const operationName = query.startsWith('query Q') ? 'S' : undefined
    for (const accept of ACCEPTS) {
      const { status, data, errors } = await send(
        { query, variables, operationName },
        { accept, as: 'customer' },
      )
      expect([status, data, errors]).toMatchObject([
        400,
        undefined,
        [
          {
            message: expect.stringMatching(
              /Subscription must not use `@skip` or `@include` directives in the top level selection\.$/,
            ) as string,
            extensions: { code: 'GRAPHQL_VALIDATION_FAILED' },
          },
        ],
      ])
    }
    expect(logged.filter((line) => /"level":[456]0/.test(line))).toEqual([])
  })

  it('below its field may skip what it likes', async () => {
    const query = `subscription { ${FIELD} { id orderId @skip(if: true) } }`
    const { errors } = await send({ query }, { accept: 'application/json' })
    expect(errors).toMatchObject([{ extensions: { code: 'NOT_ACCEPTABLE' } }])
  })
})

describe('a body', () => {
  it.each(ACCEPTS)('with an empty operationName has none, for one that accepts %s', async (accept) => {
    const query = 'query Named { __typename }'
    const answer = await send({ query, operationName: '' }, { accept })
    expect(answer).toEqual({ status: 200, data: { __typename: 'Query' } })
  })

  it.each([[{ variables: {} }], [{}], [{ query: null }], [{ operationName: 'a' }], [{ extensions: {} }]])(
    '%j has no document: 400, whatever is accepted',
    async (body) => {
      for (const accept of ACCEPTS) {
        const { status, errors } = await send(body, { accept })
        expect([status, errors?.[0]?.extensions['code']]).toEqual([400, 'BAD_REQUEST'])
      }
    },
  )

  it('that names no operation of several says so, by a code that is documented', async () => {
    const query = 'query A { __typename } query B { __typename }'
    for (const operationName of [undefined, '', 'C']) {
      const { status, errors } = await send({ query, operationName })
      expect([status, errors?.[0]?.extensions['code']]).toEqual([400, 'OPERATION_RESOLUTION_FAILURE'])
    }
    expect(ERROR_CODES).toContain('OPERATION_RESOLUTION_FAILURE')
  })
})

describe('a name that does not exist', () => {
  const cases: [string, object][] = [
    [
      'Unexpected parameter "documentId" in the request body.',
      { query: '{ __typename }', documentId: 'secret' },
    ],
    [
      'Cannot query field "stat" on type "Payment". Did you mean "state"?',
      { query: `{ payment(by: { id: "1" }) { stat } }` },
    ],
    [
      'Unknown argument "frist" on field "Query.payments". Did you mean "first"?',
      { query: '{ payments(frist: 1) { __typename } }' },
    ],
    [
      'Unknown type "Paymnt". Did you mean "Payment" or "PaymentBy"?',
      { query: 'query ($a: Paymnt) { __typename }' },
    ],
    ['Unknown fragment "view".', { query: '{ ...view }' }],
    ['Unknown directive "@live".', { query: '{ __typename @live }' }],
    [
      'Field "nmber" is not defined by type "CardInput". Did you mean "number"?',
      { query: 'mutation { authorizePayment(input: { card: { nmber: "secret" } }) { __typename } }' },
    ],
    [
      '$by: Field "idd" is not defined by type "PaymentBy". Did you mean "id"?',
      { query: 'query ($by: PaymentBy!) { payment(by: $by) { id } }', variables: { by: { idd: 'secret' } } },
    ],
  ]
  it.each(cases)('is told to whoever may see the schema: %s', async (message, body) => {
    for (const as of ['service', 'ops', 'dev'] as const) {
      const { errors = [] } = await send(body, { as })
      expect(errors.map((error) => error.message).join()).toContain(message)
      expect(JSON.stringify(errors)).not.toContain('secret')
    }
    const { errors } = await send(body, { as: 'customer' })
    expect(JSON.stringify(errors)).not.toMatch(
      /documentId|"stat|frist|Paymnt|view|@live|nmber|idd|Did you mean|secret/,
    )
  })

  it.each<[string, object]>([
    [
      'Field "state" must not have a selection since type "PaymentState!" has no subfields.',
      { query: `{ payment(by: { id: "1" }) { state { a } } }` },
    ],
    [
      'Cannot spread fragment "F" within itself.',
      { query: '{ payment(by: { id: "1" }) { ...F } } fragment F on Payment { id ...F }' },
    ],
    [
      'Anonymous Subscription must select only one top level field.',
      {
        query:
          'subscription { a: paymentUpdated(by: { orderId: "o" }) { id } b: paymentUpdated(by: { orderId: "o" }) { id } }',
      },
    ],
    [
      'Expected "variables" param to be empty or an object, but given array.',
      { query: '{ __typename }', variables: [] },
    ],
    [
      'Expected "extensions" param to be empty or an object, but given string.',
      { query: '{ __typename }', extensions: 'secret' },
    ],
  ])('a sentence is told with all of its words: %s', async (message, body) => {
    const { errors = [] } = await send(body)
    expect(errors.map((error) => error.message).join()).toContain(message)
    expect(JSON.stringify(errors)).not.toContain('secret')
  })

  it('is told without what could be of a card', async () => {
    for (const body of [
      { query: '{ n4111111111111111 }' },
      { query: '{ cvv123 }' },
      { query: '{ __typename }', n4111111111111111: 1 },
      { query: '{ payments(a41: 1, n_411_111: 2) { __typename } }' },
    ]) {
      const { errors } = await send(body)
      expect(JSON.stringify(errors)).not.toMatch(/cvv|4111|411_111/)
    }
  })
})

describe('an explicit null', () => {
  const by = 'query ($by: PaymentBy!) { payment(by: $by) { id } }'
  it.each<[string, object]>([
    [by, { by: { id: paymentId, idempotencyKey: null, bankReference: null } }],
    [by, { by: { id: null, idempotencyKey: null, bankReference: authorizationId } }],
    ['query ($id: ID!) { payment(by: { id: $id, bankReference: null }) { id } }', { id: paymentId }],
    [
      `query ($by: PaymentBy! = { id: "${paymentId}", idempotencyKey: null }) { payment(by: $by) { id } }`,
      {},
    ],
    [`{ ...f } fragment f on Query { payment(by: { idempotencyKey: null, id: "${paymentId}" }) { id } }`, {}],
  ])('beside the one field of a @oneOf counts as left out: %s %j', async (query, variables) => {
    for (const as of ['service', 'customer'] as const) {
      expect(await send({ query, variables }, { as })).toEqual({
        status: 200,
        data: { payment: { id: paymentId } },
      })
    }
  })

  it.each<[string, object]>([
    [by, { by: { id: null } }],
    [by, { by: {} }],
    [by, { by: { id: paymentId, bankReference: authorizationId } }],
    ['{ payment(by: { id: null, bankReference: null }) { id } }', {}],
    [`{ payment(by: { id: "${paymentId}", bankReference: "x" }) { id } }`, {}],
  ])('does not make one of none, nor of two: %s %j', async (query, variables) => {
    const { status, errors } = await send({ query, variables })
    expect([status, errors?.[0]?.message]).toEqual([
      400,
      expect.stringMatching(/[Ee]xactly one (key|.* field)|exactly one key/),
    ])
  })

  it('of a subscription too', async () => {
    const query = 'subscription ($by: PaymentUpdatedBy!) { paymentUpdated(by: $by) { id } }'
    const variables = { by: { orderId: 'order-1', paymentId: null, customerId: null } }
    const { errors } = await send({ query, variables }, { accept: 'application/json' })
    // It was read, and wants a stream.
    expect(errors).toMatchObject([{ extensions: { code: 'NOT_ACCEPTABLE' } }])
  })

  const optional = [
    ...fieldsOf().map((field) => ({ kind: 'query', field })),
    ...fieldsOf(schema.getMutationType()).map((field) => ({ kind: 'mutation', field })),
  ].flatMap(({ kind, field }) =>
    placesIn(field.args)
      .filter(({ given, path }) => !isNonNullType(given.type) && !(path[0] === 'by' && path.length === 2))
      .map(({ path }) => [`${field.name}(${path.join('.')})`, { kind, field, path }] as const),
  )
  it('stands for all that is optional', () => {
    expect(optional.length).toBeGreaterThan(30)
  })
  it.each(optional)('of %s is answered as if it were left out', async (_, { kind, field, path }) => {
    const answers = []
    for (const value of [undefined, null]) {
      const { input, ...others } = withValueAt(field, path, value)
      // Each is an intention of its own.
      const own = { ...Object(input), ...(Object(input).idempotencyKey && { idempotencyKey: randomUUID() }) }
      answers.push(
        await send(request(kind, field, { ...others, ...(input !== undefined && { input: own }) })),
      )
    }
    expect(answers[0]?.errors).toBeUndefined()
    expect(answers[1]).toEqual(answers[0])
  })

  it('and what is left out are one request: a repeat with the other is a replay', async () => {
    const input = {
      idempotencyKey: randomUUID(),
      orderId: randomUUID(),
      customerId: 'c',
      amountCents: 1,
      card: TEST_CARD,
    }
    const query =
      'mutation ($input: AuthorizePaymentInput!) { it: authorizePayment(input: $input) { ... on PaymentSuccess { replayed } } }'
    const first = await send({ query, variables: { input } })
    const again = await send({ query, variables: { input: { ...input, allowAnotherForOrder: null } } })
    expect([first.data, again.data]).toEqual([{ it: { replayed: false } }, { it: { replayed: true } }])
  })
})
