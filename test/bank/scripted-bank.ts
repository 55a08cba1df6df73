import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, RequestListener } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import pino from 'pino'
import { onTestFinished } from 'vitest'
import type { BankEndpoint, BankRequest } from '../../src/bank/bank.ts'
import { createBank } from '../../src/bank/client.ts'
import type { BankOptions } from '../../src/bank/client.ts'
import { Card } from '../../src/payment/card.ts'

/** Banks that answer what a test tells them to, on a real port; each ends with its test. */

export type Received = { method: string; url: string; headers: IncomingMessage['headers']; body: string }
export type Scripted = { status?: number; type?: string; headers?: Record<string, string>; body?: string }

export const HEALTHY: Scripted = { body: '{"status":"healthy"}' }

/** A bank that is healthy and answers every other request with what the script returns for it. */
export async function scriptedBank(script: (request: Received) => Scripted | Promise<Scripted>) {
  const received: Received[] = []
  const bank = await httpBank(async (request, response) => {
    const { method = '', url = '', headers } = request
    const got = { method, url, headers, body: await text(request) }
    received.push(got)
    const answer = url.endsWith('/health') ? HEALTHY : await script(got)
    response.writeHead(answer.status ?? 200, {
      'content-type': answer.type ?? 'application/json',
      ...answer.headers,
    })
    response.end(answer.body)
  })
  return { ...bank, received }
}

export async function httpBank(listener: (...args: Parameters<RequestListener>) => unknown) {
  const server = createServer((request, response) => void listener(request, response))
  let connections = 0
  server.on('connection', () => (connections += 1))
  return { url: await listening(server), connections: () => connections }
}

/** A bank without HTTP: what it does once a whole request has come (they are small, one packet each). */
export async function rawBank(onRequest: (socket: Socket, request: string) => void) {
  const requests: string[] = []
  const server = createTcpServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (data) => {
      requests.push(data.toString())
      onRequest(socket, data.toString())
    })
  })
  return { url: await listening(server), requests }
}

async function listening(server: Server): Promise<string> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** The gateway's client of it, with the lines that it logged. */
export function clientOf(baseUrl: string, options: Partial<BankOptions> = {}) {
  const logged: string[] = []
  const log = pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) })
  const bank = createBank({ baseUrl, log, attemptTimeoutMs: 5_000, ...options })
  onTestFinished(() => bank.close())
  return { bank, logged }
}

export const CARD = { number: '4111111111111111', cvv: '739' }
const card = new Card({ ...CARD, brand: 'visa', expiryMonth: 12, expiryYear: 2030 })

const AUTHORIZATION = 'auth_0f8fad5b-d9cb-469f-a165-70867728950e'
const CAPTURE = 'cap_7c9e6679-7425-40de-944b-e07fc1f90ae7'

export const REQUESTS = {
  authorizations: {
    endpoint: 'authorizations',
    body: () => ({ ...card.forBank(), amount: 1234 }),
    expect: { amountCents: 1234, parentId: null },
  },
  captures: {
    endpoint: 'captures',
    body: () => ({ authorization_id: AUTHORIZATION, amount: 1234 }),
    expect: { amountCents: 1234, parentId: AUTHORIZATION },
  },
  voids: {
    endpoint: 'voids',
    body: () => ({ authorization_id: AUTHORIZATION }),
    expect: { amountCents: null, parentId: AUTHORIZATION },
  },
  refunds: {
    endpoint: 'refunds',
    body: () => ({ capture_id: CAPTURE, amount: 1234 }),
    expect: { amountCents: 1234, parentId: CAPTURE },
  },
} satisfies Record<string, BankRequest>

/** The bank's own 200 to each of them. */
export const DONE = {
  authorizations: {
    authorization_id: AUTHORIZATION,
    status: 'approved',
    amount: 1234,
    currency: 'USD',
    expires_at: '2026-11-30T19:25:01.123456789+01:00',
    created_at: '2026-11-23T19:25:01.123456789+01:00',
  },
  captures: {
    capture_id: CAPTURE,
    authorization_id: AUTHORIZATION,
    status: 'captured',
    amount: 1234,
    currency: 'USD',
    captured_at: '2026-11-23T19:25:02Z',
  },
  voids: {
    void_id: 'void_1c9e6679-7425-40de-944b-e07fc1f90ae7',
    authorization_id: AUTHORIZATION,
    status: 'voided',
    voided_at: '2026-11-23T19:25:03.5Z',
  },
  refunds: {
    refund_id: 'ref_2c9e6679-7425-40de-944b-e07fc1f90ae7',
    capture_id: CAPTURE,
    status: 'refunded',
    amount: 1234,
    currency: 'USD',
    refunded_at: '2026-11-23T19:25:04.000001Z',
  },
}

export const ALL: BankEndpoint[] = ['authorizations', 'captures', 'voids', 'refunds']

/** The bank's refusal. */
export function refusal(status: number, error: string, message = 'a message of the bank'): Scripted {
  return { status, body: JSON.stringify({ error, message }) }
}

/** What the bank says before it has understood the request. */
export function plain(body: string): Scripted {
  return { status: 400, type: 'text/plain; charset=utf-8', body }
}

export function done(endpoint: BankEndpoint, other: Record<string, unknown> = {}): Scripted {
  return { body: JSON.stringify({ ...DONE[endpoint], ...other }) }
}

export function replayed(answer: Scripted): Scripted {
  return { ...answer, headers: { 'X-Idempotent-Replayed': 'true' } }
}
