import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createServer } from '../../src/graphql/server.ts'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { serving, startTestGateway } from '../support/gateway.ts'

/**
 * A card number and CVV in every wrong place of a request that I could think of. None of it may come back in the answer,
 * or go into the log or the database; and the answer must still say what is wrong, and where.
 */

const NUMBER = '4111111111111111'
const CVV = '7391'
const SECRETS = [NUMBER, '4111 1111 1111 1111', '411111', CVV]
/** Ids and times have digits of their own: four of them may be the CVV's by chance. */
const withoutChance = (text: string) => text.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}|"time":\d+/g, '')

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway, logged } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const server = createServer(gateway, serving())

type Said = { status: number; text: string; errors: { message: string; extensions: { code: string } }[] }

async function send(init: RequestInit, url = 'http://gateway/graphql'): Promise<Said> {
  const response = await server.fetch(url, init)
  const text = await response.text()
  const body = JSON.parse(text) as { errors?: Said['errors'] }
  return { status: response.status, text, errors: body.errors ?? [] }
}

/** Or it would not be read at all (gate.ts). */
const ASKED = { 'graphql-require-preflight': '1' }
const post = (body: unknown) =>
  send({
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })

/** The secrets that came back or were logged, and the errors that do not say what is wrong. */
function faultsOf({ text, errors }: Said): unknown[] {
  const leaked = SECRETS.filter((secret) => withoutChance(text + logged.join('')).includes(secret))
  const mute = errors.filter(
    ({ message, extensions }) => !/\w{3}/.test(message) || !/^[A-Z_]+$/.test(extensions.code),
  )
  return [...leaked, ...mute, ...(errors.length === 0 ? ['no error'] : [])]
}

const AUTHORIZE = `mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { __typename } }`
const card = { number: NUMBER, cvv: CVV, expiryMonth: 12, expiryYear: 2030 }
const input = { idempotencyKey: 'key', orderId: 'order', customerId: 'customer', amountCents: 1, card }

describe('as a variable', () => {
  it.each<[string, unknown, string]>([
    [
      'a misspelt field',
      { ...input, card: { nmber: NUMBER, cvv: CVV, expiryMonth: 12, expiryYear: 2030 } },
      '$input.card: Field "number" of required type "String!" was not provided.',
    ],
    [
      'a missing field',
      { ...input, card: { number: NUMBER, cvv: CVV } },
      '$input.card: Field "expiryMonth" of required',
    ],
    [
      'a number for a text',
      { ...input, card: { ...card, number: Number(NUMBER) } },
      '$input.card.number: String cannot',
    ],
    [
      'an object for a text',
      { ...input, card: { ...card, cvv: { cvv: CVV } } },
      '$input.card.cvv: String cannot',
    ],
    [
      'a list for a text',
      { ...input, card: { ...card, number: [NUMBER] } },
      '$input.card.number: String cannot',
    ],
    [
      'a text for the card',
      { ...input, card: NUMBER },
      '$input.card: Expected type "CardInput" to be an object.',
    ],
    [
      'the card for a text',
      { ...input, orderId: card },
      '$input.orderId: String cannot represent a non string value.',
    ],
    ['the card for an amount', { ...input, amountCents: card }, '$input.amountCents: Expected Cents'],
    ['the number for an amount', { ...input, amountCents: NUMBER }, '$input.amountCents: Expected Cents'],
    [
      'the number for a month',
      { ...input, card: { ...card, expiryMonth: NUMBER } },
      '$input.card.expiryMonth: Int cannot',
    ],
    [
      'a month beyond Int',
      { ...input, card: { ...card, expiryYear: Number(NUMBER) } },
      '$input.card.expiryYear: Int cannot',
    ],
    [
      'the number for a flag',
      { ...input, allowAnotherForOrder: NUMBER },
      '$input.allowAnotherForOrder: Boolean cannot',
    ],
    [
      'the number as a key',
      { ...input, [`n${NUMBER}`]: CVV },
      '$input: Field "…" is not defined by type "AuthorizePaymentInput".',
    ],
    [
      'the whole as a text',
      JSON.stringify(input),
      '$input: Expected type "AuthorizePaymentInput" to be an object.',
    ],
    ['the whole in a list', [[input]], '$input: '],
    ['nothing', undefined, '$input: Expected AuthorizePaymentInput!, got nothing.'],
    ['null', null, '$input: Expected non-nullable type "AuthorizePaymentInput!" not to be null.'],
  ])('%s', async (_, variable, said) => {
    const answer = await post({ query: AUTHORIZE, variables: { input: variable } })
    expect(faultsOf(answer)).toEqual([])
    expect(answer.errors[0]?.message).toContain(said)
    expect(answer.errors[0]?.extensions.code).toBe('BAD_USER_INPUT')
  })

  it('that is not valid: the reason says why without saying what', async () => {
    const bad = {
      ...input,
      idempotencyKey: `${NUMBER}\n`,
      card: { ...card, number: '4111111111111112', cvv: `${CVV}x` },
    }
    const query = AUTHORIZE.replace('__typename', '... on InvalidInput { message fields { path reason } }')
    const answer = await post({ query, variables: { input: bad } })
    for (const secret of [...SECRETS, '4111111111111112']) expect(answer.text).not.toContain(secret)
    expect(answer.text).toContain('input.card.cvv')
  })

  it.each<[string, string, Record<string, unknown>, string]>([
    [
      'an enum value',
      'query ($v: [PaymentState!]) { payments(filter: { states: $v }) { __typename } }',
      { v: [NUMBER] },
      '"PaymentState" enum',
    ],
    [
      'a moment',
      'query ($v: DateTime) { payments(filter: { createdAfter: $v }) { __typename } }',
      { v: NUMBER },
      'Expected DateTime',
    ],
    [
      'a oneOf',
      'query ($v: PaymentBy!) { payment(by: $v) { id } }',
      { v: { id: NUMBER, idempotencyKey: NUMBER } },
      'Exactly one key',
    ],
    [
      'an id',
      'query ($v: ID!) { payment(by: { id: $v }) { id } }',
      { v: NUMBER },
      "by.id: must be a payment's id",
    ],
    [
      'a cursor',
      'query ($v: String) { payments(after: $v) { __typename } }',
      { v: NUMBER },
      'after: must be a cursor',
    ],
    [
      'a name of a variable',
      `query ($n${NUMBER}: String!) { payments(after: $n${NUMBER}) { __typename } }`,
      {},
      'A name must not hold',
    ],
  ])('in %s', async (_, query, variables, said) => {
    const answer = await post({ query, variables })
    expect(faultsOf(answer)).toEqual([])
    expect(answer.errors[0]?.message).toContain(said)
  })
})

