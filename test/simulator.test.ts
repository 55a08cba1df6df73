import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import type { IncomingHttpHeaders } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { FAULT_KINDS } from '../src/simulator/faults.ts'
import type { FaultKind } from '../src/simulator/faults.ts'
import { prepareLedger, purgeStoredAnswers } from '../src/simulator/ledger.ts'
import { startTestBank } from './support/bank.ts'
import { testDatabase } from './support/database.ts'

/** Each promise and each trap of the bank contract, asked of the simulator over HTTP, by the contract's own words. */

const bank = await startTestBank()
const SETTINGS = { ...bank.settings }

beforeEach(async () => {
  Object.assign(bank.settings, SETTINGS)
  bank.faults.clear()
  bank.received.length = 0
  await bank.sql`truncate transactions, idempotency_keys, accounts`
  await prepareLedger(bank.sql)
})

/** Whatever a test did: nothing is available that is held. */
afterEach(async () => {
  const wrong = await bank.sql`
    select right(card_number, 4) as card, balance_cents, available_cents from accounts
    where available_cents <> balance_cents - (
      select coalesce(sum(amount_cents), 0) from transactions
      where type = 'AUTHORIZATION' and status = 'ACTIVE' and card_number = accounts.card_number)`
  if (wrong.length > 0) throw new Error(`balances do not add up: ${JSON.stringify(wrong)}`)
})

type Reply = { status: number; headers: IncomingHttpHeaders; text: string; body: Record<string, unknown> }
type Options = {
  key?: string | string[]
  body?: unknown
  text?: string
  headers?: Record<string, string>
  url?: string
}

/** node:http, since fetch hides doubled headers, doubled slashes and how a connection ended. */
function send(method: string, path: string, options: Options = {}) {
  const {
    key,
    body,
    text = body === undefined ? '' : JSON.stringify(body),
    headers,
    url = bank.url,
  } = options
  const outgoing = request(new URL(url).origin, {
    path,
    method,
    headers: { ...(key === undefined ? {} : { 'idempotency-key': key }), ...headers },
  })
  const reply = new Promise<Reply>((resolve, reject) => {
    outgoing.on('error', reject).on('response', (incoming) => {
      let text = ''
      incoming.on('data', (chunk: Buffer) => (text += chunk.toString()))
      incoming.on('error', reject).on('end', () => {
        const isJson = /^\{.*\}$/.test(text)
        const body = isJson ? (JSON.parse(text) as Record<string, unknown>) : {}
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text, body })
      })
    })
  })
  outgoing.end(text)
  return Object.assign(reply, { hangUp: () => outgoing.destroy() })
}

const post = (endpoint: string, key: string, body?: unknown) =>
  send('POST', `/api/v1/${endpoint}`, { key, body })
const probe = (endpoint: string, key: string) => post(endpoint, key)
const get = (path: string) => send('GET', path)

const CARD = { card_number: '4111111111111111', cvv: '123', expiry_month: 12, expiry_year: 2030 }
const POOR = { card_number: '4242424242424242', cvv: '456', expiry_month: 6, expiry_year: 2030 }
const EMPTY = { card_number: '5555555555554444', cvv: '789', expiry_month: 9, expiry_year: 2030 }
const EXPIRED = { card_number: '5105105105105100', cvv: '321', expiry_month: 3, expiry_year: 2020 }

let count = 0
const newKey = () => `key-${(count += 1)}`
async function authorized(amount = 100, card = CARD): Promise<string> {
  const { body } = await post('authorizations', newKey(), { ...card, amount })
  return String(body['authorization_id'])
}
async function captured(amount = 100): Promise<string> {
  const id = await authorized(amount)
  return String((await post('captures', newKey(), { authorization_id: id, amount })).body['capture_id'])
}

/** What each POST needs, and the ledger's word for it. */
const POSTS = [
  {
    endpoint: 'authorizations',
    type: 'AUTHORIZATION',
    body: () => Promise.resolve({ ...CARD, amount: 100 }),
    again: 'done',
  },
  {
    endpoint: 'captures',
    type: 'CAPTURE',
    body: async () => ({ authorization_id: await authorized(), amount: 100 }),
    again: 'authorization_already_used',
  },
  {
    endpoint: 'voids',
    type: 'VOID',
    body: async () => ({ authorization_id: await authorized() }),
    again: 'authorization_already_used',
  },
  {
    endpoint: 'refunds',
    type: 'REFUND',
    body: async () => ({ capture_id: await captured(), amount: 100 }),
    again: 'already_refunded',
  },
] as const

