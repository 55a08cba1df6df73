import { randomBytes } from 'node:crypto'
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

  it('cannot be judged while the login was never there: that is no fault of the customer, and the log says so', async () => {
    const away = await access({ jwksUrl: 'http://127.0.0.1:9/keys' })
    expect(await away.ask(await by(privateKey, { alg: 'ES256', kid: 'now' }))).toMatchObject({
      refused: 'UNAVAILABLE',
    })
    expect(away.logged.join('')).toMatch(/"level":50.*CUSTOMER_JWKS_URL/)
  })
})

describe('the login that publishes its keys', () => {
  const HOUR_MS = 3_600_000
  type Key = { kid?: string; alg?: 'ES256' | 'RS256' }

  /** A login that can be told to hang, to fail and to change its keys. */
  async function login() {
    let answer: 'keys' | 'hangs' | 'fails' = 'keys'
    let fetched = 0
    const published: object[] = []
    const server = createServer((_, response) => {
      fetched += 1
      if (answer === 'hangs') return
      const isWell = answer === 'keys'
      response
        .writeHead(isWell ? 200 : 500)
        .end(isWell ? JSON.stringify({ keys: published }) : 'out of order')
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const publish = async ({ kid, alg = 'ES256' }: Key = {}) => {
      const { publicKey, privateKey } = await generateKeyPair(alg)
      published.push({ ...(await exportJWK(publicKey)), alg, ...(kid !== undefined && { kid }) })
      const header = { alg, ...(kid !== undefined && { kid }) }
      return async (change: JWTPayload = {}) =>
        await new SignJWT({ ...claims(), ...change }).setProtectedHeader(header).sign(privateKey)
    }
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`
    return {
      publish,
      published,
      now: (is: typeof answer) => void (answer = is),
      fetches: () => fetched,
      open: async () => await access({ jwksUrl: url }),
    }
  }
  const errorsIn = (logged: readonly string[]) => logged.filter((line) => line.includes('"level":50'))
  /** Only the wall clock: what the keys' age is judged by, and the tokens'. */
  function clock() {
    const startedMs = Date.now()
    vi.useFakeTimers({ toFake: ['Date'], now: startedMs })
    onTestFinished(() => void vi.useRealTimers())
    return { later: (ms: number) => void vi.setSystemTime(startedMs + ms) }
  }

  it.each(['hangs', 'fails'] as const)(
    'goes away (it %s): known keys go on for hours, at once, with one line in the log; it comes back with another',
    async (how) => {
      const { publish, now: loginNow, fetches, open } = await login()
      const token = await publish({ kid: 'now' })
      const { ask, logged } = await open()
      expect(await ask(await token())).toEqual(CUSTOMER)
      const { later } = clock()
      loginNow(how)
      for (const ms of [11 * 60_000, HOUR_MS, 6 * HOUR_MS, 11.9 * HOUR_MS]) {
        later(ms)
        const startedMs = performance.now()
        expect([ms, await ask(await token()), await ask(await token())]).toEqual([ms, CUSTOMER, CUSTOMER])
        expect(performance.now() - startedMs).toBeLessThan(1_000)
      }
      // The outage is told by the fetch that ended, one that hangs after its 5 s.
      await expect.poll(() => errorsIn(logged).length, { timeout: 10_000 }).toBe(1)
      expect(errorsIn(logged)[0]).toMatch(/CUSTOMER_JWKS_URL.*go on/)

      loginNow('keys')
      later(11.95 * HOUR_MS)
      const before = fetches()
      expect(await ask(await token())).toEqual(CUSTOMER)
      await expect.poll(() => logged.join('')).toContain('can be had again')
      expect(fetches()).toBe(before + 1)
      expect(errorsIn(logged)).toHaveLength(1)
    },
    20_000,
  )

  it('is away for longer than its keys are believed: customers are turned away, each at once', async () => {
    const { publish, now: loginNow, fetches, open } = await login()
    const token = await publish({ kid: 'now' })
    const { ask, logged } = await open()
    expect(await ask(await token())).toEqual(CUSTOMER)
    const { later } = clock()
    loginNow('fails')
    later(12 * HOUR_MS + 1)
    for (let n = 0; n < 20; n += 1) expect(await ask(await token())).toMatchObject({ refused: 'UNAVAILABLE' })
    expect(fetches()).toBe(2)
    expect(errorsIn(logged)).toHaveLength(1)
    loginNow('keys')
    later(12 * HOUR_MS + 20_000)
    expect(await ask(await token())).toEqual(CUSTOMER)
  })

  it('was never there: one fetch and one line for many customers', async () => {
    const { publish, now: loginNow, fetches, open } = await login()
    loginNow('fails')
    const token = await publish({ kid: 'now' })
    const { ask, logged } = await open()
    const all = await Promise.all(Array.from({ length: 20 }, async () => await ask(await token())))
    for (const said of all) expect(said).toMatchObject({ refused: 'UNAVAILABLE' })
    expect([fetches(), errorsIn(logged).length]).toEqual([1, 1])
  })

  it('has several keys without a name: each is tried', async () => {
    const { publish, open } = await login()
    const [one, two, three] = [await publish(), await publish(), await publish({ alg: 'RS256' })]
    const { ask } = await open()
    for (const token of [one, two, three]) expect(await ask(await token())).toEqual(CUSTOMER)
    expect(await ask(await two({ exp: now() - 60 }))).toMatchObject({
      message: expect.stringContaining('it has expired') as string,
    })
    const stranger = await (await login()).publish()
    expect(await ask(await stranger())).toMatchObject({ refused: 'UNAUTHENTICATED' })
  })

  it.each<[string, Key, Key]>([
    ['of another name', { kid: 'one' }, { kid: 'two' }],
    ['of the same name', { kid: 'one' }, { kid: 'one' }],
    ['without a name', {}, {}],
    ['of another algorithm', {}, { alg: 'RS256' }],
  ])('changes its key for one %s, without both at once: nobody is refused', async (_, old, next) => {
    const { publish, published, open } = await login()
    const before = await publish(old)
    const { ask } = await open()
    expect(await ask(await before())).toEqual(CUSTOMER)
    published.pop()
    const after = await publish(next)
    const tokens = await Promise.all(Array.from({ length: 30 }, () => after()))
    const all = await Promise.all(tokens.map((token) => ask(token)))
    expect(all).toEqual(all.map(() => CUSTOMER))
    expect(await ask(await before())).toMatchObject({ refused: 'UNAUTHENTICATED' })
  })

  it('is not flooded by those who sign with keys that it does not have', async () => {
    const { publish, fetches, open } = await login()
    const token = await publish({ kid: 'now' })
    const { ask } = await open()
    const stranger = await login()
    for (let n = 0; n < 50; n += 1) {
      const forged = await stranger.publish({ kid: n % 2 === 0 ? 'now' : `unknown-${n}` })
      expect(await ask(await forged())).toMatchObject({ refused: 'UNAUTHENTICATED' })
    }
    expect(fetches()).toBeLessThanOrEqual(1 + 2)
    expect(await ask(await token())).toEqual(CUSTOMER)
  })

  it('is asked again at once when the clock was set back', async () => {
    const { publish, fetches, open } = await login()
    const token = await publish({ kid: 'now' })
    const { later } = clock()
    later(HOUR_MS)
    const { ask } = await open()
    expect(await ask(await token())).toEqual(CUSTOMER)
    later(0)
    expect(await ask(await token())).toEqual(CUSTOMER)
    await expect.poll(fetches).toBe(2)
  })

  it('takes a key back: it is out with the next look, and nobody waits for that', async () => {
    const { publish, published, open } = await login()
    const [leaked, other] = [await publish({ kid: 'leaked' }), await publish({ kid: 'other' })]
    const { ask } = await open()
    expect(await ask(await leaked())).toEqual(CUSTOMER)
    published.shift()
    const { later } = clock()
    later(10 * 60_000 + 1)
    expect(await ask(await other())).toEqual(CUSTOMER)
    await expect.poll(async () => await ask(await leaked())).toMatchObject({ refused: 'UNAUTHENTICATED' })
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
  it('take a secret that is random, in whatever form', () => {
    for (let n = 0; n < 100; n += 1) {
      for (const secret of [randomBytes(16).toString('hex'), randomBytes(24).toString('base64')])
        expect(readConfig({ ...whole, CUSTOMER_JWT_SECRET: secret })).toMatchObject({
          access: { customerTokens: { signedBy: { secret } } },
        })
    }
  })
  it.each<[Record<string, string>, RegExp]>([
    [{ CUSTOMER_JWT_SECRET: SECRET }, /need CUSTOMER_JWT_ISSUER, CUSTOMER_JWT_AUDIENCE and one of/],
    [{ CUSTOMER_JWT_ISSUER: ISSUER, CUSTOMER_JWT_AUDIENCE: AUDIENCE }, /one of CUSTOMER_JWKS_URL and/],
    [{ ...whole, CUSTOMER_JWKS_URL: 'https://login.example/keys' }, /one of CUSTOMER_JWKS_URL and/],
    [{ ...whole, CUSTOMER_JWT_SECRET: 'short' }, /CUSTOMER_JWT_SECRET: must have 32 characters or more/],
    [{ ...whole, CUSTOMER_JWT_SECRET: 'x'.repeat(32) }, /CUSTOMER_JWT_SECRET: must be random/],
    [{ ...whole, CUSTOMER_JWT_SECRET: 'ab'.repeat(20) }, /CUSTOMER_JWT_SECRET: must be random/],
    [{ ...whole, CUSTOMER_JWT_SECRET: '1234567890'.repeat(4) }, /CUSTOMER_JWT_SECRET: must be random/],
    [
      { ...whole, CUSTOMER_JWT_SECRET: 'abcdefghijklmnopqrstuvwxyz012345' },
      /CUSTOMER_JWT_SECRET: must be ran/,
    ],
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
