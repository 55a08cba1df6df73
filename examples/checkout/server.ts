import { randomBytes } from 'node:crypto'
import { findOrStartGateway } from '../gateway.ts'
import type { GatewayInUse } from '../gateway.ts'
import { sign, startShop } from './shop.ts'
import type { TokenSettings } from './shop.ts'

/** `npm run checkout`: the shop, before the gateway at GATEWAY_URL, or one that runs here, or one that it starts. */
async function main(): Promise<void> {
  const { env } = process
  const token: TokenSettings = {
    secret: env['CUSTOMER_JWT_SECRET'] ?? randomBytes(32).toString('hex'),
    issuer: env['CUSTOMER_JWT_ISSUER'] ?? 'https://login.ficmart.example',
    audience: env['CUSTOMER_JWT_AUDIENCE'] ?? 'payments',
  }
  let gateway: GatewayInUse | null = null
  const shop = await startShop({
    port: Number(env['SHOP_PORT'] ?? 4100),
    gatewayUrl: () => gateway?.url ?? 'http://localhost:4000/graphql',
    token,
  })
  const settings = {
    CUSTOMER_JWT_SECRET: token.secret,
    CUSTOMER_JWT_ISSUER: token.issuer,
    CUSTOMER_JWT_AUDIENCE: token.audience,
    CORS_ORIGINS: shop.url,
  }
  const stopped = new Promise((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve))
  try {
    gateway = await findOrStartGateway(async (url) => {
      if (await takesOurCustomers(url, shop.url, token)) return null
      const known = Object.keys(settings).join(', ')
      return `The gateway at ${url} does not know this shop's customers (it must be started with the shop's ${known})`
    }, settings)
    process.stdout.write(`
  The shop      ${shop.url}
  The gateway   ${gateway.url}${gateway.isOwn ? '   (its own; nothing of it stays)' : ''}

  Cards of the simulated bank: 4111 1111 1111 1111, CVV 123, 12/2030 pays; 5555 5555 5555 4444, CVV 789, 09/2030 has
  nothing on it. The bank loses its next answer: curl -d '{"what":"drop-after-store","endpoint":"authorizations"}' ${gateway.bankUrl}/simulator/faults

  Ctrl-C ends it.
`)
    await stopped
  } finally {
    shop.close()
    await gateway?.stop()
  }
}

/** Shown a customer's token from the shop's origin, it refuses what is not for customers, and the browser may hear it. */
async function takesOurCustomers(
  gatewayUrl: string,
  shopUrl: string,
  token: TokenSettings,
): Promise<boolean> {
  const checkout = { customerId: 'nobody', orderId: 'none', amountCents: 1 }
  const response = await fetch(gatewayUrl, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      origin: shopUrl,
      authorization: `Bearer ${await sign(checkout, token)}`,
    },
    body: JSON.stringify({ query: '{ __schema { queryType { name } } }' }),
  })
  const { errors = [] } = (await response.json()) as { errors?: { extensions: { code: string } }[] }
  return (
    errors[0]?.extensions.code === 'FORBIDDEN' &&
    response.headers.get('access-control-allow-origin') === shopUrl
  )
}

main().then(
  () => process.exit(),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  },
)
