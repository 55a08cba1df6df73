import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import type { Bank, ExchangeRecord } from '../../src/bank/bank.ts'
import { observed } from '../../src/bank/observed.ts'
import { connect } from '../../src/db/connection.ts'
import { systemClock } from '../../src/gateway.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { ASKERS, CHECKOUT, serverFor } from '../access/askers.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, client as clientAt, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** The log as an operator reads it: which request, which operation, which payment, and what came of it. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const at = { databaseUrl: database.url, bankUrl: bank.url }
const { client, gateway, logged, fetch } = startTestGateway(at)

type Line = Record<string, unknown> & { msg: string; level: number }
const lines = (): Line[] => logged.map((line) => JSON.parse(line) as Line)
const OPERATION = expect.stringMatching(/^op_[0-9a-f-]{36}$/) as string

const ask = (headers: Record<string, string>, query = '{ paymentsByOrder(orderId: "1") { id } }') =>
  fetch('http://gateway/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ query }),
  })
const nameOf = async (given: string) =>
  (await ask({ 'x-request-id': given })).headers.get('x-request-id') ?? 'none'

describe('a request', () => {
  it.each([
    'shop-42',
    '0f8fad5b-d9cb-469f-a165-70867728950e',
    '12345678-1234-1234-1234-123456789012',
    '4bf92f3577b34da6a3ce929d0e0e4736',
    'Root=1-67891233-abcdef012345678912345678',
    'x'.repeat(128),
  ])('keeps the name that it came with: %s', async (name) => {
    expect(await nameOf(name)).toBe(name)
    expect(lines()).toContainEqual(expect.objectContaining({ request: name, field: 'paymentsByOrder' }))
  })

  it.each([
    '',
    TEST_CARD.number,
    `order-${TEST_CARD.number}`,
    '4111-1111-1111-1111',
    `a${TEST_CARD.number}`,
    `${TEST_CARD.number}f`,
    `abc${TEST_CARD.number}def`,
    '4111a1111b1111c1111',
    Array.from(TEST_CARD.number).join('e'),
    'two words',
    '{"level":60}',
    'x'.repeat(129),
  ])('gets another name for one that is none or could be a card: %j', async (name) => {
    expect(await nameOf(name)).toMatch(/^req_[0-9a-f-]{36}$/)
    expect(logged.join('')).not.toMatch(/4111|4e1e1/)
  })

  it('is named in every answer, refused or broken, and in the line about what broke', async () => {
    const asked = await Promise.all([
      ask({ 'x-request-id': 'malformed' }, '{'),
      ask({ 'x-request-id': 'unknown-field' }, '{ nothing }'),
      fetch('http://gateway/elsewhere', { headers: { 'x-request-id': 'elsewhere' } }),
    ])
    const names = asked.map(({ headers }) => headers.get('x-request-id'))
    expect(names).toEqual(['malformed', 'unknown-field', 'elsewhere'])
    const broken = startTestGateway(at)
    broken.gateway.sql = connect('postgres://127.0.0.1:1/none', {
      connectionsMax: 1,
      statementTimeoutMs: 100,
    })
    whenFileEnds(() => broken.gateway.sql.end({ timeout: 1 }))
    const response = await broken.fetch('http://gateway/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-request-id': 'broken' },
      body: '{"query":"{ paymentsByOrder(orderId: \\"1\\") { id } }"}',
    })
    expect(response.headers.get('x-request-id')).toBe('broken')
    const about = broken.logged.map((line) => JSON.parse(line) as Line).filter((line) => line.level >= 40)
    expect(about).toEqual([
      expect.objectContaining({
        request: 'broken',
        fault: expect.objectContaining({ code: 'ECONNREFUSED' }) as object,
      }),
    ])
  })
})

