import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { base64url, exportJWK, exportSPKI, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose'
import type { JWTPayload } from 'jose'
import { pino } from 'pino'
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { openAccess } from '../../src/access/access.ts'
import type { CustomerTokenSettings } from '../../src/access/customer-token.ts'
import { StartRefused, readConfig } from '../../src/config.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** Customers' tokens as FicMart's login signs them, and as everybody else would like to. */

const SECRET = 'a secret that the login shares with the gateway'
const ISSUER = 'https://login.ficmart.example'
const AUDIENCE = 'payment-gateway'
const bytes = (text: string) => new TextEncoder().encode(text)
const now = () => Math.floor(Date.now() / 1000)
const claims = (): JWTPayload => ({
  iss: ISSUER,
  aud: AUDIENCE,
  sub: 'customer-1',
  order_id: 'order-1',
  amount_cents: 4_999,
  iat: now(),
  exp: now() + 300,
})
const signed = async (payload: Record<string, unknown>, secret = SECRET, alg = 'HS256') =>
  await new SignJWT(payload).setProtectedHeader({ alg }).sign(bytes(secret))

async function access(signedBy: CustomerTokenSettings['signedBy']) {
  const logged: string[] = []
  const { whoAsks, close } = await openAccess(
    {
      production: false,
      host: '127.0.0.1',
      apiKeys: [`shop:service:${'0'.repeat(64)}`],
      apiKeysFile: '/nowhere/keys',
      openToNetwork: false,
      customerTokens: { issuer: ISSUER, audience: AUDIENCE, signedBy },
    },
    pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) }),
  )
  whenFileEnds(close)
  const ask = async (token: string, scheme = 'Bearer') =>
    await whoAsks(new Request('http://gateway', { headers: { authorization: `${scheme} ${token}` } }))
  return { ask, logged }
}

const CUSTOMER = {
  client: 'customer:customer-1',
  role: 'customer',
  customer: { id: 'customer-1', orderId: 'order-1', amountCents: 4_999 },
  until: expect.any(Function) as () => AbortSignal,
}

describe('signed by a shared secret', async () => {
  const { ask, logged } = await access({ secret: SECRET })

  it('is the customer, for the order and the amount', async () => {
    expect(await ask(await signed(claims()))).toEqual(CUSTOMER)
    expect(await ask(await signed({ ...claims(), aud: ['other', AUDIENCE] }))).toEqual(CUSTOMER)
  })

  it.each([
    ['expires', { iat: 0, exp: 300 }, 300],
    ['expires, by dates with fractions', { iat: 0.1234567, exp: 299.7654321 }, 299.766],
    ['is a quarter of an hour old', { iat: -600, exp: 86_400 }, 300],
    ['is judged by a clock that is behind', { iat: -901, exp: 300 }, -1],
  ])('is theirs until it %s', async (_, { iat, exp }, seconds) => {
    vi.useFakeTimers({ toFake: ['Date'], now: 1_800_000_000_000 })
    const timeout = vi.spyOn(AbortSignal, 'timeout')
    onTestFinished(() => void [timeout.mockRestore(), vi.useRealTimers()])
    const who = await ask(await signed({ ...claims(), iat: now() + iat, exp: now() + exp }))
    if ('refused' in who) throw new Error(who.message)
    // What the platform refuses is thrown here. By 5 s more, since clocks differ.
    who.until()
    expect(timeout).toHaveBeenLastCalledWith((seconds + 5) * 1_000)
  })

  it.each<[string, (good: JWTPayload) => Record<string, unknown>, string]>([
    ['has expired', (good) => ({ ...good, exp: now() - 60 }), 'it has expired: get a new one from the login'],
    ['never expires', (good) => ({ ...good, exp: undefined }), 'its claim exp'],
    ['does not say when it was made', (good) => ({ ...good, iat: undefined }), 'its claim iat'],
    [
      'was made more than a quarter of an hour ago, whatever its exp',
      (good) => ({ ...good, iat: now() - 16 * 60, exp: now() + 86_400 }),
      'it has expired',
    ],
    [
      'will be made tomorrow',
      (good) => ({ ...good, iat: now() + 86_400, exp: now() + 86_500 }),
      'its claim iat',
    ],
    ['is not good yet', (good) => ({ ...good, nbf: now() + 60 }), 'its claim nbf'],
    ['is of another login', (good) => ({ ...good, iss: 'https://login.example' }), 'its claim iss'],
    ['is for somebody else', (good) => ({ ...good, aud: 'shop' }), 'its claim aud'],
    ['is for nobody', (good) => ({ ...good, aud: undefined }), 'its claim aud'],
    ['has no customer', (good) => ({ ...good, sub: undefined }), 'its claim sub'],
    ['has an empty customer', (good) => ({ ...good, sub: '' }), 'its claim sub'],
    ['has an invisible customer', (good) => ({ ...good, sub: 'a\u0000b' }), 'its claim sub'],
    ['has no order', (good) => ({ ...good, order_id: undefined }), 'its claim order_id'],
    ['has an order that is a number', (good) => ({ ...good, order_id: 1 }), 'its claim order_id'],
    ['has no amount', (good) => ({ ...good, amount_cents: undefined }), 'its claim amount_cents'],
    ['has an amount as a text', (good) => ({ ...good, amount_cents: '4999' }), 'its claim amount_cents'],
    ['has a fraction of a cent', (good) => ({ ...good, amount_cents: 49.99 }), 'its claim amount_cents'],
    ['has nothing to pay', (good) => ({ ...good, amount_cents: 0 }), 'its claim amount_cents'],
  ])('is not accepted when it %s', async (_, change, reason) => {
    const said = await ask(await signed(change(claims())))
    expect(said).toMatchObject({
      refused: 'UNAUTHENTICATED',
      message: expect.stringContaining(reason) as string,
    })
    expect(JSON.stringify(said)).not.toMatch(/customer-1|order-1|shop|login\.example/)
  })

  it('is not accepted when it is not signed by it', async () => {
    const good = await signed(claims())
    const [head = '', body = '', signature = ''] = good.split('.')
    const richer = base64url.encode(JSON.stringify({ ...claims(), amount_cents: 1 }))
    const forged = [
      await signed(claims(), 'another secret, as long as the true one was'),
      await signed(claims(), SECRET, 'HS512'),
      new UnsecuredJWT(claims()).encode(),
      `${head}.${richer}.${signature}`,
      `${base64url.encode('{"alg":"none"}')}.${body}.`,
      `${base64url.encode('{"alg":"nOnE"}')}.${body}.`,
      `${head}.${body}.${signature.slice(0, -2)}`,
      `${head}.${body}.`,
      'aaaa.bbbb.cccc',
    ]
    for (const token of forged)
      expect([token, await ask(token)]).toMatchObject([token, { refused: 'UNAUTHENTICATED' }])
    expect(await ask(good, 'Basic')).toMatchObject({ refused: 'UNAUTHENTICATED' })
    expect(logged.join('')).not.toContain('"level":50')
  })
})