describe('in the document', () => {
  const literal = (text: string) =>
    `mutation { authorizePayment(input: { idempotencyKey: "key", orderId: "order", customerId: "customer", amountCents: 1, card: ${text} }) { __typename } }`

  it.each<[string, string, string]>([
    [
      'a misspelt field',
      literal(`{ nmber: "${NUMBER}", cvv: "${CVV}", expiryMonth: 12, expiryYear: 2030 }`),
      'is not defined by type "CardInput". Did you mean "number"?',
    ],
    [
      'a missing field',
      literal(`{ number: "${NUMBER}", cvv: "${CVV}" }`),
      'Field "CardInput.expiryMonth" of required type "Int!" was not provided.',
    ],
    [
      'a number for a text',
      literal(`{ number: ${NUMBER}, cvv: ${CVV}, expiryMonth: 12, expiryYear: 2030 }`),
      'String cannot represent a non string value.',
    ],
    [
      'an object for a text',
      literal(`{ number: { a: "${NUMBER}" }, cvv: "${CVV}", expiryMonth: 12, expiryYear: 2030 }`),
      'String cannot represent a non string value.',
    ],
    ['a text for the card', literal(`"${NUMBER} ${CVV}"`), 'Expected value of type "CardInput!", found "…".'],
    ['an enum for the card', literal(`n${NUMBER}`), 'Expected value of type "CardInput!", found …'],
    ['a block text', literal(`"""${NUMBER}\n${CVV}"""`), 'Expected value of type "CardInput!"'],
    ['a list', literal(`["${NUMBER}", "${CVV}"]`), 'Expected value of type "CardInput", found ["…"].'],
    [
      'a fraction',
      literal(`{ number: "1", cvv: "1", expiryMonth: ${NUMBER}.5, expiryYear: 2030 }`),
      'Int cannot represent non-integer value.',
    ],
    [
      'an amount',
      '{ shipmentCheck(orderId: "1", amountCents: "' + NUMBER + '") { reason } }',
      'Expected Cents',
    ],
    ['a moment', `{ payments(filter: { createdAfter: "${NUMBER}" }) { __typename } }`, 'Expected DateTime'],
    [
      'an enum value',
      `{ payments(filter: { states: [n${NUMBER}] }) { __typename } }`,
      'does not exist in "PaymentState" enum',
    ],
    ['a field', `{ n${NUMBER} }`, 'Cannot query field "…" on type "Query".'],
    ['a field of CVV', `{ n${CVV} }`, 'Cannot query field "…" on type "Query".'],
    [
      'an argument',
      `{ payments(n${NUMBER}: 1) { __typename } }`,
      'Unknown argument "…" on field "Query.payments".',
    ],
    ['an alias', `{ n${NUMBER}: __typename }`, 'A name must not hold a number of 13 digits or more'],
    ['the name of the operation', `query n${NUMBER} { __typename }`, 'A name must not hold'],
    ['a fragment', `{ ...n${NUMBER} }`, 'Unknown fragment "…".'],
    ['a type', `query ($a: n${NUMBER}) { __typename }`, 'Unknown type "…".'],
    ['a directive', `{ __typename @n${NUMBER} }`, 'Unknown directive "@…".'],
    [
      'an argument of a directive',
      `{ __typename @skip(if: "${NUMBER}") }`,
      'Boolean cannot represent a non boolean value',
    ],
    [
      'a default value',
      `query ($first: Int = "${NUMBER}") { payments(first: $first) { __typename } }`,
      'Int cannot represent',
    ],
    [
      'a broken document',
      `mutation { authorizePayment(input: { card: { number: ${NUMBER}x`,
      'Syntax Error: Invalid number',
    ],
    ['an unterminated text', `{ payment(by: { id: "${NUMBER}`, 'Syntax Error: Unterminated string.'],
    ['an unexpected number', `{ ${NUMBER} }`, 'Syntax Error: Expected Name, found Int "…".'],
    ['an unexpected text', `{ a "${NUMBER} \\" ${CVV}" }`, 'Syntax Error: Expected Name, found String "…".'],
    ['no document at all', `${NUMBER} ${CVV}`, 'Syntax Error: Unexpected Int "…".'],
    ['an escape', `{ payment(by: { id: "\\u${NUMBER}" }) }`, 'payment'],
    ['a subscription', `subscription n${NUMBER} { a }`, ''],
  ])('%s', async (_, query, said) => {
    const answer = await post({ query })
    expect(faultsOf(answer)).toEqual([])
    expect(answer.errors.map((error) => error.message).join()).toContain(said)
  })

  it('is not kept in the memory of documents', async () => {
    const { documentCache } = await import('../../src/graphql/card-in-document.ts')
    const cache = documentCache<object>()
    for (const query of [literal(`{ number: "4111 1111 1111 1111" }`), literal(`{ cvv: "${CVV}" }`)]) {
      cache.set(query, {})
      expect(cache.get(query)).toBeUndefined()
    }
    cache.set(AUTHORIZE, {})
    expect(cache.get(AUTHORIZE)).toEqual({})
  })
})