const NANOSECONDS = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\+00:00$/) as unknown
const isId = (prefix: string) =>
  expect.stringMatching(new RegExp(`^${prefix}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)) as unknown
const isRefused = (status: number, error: string, message = '') => ({
  status,
  body: { error, message: expect.stringContaining(message) as unknown },
})
const isPlain = (status: number, text: string) => ({
  status,
  headers: { 'content-type': 'text/plain; charset=utf-8' },
  text: expect.stringContaining(text) as unknown,
})
const NOT_STORED = isPlain(400, "can't decode JSON body: EOF")
const CUT = { code: 'ECONNRESET' }

describe('the four calls', () => {
  it('an authorization holds the amount', async () => {
    expect((await post('authorizations', 'k', { ...CARD, amount: 4_999 })).body).toEqual({
      authorization_id: isId('auth'),
      status: 'approved',
      amount: 4_999,
      currency: 'USD',
      expires_at: NANOSECONDS,
      created_at: NANOSECONDS,
    })
    expect(await bank.account()).toEqual({ balance: 1_000_000, available: 995_001 })
  })

  it('a capture takes it, a refund gives it back', async () => {
    const authorization = await authorized(4_999)
    const capture = await post('captures', 'k', { authorization_id: authorization, amount: 4_999 })
    expect(capture.body).toEqual({
      capture_id: isId('cap'),
      authorization_id: authorization,
      status: 'captured',
      amount: 4_999,
      currency: 'USD',
      captured_at: NANOSECONDS,
    })
    expect(await bank.account()).toEqual({ balance: 995_001, available: 995_001 })
    const id = capture.body['capture_id']
    expect((await post('refunds', 'k', { capture_id: id, amount: 4_999 })).body).toEqual({
      refund_id: isId('ref'),
      capture_id: id,
      status: 'refunded',
      amount: 4_999,
      currency: 'USD',
      refunded_at: NANOSECONDS,
    })
    expect(await bank.account()).toEqual({ balance: 1_000_000, available: 1_000_000 })
  })

  it('a void releases it, and has no amount', async () => {
    const authorization = await authorized()
    expect((await post('voids', 'k', { authorization_id: authorization })).body).toEqual({
      void_id: isId('void'),
      authorization_id: authorization,
      status: 'voided',
      voided_at: NANOSECONDS,
    })
    expect(await bank.account()).toEqual({ balance: 1_000_000, available: 1_000_000 })
  })

  it.each(POSTS.filter(({ endpoint }) => endpoint !== 'voids'))(
    'GET of $endpoint is the same, with times rounded to microseconds',
    async ({ endpoint, body }) => {
      const posted = (await post(endpoint, 'k', await body())).body
      const got = (await get(`/api/v1/${endpoint}/${String(Object.values(posted)[0])}`)).body
      expect(Object.keys(got)).toEqual(Object.keys(posted))
      for (const [name, value] of Object.entries(posted)) {
        if (!name.endsWith('_at')) expect(got[name]).toBe(value)
        else {
          expect(got[name]).toMatch(/\.\d{6}Z$/)
          const apart = nanoseconds(got[name]) - nanoseconds(value)
          expect(apart >= -500n && apart <= 500n).toBe(true)
        }
      }
    },
  )

  it.each(['voids', 'captures'])('GET of an authorization says approved for ever: %s', async (endpoint) => {
    const id = await authorized()
    await post(endpoint, 'k', { authorization_id: id, amount: 100 })
    expect((await get(`/api/v1/authorizations/${id}`)).body).toMatchObject({ status: 'approved' })
  })

  it('/health is healthy', async () => {
    expect(await get('/health')).toMatchObject({ status: 200, body: { status: 'healthy' } })
  })
})

function nanoseconds(time: unknown): bigint {
  const [, second = '', fraction = ''] = /^(.{19})\.(\d+)/.exec(String(time)) ?? []
  return BigInt(Date.parse(`${second}Z`)) * 1_000_000n + BigInt(fraction.padEnd(9, '0'))
}

describe('refusals, with no money moved', () => {
  const cards = {
    'the card is unknown': [
      { ...CARD, card_number: '4012888888881881' },
      400,
      'invalid_card',
      'card not found or invalid',
    ],
    'the number fails Luhn': [
      { ...CARD, card_number: '4111111111111112' },
      400,
      'invalid_card',
      'invalid card number',
    ],
    'the number has 12 digits': [
      { ...CARD, card_number: '411111111116' },
      400,
      'invalid_card',
      'invalid card number',
    ],
    'the number has spaces': [
      { ...CARD, card_number: '4111 1111 1111 1111' },
      400,
      'invalid_card',
      'invalid card number',
    ],
    'the CVV is another': [{ ...CARD, cvv: '124' }, 400, 'invalid_cvv'],
    'the CVV has 2 digits': [{ ...CARD, cvv: '12' }, 400, 'invalid_cvv'],
    'the amount is 0': [{ ...CARD, amount: 0 }, 400, 'invalid_amount'],
    'the account has expired': [EXPIRED, 400, 'card_expired'],
    // The request's expiry is not compared with the card's.
    'the account has expired, the request says 2030': [
      { ...EXPIRED, expiry_year: 2030 },
      400,
      'card_expired',
    ],
    'the balance is 0': [EMPTY, 402, 'insufficient_funds'],
    'the balance is too low': [{ ...POOR, amount: 50_001 }, 402, 'insufficient_funds'],
    'the body is null': [null, 400, 'invalid_card'],
  } as const
  it.each(Object.entries(cards))('authorize, %s', async (_, [body, status, error, message]) => {
    const sent = body === null ? null : { amount: 100, ...body }
    expect(await post('authorizations', 'k', sent)).toMatchObject(isRefused(status, error, message))
    expect(await bank.transactions()).toEqual([])
  })

  const others = {
    'a capture of nothing': ['captures', () => ({ authorization_id: 'auth_1' }), 'authorization_not_found'],
    'a void of nothing': ['voids', () => ({ authorization_id: 'auth_1' }), 'authorization_not_found'],
    'a refund of nothing': ['refunds', () => ({ capture_id: 'cap_1' }), 'capture_not_found'],
    'a refund of an authorization': [
      'refunds',
      async () => ({ capture_id: await authorized() }),
      'capture_not_found',
    ],
    'a capture in part': [
      'captures',
      async () => ({ authorization_id: await authorized(), amount: 99 }),
      'amount_mismatch',
    ],
    'a refund in part': [
      'refunds',
      async () => ({ capture_id: await captured(), amount: 99 }),
      'amount_mismatch',
    ],
  } as const
  it.each(Object.entries(others))('%s', async (_, [endpoint, body, error]) => {
    const sent = await body()
    const before = await bank.transactions()
    expect(await post(endpoint, 'k', sent)).toMatchObject(isRefused(400, error))
    expect(await bank.transactions()).toEqual(before)
  })

  it.each(['authorizations', 'captures', 'refunds'])('GET of unknown %s is 404', async (endpoint) => {
    expect(await get(`/api/v1/${endpoint}/none`)).toMatchObject(isRefused(404, 'not_found'))
  })

  it('capture after expiry: refused, the hold stays; a void works and releases it', async () => {
    bank.settings.authExpiryHours = 1e-9
    const id = await authorized(4_999)
    const held = { balance: 1_000_000, available: 995_001 }
    expect(await post('captures', 'k', { authorization_id: id, amount: 4_999 })).toMatchObject(
      isRefused(400, 'authorization_expired'),
    )
    expect((await get(`/api/v1/authorizations/${id}`)).body).toMatchObject({ status: 'approved' })
    expect(await bank.account()).toEqual(held)
    expect((await post('voids', 'k', { authorization_id: id })).status).toBe(200)
    expect((await bank.account()).available).toBe(1_000_000)
  })

  it.each(POSTS.filter(({ again }) => again !== 'done'))(
    '$endpoint, again under another key: $again',
    async ({ endpoint, body, again }) => {
      const sent = await body()
      await post(endpoint, 'k1', sent)
      expect(await post(endpoint, 'k2', sent)).toMatchObject(isRefused(400, again))
    },
  )
})

describe('plain-text errors, and what is let through', () => {
  const body = { ...CARD, amount: 100 }
  const text = JSON.stringify(body)
  const refused: Record<string, Options> = {
    'no key': { body },
    'an empty key': { key: '', body },
    'a doubled key': { key: ['k', 'k'], body },
    'malformed JSON': { key: 'k', text: '{"amount":' },
    'a list': { key: 'k', text: '[]' },
    'an amount in text': { key: 'k', body: { ...body, amount: '100' } },
    'a fractional amount': { key: 'k', body: { ...body, amount: 1.5 } },
    'an amount with an exponent': { key: 'k', text: text.replace('100', '1e2') },
    'an amount written as 100.0': { key: 'k', text: text.replace('100', '100.0') },
    'a card number as a number': { key: 'k', body: { ...body, card_number: 4111111111111111 } },
    'an expiry month in text': { key: 'k', body: { ...body, expiry_month: '12' } },
  }
  it.each(Object.entries(refused))('%s', async (_, options) => {
    expect(await send('POST', '/api/v1/authorizations', options)).toMatchObject(isPlain(400, ''))
    expect(await bank.transactions()).toEqual([])
  })

  const accepted: Record<string, Options> = {
    'unknown fields, even named as a method is': { body: { ...body, constructor: 1, isPrototypeOf: 1 } },
    'trailing bytes': { text: `${text} {"amount": 1} trailing` },
    'braces in strings': { text: text.replace('{', String.raw`{"note":"}\"}",`) },
    'wrong types in fields of other calls': { body: { ...body, authorization_id: 5, capture_id: [true] } },
    'null in fields of other calls': { body: { ...body, authorization_id: null, capture_id: null } },
    'null for an expiry that is not compared': { body: { ...body, expiry_month: null, expiry_year: null } },
    'any content type': { body, headers: { 'content-type': 'image/png' } },
    'a key of 255 characters': { key: 'k'.repeat(255), body },
  }
  it.each(Object.entries(accepted))('%s: accepted', async (_, options) => {
    expect((await send('POST', '/api/v1/authorizations', { key: 'k', ...options })).status).toBe(200)
  })

  it.each(POSTS.filter(({ endpoint }) => endpoint !== 'authorizations'))(
    'wrong types and null in what $endpoint does not need: accepted',
    async ({ endpoint, body: needed }) => {
      const foreign = { card_number: 5, cvv: null, expiry_month: 'May', expiry_year: {}, note: null }
      const unneeded =
        endpoint === 'refunds'
          ? { authorization_id: 5 }
          : endpoint === 'voids'
            ? { capture_id: 5, amount: '1' }
            : { capture_id: 5 }
      const sent = { ...foreign, ...unneeded, ...(await needed()) }
      expect((await post(endpoint, 'k', sent)).status).toBe(200)
    },
  )

  it.each([
    ['authorizations', { card_number: null }, 'invalid_card'],
    ['authorizations', { cvv: null }, 'invalid_cvv'],
    ['authorizations', { amount: null }, 'invalid_amount'],
    ['captures', { authorization_id: null, amount: 100 }, 'authorization_not_found'],
    ['voids', { authorization_id: null }, 'authorization_not_found'],
    ['refunds', { capture_id: null, amount: 100 }, 'capture_not_found'],
  ])('null in what %s needs is as if it were left out: %j', async (endpoint, nulls, error) => {
    const sent = endpoint === 'authorizations' ? { ...body, ...nulls } : nulls
    expect(await post(endpoint, 'k', sent)).toMatchObject(isRefused(400, error))
  })

  it.each([
    ['GET', '/api/v1/voids/void_1', 404],
    ['POST', '/api/v1/nothing', 404],
    ['POST', '/api/v1/constructor', 404],
    ['POST', '/api/v1/captures/', 404],
    ['GET', '/', 404],
    ['GET', '/api/v1/captures', 405],
    ['POST', '/api/v1/captures/cap_1', 405],
    ['DELETE', '/api/v1/captures', 405],
  ])('%s %s is %i', async (method, path, status) => {
    expect(await send(method, path, { key: 'k' })).toMatchObject(isPlain(status, ''))
  })

  it.each(['//api/v1/authorizations', '/api//v1/authorizations'])(
    'a doubled slash is a 301 that skips idempotency: %s',
    async (path) => {
      await post('authorizations', 'k', body)
      expect(await send('POST', path, { key: 'k', body })).toMatchObject({
        status: 301,
        headers: { location: '/api/v1/authorizations' },
      })
      expect(await bank.transactions()).toHaveLength(1)
    },
  )
})

describe('the key', () => {
  it.each(POSTS)('is a look-up: $endpoint with an empty body', async ({ endpoint, body, type }) => {
    const sent = await body()
    expect(await probe(endpoint, 'k')).toMatchObject(NOT_STORED)
    expect(await bank.transactions(type)).toHaveLength(0)
    const first = await post(endpoint, 'k', sent)
    expect(first.headers).not.toHaveProperty('x-idempotent-replayed')
    expect(await probe(endpoint, 'k')).toMatchObject({
      status: 200,
      headers: { 'x-idempotent-replayed': 'true' },
      text: first.text,
    })
    expect(await bank.transactions(type)).toHaveLength(1)
  })

  it('replays at once, with no chaos, without reading the body', async () => {
    const { text } = await post('authorizations', 'k', { ...CARD, amount: 100 })
    Object.assign(bank.settings, { failureRate: 1, minLatencyMs: 60_000, maxLatencyMs: 60_000 })
    const unfinished = request(`${bank.url}/api/v1/authorizations`, {
      method: 'POST',
      headers: { 'idempotency-key': 'k', 'content-length': 1_000 },
    }).on('error', () => {})
    unfinished.flushHeaders()
    onTestFinished(() => void unfinished.destroy())
    await once(unfinished, 'response')
    expect((await probe('authorizations', 'k')).text).toBe(text)
  })

  it('does not compare the body', async () => {
    const { text } = await post('authorizations', 'k', { ...CARD, amount: 100 })
    expect((await post('authorizations', 'k', { ...POOR, amount: 999 })).text).toBe(text)
    expect((await send('POST', '/api/v1/authorizations', { key: 'k', text: '{nonsense' })).text).toBe(text)
  })

  it('is looked up with its exact path', async () => {
    const id = await authorized()
    await post('captures', 'k', { authorization_id: id, amount: 100 })
    expect(await probe('voids', 'k')).toMatchObject(NOT_STORED)
  })

  it('does not keep a decline: it may be approved later', async () => {
    const hold = await authorized(50_000, POOR)
    const body = { ...POOR, amount: 100 }
    expect(await post('authorizations', 'k', body)).toMatchObject(isRefused(402, 'insufficient_funds'))
    expect(await probe('authorizations', 'k')).toMatchObject(NOT_STORED)
    await post('voids', 'v', { authorization_id: hold })
    expect((await post('authorizations', 'k', body)).status).toBe(200)
  })

  it('of 256 characters is never stored: every send counts as new', async () => {
    const body = { ...CARD, amount: 100 }
    for (const _ of [1, 2]) expect((await post('authorizations', 'k'.repeat(256), body)).status).toBe(200)
    expect(await bank.transactions()).toHaveLength(2)
  })

  it('is purged after 24 hours: an authorize is a new hold, the others stay safe', async () => {
    const holds = { ...CARD, amount: 100 }
    const id = (await post('authorizations', 'k', holds)).body['authorization_id']
    const capture = { authorization_id: id, amount: 100 }
    await post('captures', 'k', capture)
    await bank.sql`update idempotency_keys set created_at = created_at - interval '23 hours 59 minutes'`
    await purgeStoredAnswers(bank.sql)
    expect((await probe('captures', 'k')).status).toBe(200)
    await bank.sql`update idempotency_keys set created_at = created_at - interval '2 minutes'`
    await purgeStoredAnswers(bank.sql)
    expect(await post('captures', 'k', capture)).toMatchObject(isRefused(400, 'authorization_already_used'))
    expect((await post('authorizations', 'k', holds)).status).toBe(200)
    expect(await bank.transactions('AUTHORIZATION')).toHaveLength(2)
  })
})

describe('requests that overlap', () => {
  it('two authorizes under one key place two holds and answer two different 200s', async () => {
    const body = { ...CARD, amount: 100 }
    const first = bank.faults.hold('after-commit', { key: 'k' })
    const answers = [post('authorizations', 'k', body)]
    await first.arrived
    const second = bank.faults.hold('after-commit', { key: 'k' })
    answers.push(post('authorizations', 'k', body))
    await second.arrived
    first.open()
    second.open()
    const ids = (await Promise.all(answers)).map((answer) => String(answer.body['authorization_id']))
    expect(new Set(ids).size).toBe(2)
    expect(new Set((await bank.transactions()).map(({ id }) => id))).toEqual(new Set(ids))
    expect(ids).toContain((await probe('authorizations', 'k')).body['authorization_id'])
  })

  it.each(POSTS.filter(({ again }) => again !== 'done'))(
    'two $endpoint under one key: one wins, the other gets $again',
    async ({ endpoint, body, type, again }) => {
      const sent = await body()
      const gate = bank.faults.hold('after-commit', { endpoint })
      const winner = post(endpoint, 'k', sent)
      await gate.arrived
      expect(await post(endpoint, 'k', sent)).toMatchObject(isRefused(400, again))
      gate.open()
      expect((await winner).status).toBe(200)
      expect(await bank.transactions(type)).toHaveLength(1)
    },
  )

  it('twenty captures and voids of one authorization at once: one wins', async () => {
    const id = await authorized()
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        post(index % 2 === 0 ? 'captures' : 'voids', newKey(), { authorization_id: id, amount: 100 }),
      ),
    )
    const refused = answers.filter(({ status }) => status !== 200).map(({ body }) => body['error'])
    expect(refused).toEqual(Array(19).fill('authorization_already_used'))
    expect(await bank.transactions()).toHaveLength(2)
  })

  it('a client that is gone between commit and store leaves money moved and no key', async () => {
    const [committed, past] = [bank.faults.hold('after-commit'), bank.faults.hold('after-store')]
    const left = post('authorizations', 'k', { ...CARD, amount: 100 })
    await committed.arrived
    left.hangUp()
    await expect(left).rejects.toMatchObject(CUT)
    await bank.until(([line]) => line?.over === true)
    committed.open()
    await past.arrived
    past.open()
    expect(await probe('authorizations', 'k')).toMatchObject(NOT_STORED)
    expect(await bank.transactions()).toHaveLength(1)
  })

  it('a client that is gone before the work leaves nothing', async () => {
    const capture = { authorization_id: await authorized(), amount: 100 }
    const gate = bank.faults.hold('before', { key: 'k' })
    const left = post('captures', 'k', capture)
    await gate.arrived
    left.hangUp()
    await expect(left).rejects.toMatchObject(CUT)
    await bank.until((lines) => lines.at(-1)?.over === true)
    gate.open()
    expect((await post('captures', 'other', capture)).status).toBe(200)
  })

  it('a handler above the write limit closes the connection: money moved, key stored', async () => {
    bank.settings.writeLimitMs = 10
    const gate = bank.faults.hold('after-commit')
    const answer = post('authorizations', 'k', { ...CARD, amount: 100 })
    await gate.arrived
    await pause(15)
    gate.open()
    await expect(answer).rejects.toMatchObject(CUT)
    Object.assign(bank.settings, SETTINGS)
    expect((await probe('authorizations', 'k')).status).toBe(200)
    expect(await bank.transactions()).toHaveLength(1)
  })
})

describe('chaos', () => {
  it('is a 500 on every path except /health and /docs, and moves nothing', async () => {
    bank.settings.failureRate = 1
    const failed = isRefused(500, 'internal_error')
    expect(await post('authorizations', 'k', { ...CARD, amount: 100 })).toMatchObject(failed)
    // Before the header is checked and the body read.
    expect(await send('POST', '/api/v1/authorizations')).toMatchObject(failed)
    expect(await get('/api/v1/authorizations/auth_1')).toMatchObject(failed)
    expect(await get('/nothing')).toMatchObject(failed)
    expect((await get('/health')).status).toBe(200)
    expect((await get('/docs')).status).toBe(200)
    bank.settings.failureRate = 0
    expect(await probe('authorizations', 'k')).toMatchObject(NOT_STORED)
    expect(await bank.transactions()).toEqual([])
  })

  it('delays every path except /health and /docs', async () => {
    Object.assign(bank.settings, { minLatencyMs: 30, maxLatencyMs: 40 })
    for (const path of ['/api/v1/captures/cap_1', '/nothing']) {
      const startedMs = performance.now()
      await get(path)
      expect(performance.now() - startedMs).toBeGreaterThan(28)
    }
    Object.assign(bank.settings, { minLatencyMs: 60_000, maxLatencyMs: 60_000 })
    for (const path of ['/health', '/docs']) expect((await get(path)).status).toBe(200)
  })
})

describe('faults', () => {
  const DONE = { status: 200, body: { status: 'captured', amount: 100, currency: 'USD' } }
  const failed = (message: string) => isRefused(400, 'internal_error', message)
  type Expected = { answer: 'cut' | 'none' | object; moved: boolean; stored: boolean }
  const nothing = (answer: Expected['answer']) => ({ answer, moved: false, stored: false })
  const moved = (answer: Expected['answer']) => ({ answer, moved: true, stored: false })
  const stored = (answer: Expected['answer']) => ({ answer, moved: true, stored: true })

  /** What a capture meets, whether the money moved, and what a probe then finds. */
  const CAPTURE: Record<Exclude<FaultKind, 'unhealthy'>, Expected> = {
    'drop-before': nothing('cut'),
    'hang-before': nothing('none'),
    'bad-gateway': nothing({ status: 502, headers: { 'content-type': 'text/html' } }),
    redirect: nothing({ status: 301, headers: { location: '/api/v1/captures' } }),
    'redirect-307': nothing({ status: 307, headers: { location: '/api/v1/captures' } }),
    'lookup-fault': moved(DONE),
    chaos: nothing(isRefused(500, 'internal_error')),
    'database-down': nothing(failed('failed to start')),
    'rolled-back': nothing(failed('failed to update')),
    'insert-failed': nothing(isRefused(500, 'internal_error', 'internal error')),
    'card-or-parent-not-found': nothing(isRefused(400, 'authorization_not_found')),
    'commit-failed': nothing(failed('failed to commit')),
    'commit-failed-but-done': moved(failed('failed to commit')),
    'drop-after-commit': moved('cut'),
    'drop-after-store': stored('cut'),
    'hang-after-commit': moved('none'),
    'hang-after-store': stored('none'),
    late: stored(DONE),
    html: stored({ status: 200, headers: { 'content-type': 'text/html' } }),
    malformed: stored({ status: 200, text: expect.stringMatching(/^\{"capture_id".*[^}]$/) as unknown }),
    'no-id': stored({ status: 200, text: expect.stringMatching(/^\{"authorization_id"/) as unknown }),
    'other-amount': stored({ status: 200, body: { amount: 101 } }),
    'other-currency': stored({ status: 200, body: { currency: 'EUR' } }),
    'other-parent': stored({
      status: 200,
      body: { authorization_id: expect.stringMatching(/^auth_.*x$/) as unknown },
    }),
    'huge-amount': stored({
      status: 200,
      text: expect.stringContaining('"amount":9007199254740993,') as unknown,
    }),
    'stalled-body': stored('none'),
  }

  it.each(Object.entries(CAPTURE))('%s, to a capture', async (what, expected) => {
    const body = { authorization_id: await authorized(), amount: 100 }
    bank.received.length = 0
    bank.faults.add(what as FaultKind)
    const books = async () => ({
      moved: (await bank.transactions('CAPTURE')).length === 1,
      stored: (await bank.sql`select from idempotency_keys where path = '/api/v1/captures'`).length === 1,
    })
    const { answer, ...outcome } = expected
    const reply = post('captures', 'k', body)
    if (answer === 'none') {
      await bank.until(({ length }) => length === 1)
      await expect.poll(books).toEqual(outcome)
      // Time enough for an answer, were there one.
      for (let turn = 0; turn < 20; turn += 1) await get('/health')
      expect(bank.received[0]).toMatchObject({ status: null, over: false })
      reply.hangUp()
      await expect(reply).rejects.toMatchObject(CUT)
    } else if (answer === 'cut') {
      await expect(reply).rejects.toMatchObject(CUT)
      expect(bank.received[0]?.status).toBeNull()
    } else expect(await reply).toMatchObject(answer)
    expect(await books()).toEqual(outcome)

    expect(bank.faults.list()).toEqual([])
    expect(await probe('captures', 'k')).toMatchObject(expected.stored ? DONE : NOT_STORED)
    expect(await post('captures', 'k', body)).toMatchObject(
      expected.moved && !expected.stored ? isRefused(400, 'authorization_already_used') : DONE,
    )
  })

  it('late answers after delayMs', async () => {
    bank.faults.add('late', { delayMs: 40 })
    const startedMs = performance.now()
    await authorized()
    expect(performance.now() - startedMs).toBeGreaterThan(38)
  })

  it('a database fault while finding the card looks like a decline', async () => {
    bank.faults.add('card-or-parent-not-found')
    expect(await post('authorizations', 'k', { ...CARD, amount: 100 })).toMatchObject(
      isRefused(400, 'invalid_card', 'card not found or invalid'),
    )
  })

  it('a failed look-up carries an authorize out again, and stores nothing', async () => {
    const body = { ...CARD, amount: 100 }
    await post('authorizations', 'k', body)
    bank.faults.add('lookup-fault', { times: 2 })
    expect(await probe('authorizations', 'k')).toMatchObject(NOT_STORED)
    expect((await post('authorizations', 'k', body)).headers).not.toHaveProperty('x-idempotent-replayed')
    expect(await bank.transactions()).toHaveLength(2)
  })

  it.each(POSTS)(
    'other-amount and other-parent leave alone what $endpoint has not',
    async ({ endpoint, body }) => {
      const sent = [await body(), await body()]
      bank.faults.add('other-amount', { endpoint })
      bank.faults.add('other-parent', { endpoint })
      const [amount, parent] = [await post(endpoint, 'a', sent[0]), await post(endpoint, 'p', sent[1])]
      expect(amount.body['amount']).toBe(endpoint === 'voids' ? undefined : 101)
      const id = String(Object.values(parent.body)[1])
      expect(id.endsWith('x')).toBe(endpoint !== 'authorizations')
    },
  )

  const ON_GET: Partial<Record<FaultKind, object>> = {
    chaos: isRefused(500, 'internal_error'),
    'database-down': isRefused(404, 'not_found'),
    'card-or-parent-not-found': isRefused(404, 'not_found'),
    'bad-gateway': { status: 502 },
    redirect: { status: 301 },
    'redirect-307': { status: 307 },
    late: { status: 200 },
    html: { status: 200, headers: { 'content-type': 'text/html' } },
    malformed: { status: 200, body: {} },
    'no-id': { status: 200, text: expect.stringMatching(/^\{"status"/) as unknown },
    'other-amount': { body: { amount: 101 } },
    'other-currency': { body: { currency: 'EUR' } },
    'other-parent': { status: 200 },
    'huge-amount': { text: expect.stringContaining('"amount":9007199254740993,') as unknown },
  }
  it.each(Object.entries(ON_GET))('%s, to a GET', async (what, answer) => {
    const id = await authorized()
    bank.faults.add(what as FaultKind)
    expect(await get(`/api/v1/authorizations/${id}`)).toMatchObject(answer)
    expect(bank.faults.list()).toEqual([])
  })

  it('unhealthy is 503 from /health, and nothing else', async () => {
    bank.faults.add('unhealthy')
    expect(await authorized()).toMatch(/^auth_/)
    expect(await get('/health')).toMatchObject({ status: 503, body: { status: 'unhealthy' } })
    expect((await get('/health')).status).toBe(200)
  })

  const ON_ARRIVAL = ['drop-before', 'hang-before', 'bad-gateway', 'redirect', 'redirect-307']
  it.each(FAULT_KINDS.filter((what) => !ON_ARRIVAL.includes(what)))(
    '%s waits for a request to which it can happen',
    async (what) => {
      const id = await authorized()
      bank.faults.add(what)
      if (what !== 'unhealthy') expect((await get('/health')).status).toBe(200)
      if (what !== 'chaos' && what !== 'lookup-fault')
        expect(await probe('captures', 'k')).toMatchObject(NOT_STORED)
      if (!(what in ON_GET) && what !== 'stalled-body')
        expect((await get(`/api/v1/authorizations/${id}`)).status).toBe(200)
      expect(bank.faults.list()).toHaveLength(1)
    },
  )

  it('takes the requests that it fits: endpoint, method, key, probe, times, in order', async () => {
    bank.faults.add('chaos', { endpoint: 'captures', method: 'GET' })
    bank.faults.add('chaos', { key: 'one' })
    bank.faults.add('chaos', { probe: true, times: null })
    const statuses = []
    for (const answer of [
      () => post('captures', 'k', {}),
      () => get('/api/v1/authorizations/auth_1'),
      () => get('/api/v1/captures/cap_1'),
      () => get('/api/v1/captures/cap_1'),
      () => post('voids', 'one', {}),
      () => post('voids', 'one', {}),
      () => probe('voids', 'k'),
      () => probe('voids', 'k'),
    ])
      statuses.push((await answer()).status)
    expect(statuses).toEqual([400, 404, 500, 404, 500, 400, 500, 500])
  })

  it('takes only some with a probability', async () => {
    bank.faults.add('chaos', { times: null, probability: 0 })
    expect((await get('/api/v1/captures/cap_1')).status).toBe(404)
  })
})

/** What each POST says when it cannot look for its card, authorization or capture. */
const NOT_FOUND = {
  authorizations: isRefused(400, 'invalid_card', 'card not found or invalid'),
  captures: isRefused(400, 'authorization_not_found'),
  voids: isRefused(400, 'authorization_not_found'),
  refunds: isRefused(400, 'capture_not_found'),
}

/** On a machine that others use, too. */
const PATIENCE = { timeout: 10_000 }

describe("the bank's own database", () => {
  const failing = async (what: string) => {
    await bank.sql.unsafe(`
      create or replace function fail() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
      create ${what} for each row execute function fail()`)
    const [, table = ''] = / on (\w+)/.exec(what) ?? []
    return async () => void (await bank.sql.unsafe(`drop trigger fail on ${table}`))
  }
  /** A fault of the database, and how it ends. */
  const ILL: Record<string, () => Promise<() => Promise<void>>> = {
    'its tables cannot be read': async () => {
      await bank.sql`alter table accounts rename to accounts_gone`
      await bank.sql`alter table transactions rename to transactions_gone`
      return async () => {
        await bank.sql`alter table accounts_gone rename to accounts`
        await bank.sql`alter table transactions_gone rename to transactions`
      }
    },
    'its columns are not as they should be': async () => {
      await bank.sql`alter table accounts rename column card_number to gone`
      await bank.sql`alter table transactions rename column type to gone`
      return async () => {
        await bank.sql`alter table accounts rename column gone to card_number`
        await bank.sql`alter table transactions rename column gone to type`
      }
    },
    'an insert fails': () => failing('trigger fail before insert on transactions'),
    'an update of the balance fails': () => failing('trigger fail before update on accounts'),
    'an update of the status fails': () => failing('trigger fail before update on transactions'),
    'the commit fails': () =>
      failing('constraint trigger fail after insert on transactions deferrable initially deferred'),
  }
  const internal = (message: string) => isRefused(400, 'internal_error', message)
  const all = (answer: object) => ({
    authorizations: answer,
    captures: answer,
    voids: answer,
    refunds: answer,
  })
  const SAYS: Record<string, Partial<Record<(typeof POSTS)[number]['endpoint'], object>>> = {
    'its tables cannot be read': NOT_FOUND,
    'its columns are not as they should be': NOT_FOUND,
    'an insert fails': {
      ...all(isRefused(500, 'internal_error', 'internal error')),
      authorizations: internal('failed to create'),
    },
    // A capture changes the balance, a void what is available, a refund both.
    'an update of the balance fails': all(internal('failed to adjust')),
    'an update of the status fails': {
      captures: internal('failed to update'),
      voids: internal('failed to update'),
      refunds: internal('failed to update'),
    },
    'the commit fails': all(internal('failed to commit')),
  }
  const cases = Object.entries(SAYS).flatMap(([why, says]) =>
    POSTS.filter(({ endpoint }) => endpoint in says).map((call) => ({
      why,
      ...call,
      answer: says[call.endpoint] ?? {},
    })),
  )
  it.each(cases)('$why: $endpoint is refused, nothing moves, /health is 200', async (call) => {
    const { why, endpoint, body, type, answer } = call
    const sent = await body()
    const recover = await ILL[why]?.()
    const answered = await post(endpoint, 'k', sent)
    const health = await get('/health')
    await recover?.()
    expect(answered).toMatchObject(answer)
    expect(health.status).toBe(200)
    expect(await bank.transactions(type)).toEqual([])
    // The same request does it when all is well.
    expect((await post(endpoint, 'k', sent)).status).toBe(200)
  })

  it.each((['terminate', 'cancel'] as const).flatMap((how) => POSTS.map((call) => ({ how, ...call }))))(
    'its session is ended ($how) in the work of $endpoint: as if it knew nothing',
    async (call) => {
      const { how, endpoint, body, type } = call
      const sent = await body()
      const holder = postgres(bank.databaseUrl, { max: 1, fetch_types: false, onnotice: () => {} })
      onTestFinished(() => holder.end({ timeout: 1 }))
      // Whoever works with these waits, and can be found by it.
      await holder`begin`
      await holder`select from accounts for update`
      await holder`select from transactions for update`
      const answer = post(endpoint, 'k', sent)
      const waiting = async (deed: string) =>
        await bank.sql.unsafe(`
        select ${deed} from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%bank_keep%'`)
      await expect.poll(async () => (await waiting('pid')).length, PATIENCE).toBe(1)
      await waiting(`pg_${how}_backend(pid)`)
      expect(await answer).toMatchObject(NOT_FOUND[endpoint])
      expect(bank.received.at(-1)).toMatchObject({ committed: 'no' })
      await holder`rollback`
      expect(await bank.transactions(type)).toEqual([])
      expect((await post(endpoint, 'k', sent)).status).toBe(200)
    },
  )

  it('lets nobody in (SQLSTATE 55000): 400 failed to start, every GET 404, and a probe finds nothing', async () => {
    const closed = await startTestBank()
    const { url } = closed
    const sent = { key: 'k', body: { ...CARD, amount: 100 }, url }
    const { body } = await send('POST', '/api/v1/authorizations', sent)
    const id = String(body['authorization_id'])
    const elsewhere = Object.assign(new URL(closed.databaseUrl), { pathname: '/postgres' })
    const name = new URL(closed.databaseUrl).pathname.slice(1)
    const admin = postgres(elsewhere.href, { max: 1, fetch_types: false, onnotice: () => {} })
    onTestFinished(() => admin.end({ timeout: 1 }))
    await admin`alter database ${admin(name)} allow_connections false`
    await admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`
    await expect.poll(async () => (await send('GET', '/health', { url })).status, PATIENCE).toBe(503)

    for (const [endpoint, needs] of Object.entries({
      authorizations: { ...CARD, amount: 100 },
      captures: { authorization_id: id, amount: 100 },
      voids: { authorization_id: id },
      refunds: { capture_id: 'cap_1', amount: 100 },
    }))
      expect(await send('POST', `/api/v1/${endpoint}`, { key: 'other', body: needs, url })).toMatchObject(
        internal('failed to start'),
      )
    expect(await send('GET', `/api/v1/authorizations/${id}`, { url })).toMatchObject(
      isRefused(404, 'not_found'),
    )
    expect(await send('POST', '/api/v1/authorizations', { key: 'k', url })).toMatchObject(NOT_STORED)
    expect(closed.received.filter(({ committed }) => committed !== 'no')).toHaveLength(1)

    await admin`alter database ${admin(name)} allow_connections true`
    const replay = await send('POST', '/api/v1/authorizations', { key: 'k', url })
    expect(replay.body).toMatchObject({ authorization_id: id })
  })

  it('a look-up that fails: carried out, never stored', async () => {
    const body = { ...CARD, amount: 100 }
    const gate = bank.faults.hold('after-commit')
    await bank.sql`alter table idempotency_keys rename column body to gone`
    const answer = post('authorizations', 'k', body)
    await gate.arrived
    // Well again when the answer would be stored.
    await bank.sql`alter table idempotency_keys rename column gone to body`
    gate.open()
    expect((await answer).status).toBe(200)
    expect(await probe('authorizations', 'k')).toMatchObject(NOT_STORED)
    expect(await bank.transactions()).toHaveLength(1)
  })
})

const shaken = await startTestBank()
it("the bank's backends are killed under load: every request is answered, and the books are right", async () => {
  const uncaught: unknown[] = []
  const note = (error: unknown) => void uncaught.push(error)
  process.on('uncaughtException', note).on('unhandledRejection', note)
  onTestFinished(() => void process.off('uncaughtException', note).off('unhandledRejection', note))
  // As a pool of its own, which kills nobody in its own database but the bank.
  const killer = postgres(shaken.databaseUrl, { max: 1, fetch_types: false, onnotice: () => {} })
  const over = new AbortController()
  const buy = async () => {
    while (!over.signal.aborted) {
      const sent = (path: string, body: object) =>
        send('POST', `/api/v1/${path}`, { url: shaken.url, key: newKey(), body })
      const hold = await sent('authorizations', { ...CARD, amount: 1 })
      const id = hold.body['authorization_id']
      if (id !== undefined) await sent('captures', { authorization_id: id, amount: 1 })
    }
  }
  const buyers = Array.from({ length: 8 }, buy)
  for (let round = 0; round < 10; round += 1) {
    await killer`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`
    await pause(30)
  }
  over.abort()
  await Promise.all(buyers)
  const [books] = await killer`
    select balance_cents - available_cents as held, 1000000 - balance_cents as taken,
      (select coalesce(sum(amount_cents), 0)::bigint from transactions where type = 'AUTHORIZATION' and status = 'ACTIVE') as holds,
      (select coalesce(sum(amount_cents), 0)::bigint from transactions where type = 'CAPTURE') as captures
    from accounts where card_number = ${CARD.card_number}`
  await killer.end({ timeout: 1 })
  expect(books).toMatchObject({ held: books?.['holds'] as unknown, taken: books?.['captures'] as unknown })
  expect(uncaught).toEqual([])
})

const doomed = await startTestBank()
it("the bank's database is down: 400 failed to start, every GET 404, /health 503", async () => {
  const id = (
    await send('POST', '/api/v1/authorizations', { url: doomed.url, key: 'k', body: { ...CARD, amount: 1 } })
  ).body['authorization_id']
  await doomed.sql.end()
  const { url } = doomed
  expect(
    await send('POST', '/api/v1/voids', { url, key: 'k', body: { authorization_id: id } }),
  ).toMatchObject(isRefused(400, 'internal_error', 'failed to start'))
  expect(await send('GET', `/api/v1/authorizations/${String(id)}`, { url })).toMatchObject(
    isRefused(404, 'not_found'),
  )
  expect(await send('POST', '/api/v1/authorizations', { url, key: 'k' })).toMatchObject(NOT_STORED)
  expect((await send('GET', '/health', { url })).status).toBe(503)
})

describe('the control API', () => {
  const control = (method: string, path: string, body?: unknown) =>
    send(method, `/simulator/${path}`, body === undefined ? {} : { body })

  it('/docs names every fault', async () => {
    const { text } = await get('/docs')
    for (const what of FAULT_KINDS) expect(text).toContain(` ${what} `)
  })

  it('adds, lists and clears faults', async () => {
    const fault = { what: 'chaos', endpoint: 'captures', method: 'GET', times: 2 }
    expect((await control('POST', 'faults', fault)).status).toBe(201)
    expect((await get('/api/v1/captures/cap_1')).status).toBe(500)
    expect(JSON.parse((await control('GET', 'faults')).text)).toMatchObject([{ ...fault, times: 1 }])
    expect((await control('DELETE', 'faults')).text).toBe('[]')
    expect((await get('/api/v1/captures/cap_1')).status).toBe(404)
  })

  it.each([
    ['faults', 'POST', { what: 'earthquake' }],
    ['faults', 'POST', { what: 'toString' }],
    ['faults', 'POST', { what: 'chaos', endpiont: 'captures' }],
    ['faults', 'POST', { what: 'chaos', times: 'often' }],
    ['faults', 'POST', []],
    ['settings', 'PUT', { failureRate: 2 }],
    ['settings', 'PUT', { failurerate: 0 }],
    ['settings', 'PUT', { minLatencyMs: '5' }],
  ])('refuses what is misspelt: %s %s %j', async (path, method, body) => {
    const before = { ...bank.settings }
    expect(await control(method, path, body)).toMatchObject({ status: 400 })
    expect(bank.faults.list()).toEqual([])
    expect(bank.settings).toEqual(before)
  })

  it('changes settings while it runs', async () => {
    const { body } = await control('PUT', 'settings', { failureRate: 1 })
    expect(body).toEqual({ ...SETTINGS, failureRate: 1 })
    expect((await control('GET', 'settings')).body).toEqual(body)
    expect((await get('/api/v1/captures/cap_1')).status).toBe(500)
  })

  it('tells what was received, without a card', async () => {
    await post('authorizations', 'k', { ...CARD, amount: 100 })
    await probe('authorizations', 'k2')
    const { text } = await control('GET', 'received')
    const path = '/api/v1/authorizations'
    const over = {
      over: true,
      arrivedMs: expect.any(Number),
      endedMs: expect.any(Number),
      fault: null,
      keyLost: null,
    }
    expect(JSON.parse(text)).toEqual([
      { method: 'POST', path, key: 'k', probe: false, status: 200, committed: 'yes', ...over },
      { method: 'POST', path, key: 'k2', probe: true, status: 400, committed: 'no', ...over },
    ])
  })

  it('statement.csv is the ledger, without a card', async () => {
    const capture = await captured(4_999)
    await post('refunds', 'k', { capture_id: capture, amount: 4_999 })
    const { headers, text } = await control('GET', 'statement.csv')
    expect(headers['content-type']).toBe('text/csv')
    const [hold, , refund] = await bank.transactions()
    const time = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z`
    expect(text).toMatch(
      new RegExp(
        `^type,id,reference_id,amount,status,time\n` +
          `AUTHORIZATION,${hold?.id},,4999,CAPTURED,${time}\n` +
          `CAPTURE,${capture},${hold?.id},4999,REFUNDED,${time}\n` +
          `REFUND,${refund?.id},${capture},4999,ACTIVE,${time}\n$`,
      ),
    )
  })
})

