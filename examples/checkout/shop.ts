import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SignJWT } from 'jose'

/**
 * FicMart's shop, as far as a checkout needs it: an order, the page to pay it on, and a token that lets a browser pay
 * just that. The card goes from the page to the gateway and never comes by here.
 */
export type ShopOptions = {
  port: number
  /** The gateway's endpoint, as a browser reaches it. */
  gatewayUrl: () => string
  token: TokenSettings
}
/** The same as the gateway's CUSTOMER_JWT_SECRET, _ISSUER and _AUDIENCE. */
export type TokenSettings = { secret: string; issuer: string; audience: string }
export type Checkout = { customerId: string; orderId: string; amountCents: number }
export type Shop = { url: string; close: () => void }

/** Whoever is signed in; here it is always the same. */
const CUSTOMER = 'customer-1'
const BASKET = [
  { title: 'Field notebook, dotted', cents: 1_899 },
  { title: 'Fountain pen, fine', cents: 3_100 },
]
const AMOUNT_CENTS = BASKET.reduce((sum, { cents }) => sum + cents, 0)

export async function startShop({ port, gatewayUrl, token }: ShopOptions): Promise<Shop> {
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`)
      response.writeHead(500).end()
    })
  })

  async function answer({ method, url = '/' }: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(url, 'http://shop')
    const [, orderId] = /^\/orders\/(order-[\w-]{1,60})(?:\/token)?$/.exec(pathname) ?? []
    if (method === 'GET' && pathname === '/') {
      // In a real shop the basket becomes an order here, and is kept.
      response.writeHead(303, { location: `/orders/order-${randomUUID()}` }).end()
    } else if (method === 'GET' && orderId !== undefined && !pathname.endsWith('/token')) {
      await file(response, 'index.html', 'text/html; charset=utf-8', policy(gatewayUrl()))
    } else if (method === 'GET' && pathname === '/checkout.css') {
      await file(response, 'checkout.css', 'text/css; charset=utf-8')
    } else if (method === 'GET' && pathname === '/checkout.js') {
      await file(response, 'checkout.js', 'text/javascript; charset=utf-8')
    } else if (method === 'POST' && orderId !== undefined && pathname.endsWith('/token')) {
      // In a real shop: only for the order of whoever is signed in, with the amount that the shop has on record.
      const checkout = { customerId: CUSTOMER, orderId, amountCents: AMOUNT_CENTS }
      const body = { ...checkout, basket: BASKET, gateway: gatewayUrl(), token: await sign(checkout, token) }
      response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' })
      response.end(JSON.stringify(body))
    } else response.writeHead(404).end()
  }

  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://localhost:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

/** Good for one checkout, for 15 minutes. */
export async function sign(checkout: Checkout, { secret, issuer, audience }: TokenSettings): Promise<string> {
  return await new SignJWT({ order_id: checkout.orderId, amount_cents: checkout.amountCents })
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(checkout.customerId)
    .setIssuer(issuer)
    .setAudience(audience)
    .setIssuedAt()
    .setExpirationTime('15m')
    .sign(new TextEncoder().encode(secret))
}

async function file(response: ServerResponse, name: string, type: string, headers = {}): Promise<void> {
  const text = await readFile(`examples/checkout/page/${name}`)
  response.writeHead(200, { 'content-type': type, 'x-content-type-options': 'nosniff', ...headers }).end(text)
}

/** Nothing of others runs on the page, and nothing goes out of it but to the shop and the gateway. */
function policy(gatewayUrl: string): Record<string, string> {
  const from = `connect-src 'self' ${new URL(gatewayUrl).origin}`
  return {
    'content-security-policy': `default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; ${from}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'`,
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
  }
}
