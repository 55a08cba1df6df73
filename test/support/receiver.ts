import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Webhook } from 'standardwebhooks'
import { whenFileEnds } from './leaving.ts'

/** What FicMart's back end receives, verified by the scheme's own library. */
export type Received = { id: string; body: string; event: WebhookEvent; answer: (status: number) => void }
export type WebhookEvent = {
  id: string
  type: string
  timestamp: string
  data: {
    payment: { id: string; orderId: string; state: string; version: number }
    transition: { version: number; fromState: string | null; toState: string }
  }
}

/** FicMart's end of the webhooks: a real server. It answers what `answers` says, which is 204 until told otherwise. */
export async function startReceiver() {
  const secret = `whsec_${randomBytes(24).toString('base64')}`
  const verifier = new Webhook(secret)
  const received: Received[] = []
  const unverified: string[] = []
  const waiters = new Set<() => void>()
  const receiver = {
    secret,
    received,
    /** Bodies whose signature was wrong. */
    unverified,
    /** A status, or null to leave it to the test to call `answer`. */
    answers: (() => 204) as (received: Received) => number | null,
    /** Sent with each answer. */
    headers: {} as Record<string, string>,
    /** Resolves when what was received fits. */
    until: async (fits: (received: readonly Received[]) => boolean) => {
      while (!fits(received)) await new Promise<void>((resolve) => void waiters.add(resolve))
    },
  }
  const http = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => receive(body, request.headers as Record<string, string>, response))
  }).listen(0, '127.0.0.1')
  await once(http, 'listening')
  whenFileEnds(() => {
    http.closeAllConnections()
    http.close()
  })

  function receive(body: string, headers: Record<string, string>, response: ServerResponse): void {
    const answer = (status: number) => {
      if (!response.headersSent)
        response.writeHead(status, { location: '/elsewhere', ...receiver.headers }).end()
    }
    let event: WebhookEvent
    try {
      event = verifier.verify(body, headers) as WebhookEvent
    } catch {
      unverified.push(body)
      return answer(401)
    }
    const one = { id: headers['webhook-id'] ?? '', body, event, answer }
    received.push(one)
    const status = receiver.answers(one)
    if (status !== null) answer(status)
    for (const wake of waiters) wake()
    waiters.clear()
  }

  const { port } = http.address() as AddressInfo
  return Object.assign(receiver, {
    port,
    url: `http://127.0.0.1:${port}/webhooks?from=gateway`,
    /** Nobody listens there any more. */
    goDown: async () => {
      http.closeAllConnections()
      await new Promise((resolve) => http.close(resolve))
    },
    comeBack: async () => {
      http.listen(port, '127.0.0.1')
      await once(http, 'listening')
    },
  })
}
export type TestReceiver = Awaited<ReturnType<typeof startReceiver>>
