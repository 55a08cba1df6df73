import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Webhook } from 'standardwebhooks'

/** FicMart's end of the webhooks, in the order in which they came, repeats included. */
export type Event = { id: string; paymentId: string; orderId: string; version: number; toState: string }
export type Receiver = {
  /** Settings of a gateway that sends to it. */
  env: Record<string, string>
  events: Event[]
  /** Requests that were not signed by that gateway, or told another story under an id that was known. */
  faulty: string[]
  /** The next event that `fits` is never answered; resolves when it has come. */
  hold(fits: (event: Event) => boolean): Promise<void>
  close(): Promise<void>
}

/** `answers`: false and the gateway is told 503, and sends it again later. */
export async function startReceiver(answers: () => boolean = () => true): Promise<Receiver> {
  const secret = `whsec_${randomBytes(24).toString('base64')}`
  const verifier = new Webhook(secret)
  const events: Event[] = []
  const faulty: string[] = []
  const bodies = new Map<string, string>()
  const held = new Set<{ fits: (event: Event) => boolean; arrive: () => void }>()

  function receive(body: string, headers: Record<string, string>, response: ServerResponse): void {
    if (!answers()) return void response.writeHead(503).end()
    const event = eventOf(verifier.verify(body, headers) as Told)
    if ((bodies.get(event.id) ?? body) !== body) faulty.push(`another body under ${event.id}`)
    bodies.set(event.id, body)
    events.push(event)
    const holding = [...held].find(({ fits }) => fits(event))
    if (holding === undefined) return void response.writeHead(204).end()
    held.delete(holding)
    holding.arrive()
  }

  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => {
      try {
        receive(body, request.headers as Record<string, string>, response)
      } catch (error) {
        faulty.push(String(error))
        response.writeHead(401).end()
      }
    })
    request.on('error', () => {})
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    env: { WEBHOOK_URL: `http://127.0.0.1:${port}/`, WEBHOOK_SECRET: secret },
    events,
    faulty,
    hold: (fits) => new Promise((arrive) => void held.add({ fits, arrive })),
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

type Told = {
  id: string
  data: {
    payment: { id: string; orderId: string }
    transition: { version: number; toState: string }
  }
}

function eventOf({ id, data: { payment, transition } }: Told): Event {
  return { id, paymentId: payment.id, orderId: payment.orderId, ...transition }
}
