import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { payloadOf } from '../../src/events/receiver.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import type { WebhookEvent } from '../support/receiver.ts'

/** What docs/api.md tells FicMart's developers to paste, pasted. */

const root = fileURLToPath(new URL('../..', import.meta.url))
const doc = await readFile(`${root}docs/api.md`, 'utf8')
const blocks = (language: string) =>
  [...doc.matchAll(/```(\w+)\n(.*?)```/gs)]
    .filter((block) => block[1] === language)
    .map((block) => block[2] ?? '')
const [receiverCode = '', followCode = ''] = blocks('js')
const [payloadShown = ''] = blocks('json')
const [curl = ''] = blocks('sh')

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
const port = await freePort()
const receiver = run(process.execPath, ['--input-type=module', '-e', receiverCode], {
  PORT: String(port),
  WEBHOOK_SECRET: secret,
})
const gateway = await spawnGateway({
  DATABASE_URL: database.url,
  BANK_URL: bank.url,
  WEBHOOK_URL: `http://127.0.0.1:${port}/`,
  WEBHOOK_SECRET: secret,
})
const url = `${gateway.url}/graphql`

/** The lines that a program prints. */
function run(command: string, args: string[], env: Record<string, string> = {}) {
  const child = spawn(command, args, { cwd: root, env: { PATH: process.env['PATH'], ...env } })
  child.stderr.on('data', (chunk: Buffer) => process.stderr.write(chunk))
  whenFileEnds(() => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    next: async (fits: RegExp) => {
      for (;;) {
        const { value, done } = await lines.next()
        if (done === true) throw new Error(`it ended before it said ${fits.source}`)
        if (fits.test(value)) return value
      }
    },
  }
}

it('the webhook receiver takes what is signed, in order, and nothing else', async () => {
  await authorized(gateway.client, { orderId: 'order-9' })
  expect(await receiver.next(/./)).toBe('payment.pending order-9 PENDING new')
  expect(await receiver.next(/./)).toBe('payment.authorized order-9 AUTHORIZED new')
  const forged = await fetch(`http://127.0.0.1:${port}/`, {
    method: 'POST',
    body: payloadShown,
    headers: {
      'webhook-id': 'evt_1',
      'webhook-timestamp': String(Math.floor(Date.now() / 1000)),
      'webhook-signature': 'v1,AAAA',
    },
  })
  expect(forged.status).toBe(401)
})

it('the payload is as shown', () => {
  const shown = JSON.parse(payloadShown) as WebhookEvent & {
    data: { transition: { at: string; bankAt: string } }
  }
  const { payment, transition } = shown.data
  const payload = payloadOf({
    paymentId: payment.id.slice(4),
    version: transition.version,
    attempts: 1,
    fromState: 'AUTHORIZED',
    toState: 'CAPTURED',
    at: new Date(transition.at),
    bankAt: new Date(transition.bankAt),
    orderId: payment.orderId,
    customerId: 'customer-1',
    amountCents: 4_999,
    currency: 'USD',
    cardBrand: 'visa',
    cardLast4: '1111',
  })
  expect(JSON.parse(payload)).toEqual(shown)
})

it('the stream follows an order, by curl and in a page', async () => {
  const watched = [
    run('sh', ['-c', curl.replace('http://localhost:4000/graphql', url)]),
    run(process.execPath, [
      '-e',
      `${followCode}; follow('${url}', 'order-1', (payment) => console.log(JSON.stringify(payment)))`,
    ]),
  ]
  const { id } = await authorized(gateway.client, { orderId: 'order-1' })
  for (const lines of watched) await lines.next(/"state":"AUTHORIZED","version":2/)
  await gateway.client.void({ paymentId: id })
  for (const lines of watched) expect(await lines.next(/"state":"VOIDED","version":3/)).toContain(id)
})