describe('signed by a key that the login publishes', async () => {
  const { publicKey, privateKey } = await generateKeyPair('ES256')
  const next = await generateKeyPair('RS256')
  const published: unknown[] = [{ ...(await exportJWK(publicKey)), kid: 'now', alg: 'ES256', use: 'sig' }]
  let fetched = 0
  const login = createServer((_, response) => {
    fetched += 1
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: published }))
  }).listen(0, '127.0.0.1')
  await once(login, 'listening')
  afterAll(() => login.close())
  const jwksUrl = `http://127.0.0.1:${(login.address() as AddressInfo).port}/keys`
  const { ask } = await access({ jwksUrl })
  const by = async (key: typeof privateKey, header: { alg: string; kid: string }) =>
    await new SignJWT(claims()).setProtectedHeader(header).sign(key)

  it('is the customer; the keys are fetched once for many', async () => {
    const token = await by(privateKey, { alg: 'ES256', kid: 'now' })
    expect([await ask(token), await ask(token), await ask(token)]).toEqual([CUSTOMER, CUSTOMER, CUSTOMER])
    expect(fetched).toBe(1)
  })

  it('is not accepted when it is signed by another, or with what everybody knows', async () => {
    const spki = await exportSPKI(publicKey)
    const forged = [
      await by(next.privateKey, { alg: 'RS256', kid: 'next' }),
      await by((await generateKeyPair('ES256')).privateKey, { alg: 'ES256', kid: 'now' }),
      // The public key taken for a shared secret.
      await signed(claims(), spki),
      await signed(claims(), JSON.stringify(published[0])),
      new UnsecuredJWT(claims()).encode(),
    ]
    for (const token of forged) expect(await ask(token)).toMatchObject({ refused: 'UNAUTHENTICATED' })
  })

  it('follows the login to its next key', async () => {
    published.push({ ...(await exportJWK(next.publicKey)), kid: 'next', alg: 'RS256' })
    const later = await access({ jwksUrl })
    expect(await later.ask(await by(next.privateKey, { alg: 'RS256', kid: 'next' }))).toEqual(CUSTOMER)
  })

  it('cannot be judged while the login is away: that is no fault of the customer, and the log says so', async () => {
    const away = await access({ jwksUrl: 'http://127.0.0.1:9/keys' })
    expect(await away.ask(await by(privateKey, { alg: 'ES256', kid: 'now' }))).toMatchObject({
      refused: 'UNAVAILABLE',
    })
    expect(away.logged.join('')).toMatch(/"level":50.*CUSTOMER_JWKS_URL/)
  })
})

describe('settings', () => {
  const whole = { CUSTOMER_JWT_SECRET: SECRET, CUSTOMER_JWT_ISSUER: ISSUER, CUSTOMER_JWT_AUDIENCE: AUDIENCE }
  const production = {
    NODE_ENV: 'production',
    DATABASE_URL: 'postgres://localhost/x',
    BANK_URL: 'http://localhost:1',
  }
  it('are whole, or there are no customers', () => {
    expect(readConfig({}).access.customerTokens).toBeNull()
    expect(readConfig(whole).access.customerTokens).toEqual({
      issuer: ISSUER,
      audience: AUDIENCE,
      signedBy: { secret: SECRET },
    })
  })
  it.each<[Record<string, string>, RegExp]>([
    [{ CUSTOMER_JWT_SECRET: SECRET }, /need CUSTOMER_JWT_ISSUER, CUSTOMER_JWT_AUDIENCE and one of/],
    [{ CUSTOMER_JWT_ISSUER: ISSUER, CUSTOMER_JWT_AUDIENCE: AUDIENCE }, /one of CUSTOMER_JWKS_URL and/],
    [{ ...whole, CUSTOMER_JWKS_URL: 'https://login.example/keys' }, /one of CUSTOMER_JWKS_URL and/],
    [{ ...whole, CUSTOMER_JWT_SECRET: 'short' }, /CUSTOMER_JWT_SECRET: must have 32 characters or more/],
    [
      { ...whole, ...production, CUSTOMER_JWT_SECRET: '', CUSTOMER_JWKS_URL: 'http://login.example/keys' },
      /must be https in production/,
    ],
  ])('are refused at the start: %j', (env, message) => {
    expect(() => readConfig(env)).toThrow(StartRefused)
    expect(() => readConfig(env)).toThrow(message)
    expect(() => readConfig(env)).not.toThrow(/short|shares with/)
  })
})