describe('in the request', () => {
  it.each<[string, string]>([
    ['a broken body', `{"query": "{ __typename }", "variables": {"card": "${NUMBER}"`],
    ['a body that is a text', `"${NUMBER} ${CVV}"`],
    ['a body that is a number', NUMBER],
    ['a body that is no JSON', `card=${NUMBER}&cvv=${CVV}`],
    ['a list', `[{"query": "{ __typename }", "variables": {"card": "${NUMBER}"}}]`],
    ['a parameter', `{"query": "{ __typename }", "n${NUMBER}": "${CVV}"}`],
    ['variables that are a text', `{"query": "{ __typename }", "variables": "${NUMBER}"}`],
    ['a document that is a number', `{"query": ${NUMBER}}`],
    ['a document that is an object', `{"query": {"card": "${NUMBER}"}}`],
    [
      'the name of the operation',
      `{"query": "query a { __typename } query b { __typename }", "operationName": "${NUMBER}"}`,
    ],
    ['an operation name that is a number', `{"query": "{ __typename }", "operationName": ${NUMBER}}`],
  ])('%s', async (_, body) => {
    const answer = await post(body)
    expect(faultsOf(answer)).toEqual([])
    expect(answer.status).toBe(400)
  })

  it.each<[string, string]>([
    ['variables that are no JSON', `query={__typename}&variables=${NUMBER}x`],
    ['a document', `query={n${NUMBER}}`],
    [
      'a mutation',
      `query=${encodeURIComponent(AUTHORIZE)}&variables=${encodeURIComponent(JSON.stringify({ input }))}`,
    ],
  ])('by GET with %s', async (_, search) => {
    const answer = await send({ method: 'GET', headers: ASKED }, `http://gateway/graphql?${search}`)
    expect(faultsOf(answer)).toEqual([])
  })

  it.each(['application/x-www-form-urlencoded', 'application/graphql'])('as %s', async (type) => {
    const answer = await send({
      method: 'POST',
      headers: { 'content-type': type, ...ASKED },
      body: `query={n${NUMBER}}&variables=${NUMBER}x`,
    })
    expect(faultsOf(answer)).toEqual([])
  })
})

