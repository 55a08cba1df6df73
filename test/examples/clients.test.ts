import { spawn } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { isScalarType, isSpecifiedScalarType, parse, validate } from 'graphql'
import { expect, it, onTestFinished, vi } from 'vitest'
import { parse as readYaml } from 'yaml'
import { schema } from '../../src/graphql/schema.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, client } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** The programs of docs/clients.md, with the libraries as they are published, against a gateway that wants keys. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const apiKey = randomUUID()
const gateway = await spawnGateway({
  DATABASE_URL: database.url,
  BANK_URL: bank.url,
  API_KEYS: `ficmart:service:${createHash('sha256').update(apiKey).digest('hex')}`,
})
const url = `${gateway.url}/graphql`
const ficmart = client(url, { headers: { authorization: `Bearer ${apiKey}` } })

/** What a program prints, line by line; what it says besides is a fault. */
function run(program: string, more: Record<string, string> = {}) {
  const env = { PATH: process.env['PATH'], GATEWAY_URL: url, GATEWAY_API_KEY: apiKey, ...more }
  const child = spawn(process.execPath, [`examples/clients/${program}`], { env })
  whenFileEnds(() => child.kill('SIGKILL'))
  let complaints = ''
  child.stderr.on('data', (chunk: Buffer) => (complaints += chunk.toString()))
  const exited = new Promise((resolve) => child.once('exit', resolve))
  return {
    lines: createInterface({ input: child.stdout })[Symbol.asyncIterator](),
    ended: async () => [await exited, complaints],
  }
}
async function printed(program: string) {
  const { lines, ended } = run(program)
  const all: string[] = []
  for await (const line of lines) all.push(line)
  expect(await ended()).toEqual([0, ''])
  return all
}

it.each(['apollo.js', 'urql.js'])(
  '%s reads every answer, pages, and finds by id what it has',
  async (program) => {
    expect(await printed(program)).toEqual([
      'declined INSUFFICIENT_FUNDS',
      'authorized AUTHORIZED $49.99',
      'history 2',
      'from the cache AUTHORIZED',
    ])
  },
)

it('sse.js follows an order', async () => {
  const orderId = randomUUID()
  const { id } = await authorized(ficmart, { orderId })
  const { lines, ended } = run('sse.js', { ORDER_ID: orderId })
  expect((await lines.next()).value).toBe('AUTHORIZED')
  await ficmart.capture({ paymentId: id })
  expect((await lines.next()).value).toBe('CAPTURED')
  expect(await ended()).toEqual([0, ''])
})

it('without possibleTypes Apollo loses what stands behind an interface, as the docs say', async () => {
  const { ApolloClient, gql, HttpLink, InMemoryCache } = await import('@apollo/client')
  const link = new HttpLink({ uri: url, headers: { authorization: `Bearer ${apiKey}` } })
  const apollo = new ApolloClient({ link, cache: new InMemoryCache() })
  const { id } = await authorized(ficmart)
  const mutation = gql`
    mutation ($input: CapturePaymentInput!) {
      capturePayment(input: $input) {
        ... on PaymentSuccess {
          currentPayment {
            state
          }
        }
      }
    }
  `
  const input = { idempotencyKey: randomUUID(), paymentId: id }
  const warn = vi.spyOn(console, 'warn').mockReturnValue()
  onTestFinished(() => warn.mockRestore())
  const { data } = await apollo.mutate({ mutation, variables: { input } })
  expect(data).toEqual({ capturePayment: { __typename: 'CapturePaymentSuccess' } })
  const states = await ficmart.query(`{ payment(by: { id: "${id}" }) { state } }`)
  expect(states).toEqual({ payment: { state: 'CAPTURED' } })
})

it('graphql-codegen, genqlient and Relay are told of every scalar, and their document is valid', async () => {
  const scalars = Object.values(schema.getTypeMap())
    .filter((type) => isScalarType(type) && !isSpecifiedScalarType(type))
    .map(({ name }) => name)
  const read = (file: string) => readFile(`examples/clients/${file}`, 'utf8')
  const codegen = readYaml(await read('codegen.yaml')) as {
    generates: Record<string, { config: { scalars: object } }>
  }
  const genqlient = readYaml(await read('genqlient.yaml')) as { bindings: object }
  const relay = JSON.parse(await read('relay.config.json')) as { customScalarTypes: object }
  const told = [
    codegen.generates['generated/gateway.ts']?.config.scalars,
    genqlient.bindings,
    relay.customScalarTypes,
  ]
  expect(told.map((one) => Object.keys(one ?? {}).toSorted())).toEqual(Array(3).fill(scalars.toSorted()))
  expect(validate(schema, parse(await read('pay.graphql')))).toEqual([])
})

it('docs/clients.md names every file of examples/clients', async () => {
  const doc = await readFile('docs/clients.md', 'utf8')
  const linked = [...doc.matchAll(/\(\.\.\/examples\/clients\/([\w.-]+)\)/g)].map((match) => match[1])
  expect(new Set([...linked, 'pay.graphql'])).toEqual(new Set(await readdir('examples/clients')))
})