describe('a mutation', () => {
  it('leaves a line for its outcome and one for its answer, with all ids', async () => {
    const request = `req-${randomUUID()}`
    const named = { 'x-request-id': request }
    const query = `mutation { authorizePayment(input: { idempotencyKey: "${request}", orderId: "${request}", customerId: "c", amountCents: 100,
      card: { number: "${TEST_CARD.number}", cvv: "123", expiryMonth: 12, expiryYear: 2030 } }) { ... on PaymentSuccess { payment { id } } } }`
    const answer = await (await ask(named, query)).json()
    const { id } = (answer as { data: { authorizePayment: { payment: { id: string } } } }).data
      .authorizePayment.payment
    const [settled, told, ...more] = lines().filter((line) => line['request'] === request)
    expect(more).toEqual([])
    expect(settled).toMatchObject({
      msg: 'settled',
      operation: OPERATION,
      payment: id,
      kind: 'AUTHORIZE',
      state: 'AUTHORIZED',
      attempt: 1,
    })
    expect(told).toMatchObject({
      msg: 'answered',
      operation: settled?.['operation'],
      payment: id,
      field: 'authorizePayment',
      client: 'ficmart',
      result: 'SUCCESS',
      replayed: false,
      durationMs: expect.any(Number) as number,
    })
    await ask({ 'x-request-id': `${request}-again` }, query)
    expect(lines().at(-1)).toMatchObject({
      request: `${request}-again`,
      operation: settled?.['operation'],
      payment: id,
      replayed: true,
    })
  })

  it('of a customer does not name the customer', async () => {
    const server = serverFor(gateway, ASKERS.customer)
    const asked = { fetch: (url: string, init: RequestInit) => server.fetch(url, init) }
    const { data } = await clientAt('http://gateway/graphql', asked).post(
      'mutation ($input: AuthorizePaymentInput!) { authorizePayment(input: $input) { ... on PaymentSuccess { replayed } } }',
      { input: { ...CHECKOUT, idempotencyKey: randomUUID(), card: TEST_CARD } },
    )
    expect(data).toEqual({ authorizePayment: { replayed: false } })
    expect(lines().at(-1)).toMatchObject({ field: 'authorizePayment', client: 'customer' })
    expect(logged.join('')).not.toContain(CHECKOUT.customerId)
  })

  it('whose outcome is not known at its deadline names its payment', async () => {
    const hasty = startTestGateway({ ...at, settings: { requestDeadlineMs: 500 } })
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const answer = await hasty.client.authorize()
    expect(answer).toMatchObject({ code: 'OUTCOME_UNKNOWN', payment: { state: 'PENDING' } })
    const told = hasty.logged.map((line) => JSON.parse(line) as Line).at(-1)
    expect(told).toMatchObject({ result: 'OUTCOME_UNKNOWN', payment: answer.payment?.id })
    gate.open()
  })

  it('whose statement the database loses says which step is said again, for whom', async () => {
    const { id } = await authorized(client)
    const { sql } = gateway
    let lost = 0
    const losing = (...args: Parameters<typeof sql>) => {
      if (!String(args[0]).includes('settle(') || lost > 0) return sql(...args)
      lost += 1
      return Promise.reject(Object.assign(new Error('gone'), { code: '57P01' }))
    }
    gateway.sql = Object.assign(losing, sql)
    await client.capture({ paymentId: id })
    gateway.sql = sql
    const line = lines().find(({ msg }) => msg.startsWith('the database did not answer'))
    expect(line).toMatchObject({
      level: 40,
      request: expect.stringMatching(/^req_/) as string,
      step: 'settle',
      operation: OPERATION,
      payment: id,
      code: '57P01',
    })
  })

  it('that no rule can settle leaves an error that says so', async () => {
    const { id } = await authorized(client)
    bank.faults.add('other-amount', { endpoint: 'captures' })
    await client.capture({ paymentId: id })
    const line = lines().find(({ level, payment }) => level === 50 && payment === id)
    expect(line?.msg).toContain('docs/operations.md')
    expect(line).toMatchObject({ operation: OPERATION, review: { reason: expect.any(String) as string } })
  })
})

describe('recovery', () => {
  it('says what it enters and what came of it', async () => {
    const orderId = randomUUID()
    bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
    bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: 6 })
    const { payment } = await client.authorize({ orderId })
    expect(
      lines()
        .filter((line) => line['payment'] === payment?.id)
        .at(0)?.msg,
    ).toMatch(/^left: /)
    gateway.clock = { ...systemClock, databaseTime: () => new Date(Date.now() + 60_000) }
    const before = logged.length
    await sweep(gateway)
    const [enters, settled] = lines().slice(before)
    expect(enters).toMatchObject({ msg: 'recovery enters what is due', due: OPERATION })
    expect(settled).toMatchObject({ operation: enters?.['due'], payment: payment?.id })
    expect(settled).not.toHaveProperty('request')
  })
})

it('an exchange with the bank that takes long is told, with its operation', async () => {
  const told: string[] = []
  const log = pino({}, { write: (line: string) => void told.push(line) })
  const call = (durationMs: number): ExchangeRecord => ({
    id: randomUUID(),
    purpose: 'SEND',
    endpoint: 'POST /api/v1/captures',
    startedAt: new Date(),
    durationMs,
    httpStatus: null,
    errorCode: 'TIMEOUT',
    replayed: false,
    conclusion: 'ambiguous',
  })
  const answers = [call(4_999), call(20_000)]
  const slow = observed(
    {
      ...gateway.bank,
      send: async () => ({
        answer: { is: 'ambiguous', reason: 'no complete answer: TIMEOUT' },
        calls: answers.splice(0, 1),
      }),
    } satisfies Bank,
    log,
  )
  const request = {
    endpoint: 'captures',
    body: () => ({}),
    expect: { amountCents: 1, parentId: null },
  } as const
  await slow.send('op_1', request)
  expect(told).toEqual([])
  await slow.send('op_2', request)
  expect(JSON.parse(told[0] ?? '')).toMatchObject({
    level: 40,
    operation: 'op_2',
    endpoint: 'POST /api/v1/captures',
    durationMs: 20_000,
    errorCode: 'TIMEOUT',
  })
})

it('no line holds a card, or an idempotency key', async () => {
  const idempotencyKey = `key-${randomUUID()}`
  await captured(client, { idempotencyKey })
  expect(logged.length).toBeGreaterThan(0)
  for (const line of logged) {
    expect(line).not.toContain(TEST_CARD.number)
    expect(line).not.toContain(idempotencyKey)
    expect(line).not.toMatch(/cvv/i)
  }
})
