import { randomUUID } from 'node:crypto'
import { getNamedType, isInputObjectType } from 'graphql'
import { describe, expect, it } from 'vitest'
import { schema } from '../../src/graphql/schema.ts'
import { safeError } from '../../src/log.ts'
import { startTestBank } from '../support/bank.ts'
import { TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** No text that is stored, sent on or logged may hold the number of a card, whoever's and however it is written. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client, logged } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })

const paymentId = `pay_${randomUUID()}`
const reason = 'INC-17: looked at the statement'
const order = { orderId: 'order', customerId: 'customer', amountCents: 100, card: TEST_CARD }
const bankReference = `cap_${randomUUID()}`
/** A good input of each mutation that takes a text. */
const INPUTS: Record<string, Record<string, unknown>> = {
  authorizePayment: { idempotencyKey: 'key', ...order },
  capturePayment: { idempotencyKey: 'key', paymentId },
  voidPayment: { idempotencyKey: 'key', paymentId },
  refundPayment: { idempotencyKey: 'key', paymentId },
  rerunRecovery: { paymentId, reason },
  enterBankReference: { paymentId, bankReference, reason },
  closeReview: { paymentId, outcome: 'NO_CHANGE', voidReference: `void_${randomUUID()}`, reason },
  resendWebhook: { webhookId: `evt_${randomUUID()}_1`, reason },
}
/** As the schema has them, so that none is forgotten that comes later. */
const texts = Object.entries(schema.getMutationType()?.getFields() ?? {}).flatMap(([mutation, { args }]) => {
  const input = getNamedType(args[0]?.type)
  const fields = isInputObjectType(input) ? Object.values(input.getFields()) : []
  return fields
    .filter(({ type }) => getNamedType(type).name === 'String')
    .map(({ name }) => [mutation, name] as [string, string])
})

async function fieldsOf(mutation: string, input: Record<string, unknown> = {}) {
  const type = mutation.replace(/^./, (letter) => letter.toUpperCase())
  const { result } = await client.query<{ result: { fields?: { path: string; reason: string }[] } }>(
    `mutation ($input: ${type}Input!) { result: ${mutation}(input: $input) { ... on InvalidInput { fields { path reason } } } }`,
    { input: { ...INPUTS[mutation], ...input } },
  )
  return result.fields ?? []
}

describe.each(texts)('%s, %s', (mutation, name) => {
  const spellings =
    name === 'voidReference'
      ? [
          'void_4242424242424242',
          'void_4242-4242-4242-4242',
          'void_4242a4242a4242a4242',
          'void_x4242424242424242',
        ]
      : [
          '4242424242424242',
          '4242,4242,4242,4242',
          '4242:4242|4242   4242',
          'card ٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢',
          '४२४२४२४२४२४२४२४२',
          '4242a4242b4242c4242',
          'order4242424242424242x',
          '3782-822463-10005',
        ]
  it.each(spellings)('may not be %s: told where, why and what to do, not what', async (text) => {
    const before = await database.sql`select count(*) from operations`
    const fields = await fieldsOf(mutation, { [name]: text })
    expect(fields).toEqual([
      {
        path: `input.${name}`,
        reason: expect.stringMatching(/what could be the number of a card.*Leave it out/) as string,
      },
    ])
    expect(JSON.stringify(fields)).not.toMatch(/4242|3782/)
    expect(await database.sql`select count(*) from operations`).toEqual(before)
    expect(logged.join('')).not.toContain(text)
  })
})

it.each(Object.keys(INPUTS))('what holds none is good: %s', async (mutation) => {
  const all = Object.values(INPUTS[mutation] ?? {})
  expect(texts.map(([of]) => of)).toContain(mutation)
  expect(all.length).toBeGreaterThan(0)
  expect(await fieldsOf(mutation)).toEqual([])
})

it('a faulty card hides no other in the texts beside it', async () => {
  const fields = await fieldsOf('authorizePayment', {
    card: { ...TEST_CARD, cvv: '1' },
    orderId: '4242|4242|4242|4242',
  })
  expect(fields.map(({ path }) => path)).toContain('input.card.cvv')
})

it('an id that was taken before is still found', async () => {
  const orderId = '4242,4242,4242,4242'
  const { paymentsByOrder } = await client.query<{ paymentsByOrder: unknown[] }>(
    'query ($orderId: String!) { paymentsByOrder(orderId: $orderId) { id } }',
    { orderId },
  )
  expect(paymentsByOrder).toEqual([])
})

it.each(['n4242_4242_4242_4242', 'n4242a4242b4242c4242'])(
  'a name in a document may not be %s: it would be told again, and traced',
  async (name) => {
    const { errors } = await client.post(`query ${name} { __typename }`)
    expect(errors?.[0]?.message).toContain('A name must not hold')
    expect(JSON.stringify(errors)).not.toContain('4242')
  },
)

describe('an error in the log', () => {
  it('tells no card that a library put into its message', () => {
    const said = safeError(
      new Error('cannot parse {"number":"4242 4242 4242 4242"}\n    at 4242424242424242'),
    )
    expect(JSON.stringify(said)).not.toContain('4242')
    expect(said).toMatchObject({ type: 'Error', message: expect.stringContaining('cannot parse') as string })
  })

  it('still tells where it was', () => {
    const error = new Error('connect ECONNREFUSED 127.0.0.1:5432')
    expect(safeError(error)).toEqual({ type: 'Error', message: error.message, stack: error.stack })
    const cards = new Error('4242 4242 4242 4242')
    expect(safeError(cards)['stack']).toMatch(/cards-in-texts\.test\.ts:\d+:\d+/)
  })
})