it.each([
  [
    '{ payment { id } }',
    'Field "payment" argument "by" of type "PaymentBy!" is required, but it was not provided.',
  ],
  [
    '{ payments }',
    'Field "payments" of type "PaymentConnection!" must have a selection of subfields. Did you mean "payments { ... }"?',
  ],
  [
    '{ payment(by: { id: "1" }) { stat } }',
    'Cannot query field "stat" on type "Payment". Did you mean "state"?',
  ],
  ['query ($id: ID!) { __typename }', 'Variable "$id" is never used.'],
  [
    'query ($id: Int!) { payment(by: { id: $id }) { id } }',
    'Variable "$id" of type "Int!" used in position expecting type "ID".',
  ],
  [
    '{ ... on Payment { id } }',
    'Fragment cannot be spread here as objects of type "Query" can never be of type "Payment".',
  ],
  [
    '{ payment(by: { id: "1" }) { id: state id } }',
    'Fields "id" conflict because "state" and "id" are different fields. Use different aliases on the fields to fetch both if this was intentional.',
  ],
  [
    '{ payments(filter: { states: [GONE] }) { __typename } }',
    'Value "…" does not exist in "PaymentState" enum.',
  ],
  ['{ payments(', 'Syntax Error: Expected Name, found <EOF>.'],
])('what is no secret stays readable: %s', async (query, message) => {
  expect((await post({ query })).errors).toMatchObject([{ message }])
})

it('a fault tells the client nothing, and the log where it was', async () => {
  const broken = createServer(
    {
      ...gateway,
      sql: new Proxy(gateway.sql, {
        apply: () => {
          throw new TypeError(`cannot do it with '${NUMBER}' and ${CVV}`)
        },
      }),
    },
    serving(),
  )
  const response = await broken.fetch('http://gateway/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: '{ paymentsByOrder(orderId: "1") { id } }' }),
  })
  const said = await response.text()
  expect(JSON.parse(said)).toEqual({
    data: null,
    errors: [
      {
        message: 'Unexpected error.',
        locations: [{ line: 1, column: 3 }],
        path: ['paymentsByOrder'],
        extensions: { code: 'INTERNAL_SERVER_ERROR' },
      },
    ],
  })
  const line = logged.find((line) => line.includes('a request met a fault'))
  expect(line).toMatch(
    /"type":"TypeError".*cannot do it with … and ####.*reads\.ts.*"field":"paymentsByOrder"/,
  )
  for (const secret of SECRETS) expect(withoutChance(logged.join(''))).not.toContain(secret)
})

it('what is carried out leaves no trace of the card either', async () => {
  const query = AUTHORIZE.replace('__typename', '__typename ... on PaymentSuccess { payment { id } }')
  const right = { ...input, orderId: randomUUID(), card: { ...card, cvv: '123' } }
  const answer = await post({ query, variables: { input: right } })
  expect(answer.text).toContain('AuthorizePaymentSuccess')
  expect(answer.text).not.toContain(NUMBER)
  expect(logged.join('')).not.toContain(NUMBER)
  const tables = await database.sql<{ row: string }[]>`
    select row_to_json(t)::text as row from (select p.*, o.*, c.*, t.* from payments p
      join operations o on o.payment_id = p.id join bank_calls c on c.operation_id = o.id
      join transitions t on t.payment_id = p.id) as t`
  expect(tables.length).toBeGreaterThan(0)
  for (const { row } of tables) expect(row).not.toContain(NUMBER)
})
