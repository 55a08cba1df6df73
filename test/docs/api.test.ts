import { readFile } from 'node:fs/promises'
import { parse, validate } from 'graphql'
import { describe, expect, it } from 'vitest'
import { ERROR_CODES } from '../../src/graphql/errors.ts'
import { schema } from '../../src/graphql/schema.ts'
import { createServer } from '../../src/graphql/server.ts'
import { problem } from '../../src/operation/problems.ts'
import { PROBLEM_CODES } from '../../src/payment/payment.ts'
import { startTestBank } from '../support/bank.ts'
import { client } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { serving, startTestGateway } from '../support/gateway.ts'

/** What docs/api.md and the examples say of the API. Its receiver and its streams are run in test/events/docs.test.ts. */

const doc = await readFile('docs/api.md', 'utf8')
const blocks = [...doc.matchAll(/^```(\w*)\n(.*?)^```/gms)].map(([, language, text = '']) => ({
  language,
  text,
}))
const documents = blocks.filter(({ language }) => language === 'graphql').map(({ text }) => text)
const rows = [...doc.matchAll(/^\| (`[A-Z_` ]+`) +\|(.*)\|$/gm)].map(([, codes = '', rest = '']) => ({
  codes: [...codes.matchAll(/`(\w+)`/g)].map((match) => match[1] ?? ''),
  cells: rest.split('|').map((cell) => cell.trim()),
}))
const isStatus = (cell: string | undefined) => /^\d{3}$/.test(cell ?? '')

describe('docs/api.md', async () => {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
  const server = createServer(gateway, serving())
  const { query } = client('http://gateway/graphql', { fetch: (url, init) => server.fetch(url, init) })

  it('has no block that no test tries', () => {
    expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['graphql', 'js', 'json', 'sh']))
    expect(blocks.filter(({ language }) => language !== 'graphql')).toHaveLength(4)
  })

  it('has requests that can be run, one after the other', async () => {
    const answers = []
    for (const text of documents) {
      expect(validate(schema, parse(text))).toEqual([])
      answers.push(await query<Record<string, unknown>>(text))
    }
    expect(answers).toMatchObject([
      { authorizePayment: { replayed: false, currentPayment: { state: 'AUTHORIZED' } } },
      { operation: { status: 'SUCCEEDED', payment: { state: 'AUTHORIZED' } } },
      { customerHistory: { edges: [{ node: { orderId: 'order-1' } }], pageInfo: { hasNextPage: false } } },
      { node: null },
      { shipmentCheck: { mayShip: true, reason: 'AUTHORIZED' } },
    ])
  })

  it('has each problem, with its advice, and no other', () => {
    const problems = rows.filter(({ cells }) => !isStatus(cells[0]))
    expect(problems.flatMap(({ codes }) => codes).toSorted()).toEqual(PROBLEM_CODES.toSorted())
    for (const { codes, cells } of problems) {
      for (const code of PROBLEM_CODES.filter((one) => codes.includes(one))) {
        expect([code, cells[1]]).toEqual([code, expect.stringContaining(`\`${problem(code).retry}\``)])
      }
    }
  })

  it('has each error, with its status, and no other', async () => {
    const source = await readFile('src/graphql/errors.ts', 'utf8')
    const ours = [...source.matchAll(/^ {2}([A-Z_]+): \{ status: (\d{3})/gm)].map(
      ([, code, status]) => `${code} ${status}`,
    )
    const told = rows
      .filter(({ cells }) => isStatus(cells[0]))
      .map(({ codes, cells }) => `${codes[0]} ${cells[0]}`)
    expect(ours.length).toBeGreaterThan(5)
    const others = await Promise.all(
      ['{', '{ nothing }', `{ a${' '.repeat(1_000_000)}`].map(async (document) => {
        const response = await server.fetch('http://gateway/graphql', {
          method: 'POST',
          headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json' },
          body: JSON.stringify({ query: document }),
        })
        const { errors } = (await response.json()) as { errors: { extensions: { code: string } }[] }
        return `${errors[0]?.extensions.code} ${response.status}`
      }),
    )
    expect(told.toSorted()).toEqual([...ours, ...others, 'INTERNAL_SERVER_ERROR 200'].toSorted())
    // No other can be answered: public-errors.ts lets none through.
    expect(new Set(told.map((row) => row.split(' ')[0]))).toEqual(new Set(ERROR_CODES))
  })
})

it('the checkout page asks for what customers may ask for', async () => {
  const page = await readFile('examples/checkout/page/checkout.js', 'utf8')
  const [fragment = '', ...operations] = [...page.matchAll(/\/\* GraphQL \*\/ `(.*?)`/gs)].map(
    (match) => match[1] ?? '',
  )
  expect(operations).toHaveLength(3)
  for (const operation of operations) {
    const text = operation.replace('${PAYMENT}', fragment)
    expect(validate(schema, parse(text))).toEqual([])
  }
})
