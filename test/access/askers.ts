import { createServer } from '../../src/graphql/server.ts'
import type { ServerOptions } from '../../src/graphql/server.ts'
import type { Who } from '../../src/access/who.ts'
import type { Gateway } from '../../src/gateway.ts'
import { client } from '../support/client.ts'
import type { Client } from '../support/client.ts'
import { noEnd, serving } from '../support/gateway.ts'

/** One of each who may ask: of customers two, of whom the first is the one who pays. */
export const CHECKOUT = { customerId: 'customer-1', orderId: 'order-1', amountCents: 4_999 }
const customer = (id: string): Who => ({
  client: `customer:${id}`,
  role: 'customer',
  customer: { id, orderId: CHECKOUT.orderId, amountCents: CHECKOUT.amountCents },
  until: noEnd,
})
export const ASKERS = {
  service: { client: 'ficmart', role: 'service', customer: null, until: noEnd },
  ops: { client: 'desk', role: 'ops', customer: null, until: noEnd },
  customer: customer(CHECKOUT.customerId),
  stranger: customer('customer-2'),
  dev: { client: 'dev', role: 'dev', customer: null, until: noEnd },
} as const satisfies Record<string, Who>
export type Asker = keyof typeof ASKERS
export const ASKER_NAMES = Object.keys(ASKERS) as Asker[]

/** The API as main serves it, but that who asks is said by the test. */
export function serverFor(gateway: Gateway, who: Who, options: Partial<ServerOptions> = {}) {
  return createServer(gateway, { ...serving(), whoAsks: async () => who, ...options })
}

export function clientFor(gateway: Gateway, who: Who, options: Partial<ServerOptions> = {}): Client {
  const server = serverFor(gateway, who, options)
  return client('http://gateway/graphql', { fetch: (url, init) => server.fetch(url, init) })
}
