import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it } from 'vitest'
import { orderService, Refused } from '../../examples/order-service.ts'
import { startTestBank } from '../support/bank.ts'
import { TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'

/** The order service of the examples against a gateway as it runs: each problem is treated by its advice. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const env = {
  DATABASE_URL: database.url,
  BANK_URL: bank.url,
  BANK_ATTEMPT_TIMEOUT_MS: '5000',
  BANK_QUIET_PERIOD_MS: '200',
  REQUEST_DEADLINE_MS: '2000',
  SWEEP_EVERY_MS: '50',
}
const gateway = await spawnGateway(env)
/** What it was told before the last answer. */
const asked: string[] = []
const ficmart = serviceAt(gateway.url)

/** `onRetry` is told of each advice that it follows. */
function serviceAt(url: string, onRetry: () => void = () => {}) {
  return orderService({
    url: `${url}/graphql`,
    onRetry: ({ code, retry }) => {
      asked.push(`${code} ${retry}`)
      onRetry()
    },
  })
}
const order = (more = {}) => ({
  orderId: randomUUID(),
  customerId: `customer-${randomUUID()}`,
  amountCents: 4_999,
  card: TEST_CARD,
  ...more,
})
const operationsOf = async (orderId: string) => {
  const rows = await database.sql<{ status: string }[]>`
    select o.status from operations o join payments p on p.id = o.payment_id where p.order_id = ${orderId} order by o.id`
  return rows.map(({ status }) => status)
}

async function paid(one = order()) {
  const outcome = await ficmart.placed(one)
  if (outcome.is !== 'done') throw new Error(`expected a payment, got ${outcome.is}`)
  return outcome.payment
}

it('takes an order from placed to returned, and finds its receipts', async () => {
  const one = order()
  const payment = await paid(one)
  expect(await ficmart.shipped(payment)).toMatchObject({ is: 'done', payment: { state: 'CAPTURED' } })
  expect(await ficmart.returned(payment)).toMatchObject({ is: 'done', payment: { state: 'REFUNDED' } })
  expect(await ficmart.returned(payment)).toMatchObject({ is: 'done', replayed: true })
  expect(await ficmart.receipts(one.customerId)).toMatchObject([{ id: payment.id, state: 'REFUNDED' }])
})

it('a refusal that will not change is told once', async () => {
  const payment = await paid()
  expect(await ficmart.cancelled(payment)).toMatchObject({ is: 'done', payment: { state: 'VOIDED' } })
  expect(await ficmart.shipped(payment)).toMatchObject({
    is: 'refused',
    problem: { code: 'INVALID_TRANSITION' },
  })
})

it('NEW_KEY: what was certainly not done is asked for under another key', async () => {
  asked.length = 0
  bank.faults.add('chaos', { endpoint: 'authorizations', times: 4 })
  const one = order()
  expect((await paid(one)).state).toBe('AUTHORIZED')
  expect(asked).toContain('BANK_UNAVAILABLE NEW_KEY')
  expect(await operationsOf(one.orderId)).toEqual(['REFUSED', 'SUCCEEDED'])
})

it('SAME_KEY: what is perhaps done is asked for again, and is done once', async () => {
  asked.length = 0
  const one = order()
  const gate = bank.faults.hold('after-store', { endpoint: 'authorizations', probe: false })
  const patient = serviceAt(gateway.url, () => gate.open())
  expect(await patient.placed(one)).toMatchObject({ is: 'done', payment: { state: 'AUTHORIZED' } })
  expect(new Set(asked)).toEqual(new Set(['OUTCOME_UNKNOWN SAME_KEY']))
  expect(await operationsOf(one.orderId)).toEqual(['SUCCEEDED'])
}, 20_000)

it('WAIT: an order that is being paid elsewhere is asked for later', async () => {
  asked.length = 0
  const one = order()
  const gate = bank.faults.hold('before', { endpoint: 'authorizations', probe: false })
  const first = paid(one)
  await gate.arrived
  const elsewhere = serviceAt(gateway.url, () => gate.open())
  expect(await elsewhere.placed(one)).toMatchObject({
    is: 'refused',
    problem: { code: 'ORDER_ALREADY_HAS_PAYMENT' },
  })
  expect(asked).toContain('ORDER_ALREADY_HAS_PAYMENT WAIT')
  expect((await first).state).toBe('AUTHORIZED')
}, 20_000)

it('a gateway that dies in the middle is asked again when it is back: paid once', async () => {
  const one = order()
  const doomed = await spawnGateway(env)
  const gate = bank.faults.hold('after-store', { endpoint: 'authorizations', probe: false })
  const service = orderService({ url: `${doomed.url}/graphql` })
  const placed = service.placed(one)
  await gate.arrived
  doomed.child.kill('SIGKILL')
  await doomed.exited
  gate.open()
  await spawnGateway({ ...env, PORT: new URL(doomed.url).port })
  expect(await placed).toMatchObject({ is: 'done', payment: { state: 'AUTHORIZED' } })
  expect(await operationsOf(one.orderId)).toEqual(['SUCCEEDED'])
}, 30_000)

it('what is still unknown when its patience ends stays open, under its key', async () => {
  const one = order()
  const hasty = orderService({ url: `${gateway.url}/graphql`, patienceMs: 1_000 })
  const gate = bank.faults.hold('before', { endpoint: 'authorizations', probe: false })
  expect(await hasty.placed(one)).toMatchObject({ is: 'open', problem: { code: 'OUTCOME_UNKNOWN' } })
  gate.open()
  expect(await hasty.placed(one)).toMatchObject({ is: 'done' })
  expect(await operationsOf(one.orderId)).toEqual(['SUCCEEDED'])
}, 20_000)

it('a fault of its own is not tried again', async () => {
  const stranger = orderService({ url: `${gateway.url}/graphql` })
  await expect(stranger.placed({ ...order(), amountCents: 'much' as unknown as number })).rejects.toThrow(
    Refused,
  )
})

it('asks again under the same key after no answer, whatever it was told before', async () => {
  const keys: string[] = []
  const flaky = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => {
      const { variables } = JSON.parse(body) as { variables: { input: { idempotencyKey: string } } }
      keys.push(variables.input.idempotencyKey)
      // Perhaps carried out.
      if (keys.length === 2) {
        request.socket.destroy()
        return
      }
      const told = keys.length === 1 ? { retry: 'NEW_KEY', retryAfterMs: 1 } : { retry: 'DO_NOT_RETRY' }
      response.end(JSON.stringify({ data: { result: { code: 'BANK_UNAVAILABLE', message: '-', ...told } } }))
    })
  }).listen(0, '127.0.0.1')
  await once(flaky, 'listening')
  const { port } = flaky.address() as AddressInfo
  expect(await serviceAt(`http://127.0.0.1:${port}`).placed(order())).toMatchObject({ is: 'refused' })
  flaky.close()
  expect(keys).toEqual([expect.not.stringContaining(keys[1] ?? ''), keys[1], keys[1]])
})

it('takes another card after a decline', async () => {
  const one = order()
  const empty = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
  expect(await ficmart.placed({ ...one, card: empty })).toMatchObject({ is: 'refused' })
  expect(await ficmart.placed(one)).toMatchObject({ is: 'done' })
})