const other = await testDatabase('bank')
describe('npm run bank', () => {
  /** A database that is not there yet, on the run's server. */
  const missing = () => `${other.url}_${(count += 1)}`
  function run(env: Record<string, string>) {
    const child = spawn(process.execPath, ['dist/simulator/main.js'], {
      env: { PATH: process.env['PATH'] ?? '', PORT: '0', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    let said = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (text: Buffer) => (said += String(text)))
    return { child, said: () => said, ended: once(child, 'close').then(([code]) => code as unknown) }
  }

  it('starts in a database that it makes itself, with the environment of the bank, and stops at SIGTERM', async () => {
    const url = missing()
    onTestFinished(async () => {
      const admin = postgres(Object.assign(new URL(url), { pathname: '/postgres' }).href, { max: 1 })
      await admin`drop database if exists ${admin(new URL(url).pathname.slice(1))} with (force)`
      await admin.end({ timeout: 1 })
    })
    const { child, said, ended } = run({
      DATABASE_URL: url,
      FAILURE_RATE: '1',
      MIN_LATENCY_MS: '0',
      MAX_LATENCY_MS: '1',
    })
    await expect.poll(said, { timeout: 10_000 }).toContain('\n')
    const [at = ''] = /http:\/\/[\d.:]+/.exec(said()) ?? []
    expect((await send('GET', '/health', { url: at })).body).toEqual({ status: 'healthy' })
    const body = { ...CARD, amount: 100 }
    expect((await send('POST', '/api/v1/authorizations', { url: at, key: 'k', body })).status).toBe(500)
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
  })

  it.each([
    ['production', () => ({ NODE_ENV: 'production' }), /does not start with NODE_ENV=production/],
    [
      'a taken port',
      () => ({ DATABASE_URL: other.url, PORT: new URL(bank.url).port }),
      /^Port \d+ is taken\. .* PORT\.\n$/,
    ],
    [
      'a database that is not there',
      () => ({ DATABASE_URL: 'postgres://127.0.0.1:1/bank' }),
      /^The bank cannot start: .*ECONNREFUSED/,
    ],
  ])('%s: refused in one line', async (_, env, line) => {
    const { said, ended } = run(env())
    expect(await ended).toBe(1)
    expect(said()).toMatch(line)
    expect(said().trim().split('\n')).toHaveLength(1)
  })
})
