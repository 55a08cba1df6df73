import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/**
 * The bank of the benchmark, in a process of its own: it speaks as the real one does, but keeps its answers in memory
 * and no ledger, so that what is measured is the gateway. It carries a request out when it arrives; only the answer
 * waits, `answerAfterMs`. What it only looks up (a key that it knows, its health) takes `lookMs`.
 */

export type ToBank = { answerAfterMs: number; lookMs: number } | 'count'
export type FromBank = { url: string } | { carriedOut: number; atOnceMax: number }

let answerAfterMs = 0
let lookMs = 0
let atOnce = 0
let atOnceMax = 0
const answers = new Map<string, string>()

const WORKS: Record<string, (body: Record<string, unknown>) => Record<string, unknown>> = {
  '/api/v1/authorizations': ({ amount }) => ({
    authorization_id: `auth_${randomUUID()}`,
    status: 'approved',
    amount,
    currency: 'USD',
    expires_at: now(EXPIRES_AFTER_MS),
    created_at: now(),
  }),
  '/api/v1/captures': ({ authorization_id, amount }) => ({
    capture_id: `cap_${randomUUID()}`,
    authorization_id,
    status: 'captured',
    amount,
    currency: 'USD',
    captured_at: now(),
  }),
  '/api/v1/voids': ({ authorization_id }) => ({
    void_id: `void_${randomUUID()}`,
    authorization_id,
    status: 'voided',
    voided_at: now(),
  }),
  '/api/v1/refunds': ({ capture_id, amount }) => ({
    refund_id: `ref_${randomUUID()}`,
    capture_id,
    status: 'refunded',
    amount,
    currency: 'USD',
    refunded_at: now(),
  }),
}

const EXPIRES_AFTER_MS = 168 * 3_600_000
const now = (plusMs = 0) => new Date(Date.now() + plusMs).toISOString().replace('Z', '000000+00:00')

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method, url = '' } = request
  const work = WORKS[url]
  if (url === '/health') return later(lookMs, () => send(response, 200, '{"status":"healthy"}'))
  if (work === undefined || method !== 'POST') return send(response, 404, '404 page not found', 'text/plain')
  const key = request.headers['idempotency-key']
  if (typeof key !== 'string' || key === '')
    return send(response, 400, 'Idempotency-Key header is required', 'text/plain')
  const text = await bodyOf(request)
  const known = answers.get(key + url)
  if (known !== undefined) {
    response.setHeader('x-idempotent-replayed', 'true')
    return later(lookMs, () => send(response, 200, known))
  }
  if (text === '') return send(response, 400, "can't decode JSON body: EOF", 'text/plain')

  const done = JSON.stringify(work(JSON.parse(text) as Record<string, unknown>))
  answers.set(key + url, done)
  atOnce += 1
  atOnceMax = Math.max(atOnceMax, atOnce)
  later(answerAfterMs, () => {
    atOnce -= 1
    send(response, 200, done)
  })
}

function later(ms: number, tell: () => void): void {
  if (ms === 0) tell()
  else setTimeout(tell, ms)
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += String(chunk)
  return text
}

function send(response: ServerResponse, status: number, body: string, type = 'application/json'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body)
}

const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  answer(request, response).catch(() => response.destroy())
})
const say = (message: FromBank) => process.send?.(message)
process.on('message', (message: ToBank) => {
  if (message === 'count') {
    say({ carriedOut: answers.size, atOnceMax })
    atOnceMax = atOnce
  } else ({ answerAfterMs, lookMs } = message)
})
process.on('disconnect', () => process.exit())
server.listen({ port: 0, host: '127.0.0.1', backlog: 8_192 }, () =>
  say({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }),
)
