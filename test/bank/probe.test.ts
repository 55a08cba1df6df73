import { describe, expect, test } from 'vitest'
import type { BankRequest } from '../../src/bank/bank.ts'
import {
  ALL,
  DONE,
  REQUESTS,
  clientOf,
  done,
  httpBank,
  plain,
  refusal,
  replayed,
  scriptedBank,
} from './scripted-bank.ts'
import type { Scripted } from './scripted-bank.ts'

/** What may be learnt without moving money: the probe by key, and the look by id. */

const decodeError = plain("can't decode JSON body: EOF\n")

describe('a probe', () => {
  const asks = async (answers: Scripted, request: BankRequest = REQUESTS.captures) => {
    const scripted = await scriptedBank(() => answers)
    const { bank } = clientOf(scripted.url)
    return { ...(await bank.probe('op_7', request)), received: scripted.received }
  }

  test('asks for health, then by the same key with an empty body', async () => {
    const { received, calls } = await asks(replayed(done('captures')))
    expect(received.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'GET /health',
      'POST /api/v1/captures',
    ])
    expect(received[1]).toMatchObject({
      body: '',
      headers: { 'idempotency-key': 'op_7', 'content-length': '0' },
    })
    expect(calls).toMatchObject([
      { purpose: 'HEALTH', endpoint: 'GET /health', httpStatus: 200, conclusion: 'healthy', replayed: false },
      {
        purpose: 'PROBE',
        endpoint: 'POST /api/v1/captures',
        httpStatus: 200,
        conclusion: 'done',
        replayed: true,
      },
    ])
  })

  test.each(ALL)('%s: a replay is a fact', async (endpoint) => {
    const { answer } = await asks(replayed(done(endpoint)), REQUESTS[endpoint])
    expect(answer).toMatchObject({ is: 'done', replayed: true })
  })

  test('a replay with another amount is a mismatch', async () => {
    expect((await asks(replayed(done('captures', { amount: 1 })))).answer.is).toBe('mismatch')
  })

  test.each([
    "can't decode JSON body: EOF",
    'invalid request body',
    'Invalid JSON: unexpected end of input',
    'failed to decode request',
  ])('the decode error in plain text: %s => notStored', async (body) => {
    expect((await asks(plain(body))).answer).toEqual({ is: 'notStored' })
  })

  const SAYS_NOTHING: [string, Scripted][] = [
    ['chaos', refusal(500, 'internal_error')],
    ['the database is down', refusal(400, 'internal_error', 'failed to start transaction')],
    ['a decline', refusal(400, 'invalid_card')],
    ['a missing id', refusal(400, 'authorization_not_found')],
    ['already used', refusal(400, 'authorization_already_used')],
    ['a 200 that is no replay', done('captures')],
    ['a replay that cannot be read', replayed({ body: '<html>' })],
    ['a replay of something else', replayed(done('refunds'))],
    ['no key seen', plain('Header parameter Idempotency-Key is required, but not found')],
    ['an empty key', plain('Invalid format for parameter Idempotency-Key: cannot decode it')],
    ['a doubled key', plain('Expected one value for Idempotency-Key, got 2')],
    ['other plain text', plain('no')],
    ['empty plain text', plain('')],
    ['the decode error as JSON', { ...plain('"cannot decode JSON body"'), type: 'application/json' }],
    ['the decode error as HTML', { ...decodeError, type: 'text/html' }],
    ['the decode error inside JSON', plain('{"error":"cannot decode JSON body"}')],
    ['the decode error with another status', { ...decodeError, status: 422 }],
    ['no such path', { status: 404, type: 'text/plain', body: 'no body' }],
    ['a redirect', { status: 301, headers: { location: '/' } }],
  ]
  test.each(SAYS_NOTHING)('%s says nothing', async (_what, answers) => {
    expect((await asks(answers)).answer.is).toBe('ambiguous')
  })

  test.each([
    ['answers 503', { status: 503, body: '{"status":"unhealthy"}' }],
    ['says unhealthy', { body: '{"status":"unhealthy"}' }],
    ['answers HTML', { body: '<html>' }],
    ['answers null', { body: 'null' }],
    ['is redirected', { status: 301, body: '{"status":"healthy"}' }],
  ] as [string, Scripted][])('is not sent when health %s', async (_what, health) => {
    const urls: string[] = []
    const sick = await httpBank((request, response) => {
      urls.push(request.url ?? '')
      response.writeHead(health.status ?? 200)
      response.end(health.body)
    })
    const { bank } = clientOf(sick.url)
    const { answer, calls } = await bank.probe('op_7', REQUESTS.captures)
    expect(answer.is).toBe('ambiguous')
    expect(urls).toEqual(['/health'])
    expect(calls).toMatchObject([{ purpose: 'HEALTH', conclusion: 'unhealthy' }])
    expect((await bank.healthy()).healthy).toBe(false)
  })
})

describe('a look by id', () => {
  const LOOKS = ['authorizations', 'captures', 'refunds'] as const
  const idOf = {
    authorizations: DONE.authorizations.authorization_id,
    captures: DONE.captures.capture_id,
    refunds: DONE.refunds.refund_id,
  }

  test.each(LOOKS)('%s are found', async (endpoint) => {
    const scripted = await scriptedBank(() => done(endpoint))
    const { bank } = clientOf(scripted.url)
    const { found, calls } = await bank.look(endpoint, idOf[endpoint])
    expect(found).toEqual({
      is: 'found',
      fact: {
        bankId: idOf[endpoint],
        bankAt: expect.stringMatching(/^2\d{3}-/),
        expiresAt: endpoint === 'authorizations' ? DONE.authorizations.expires_at : null,
      },
      amountCents: 1234,
      currency: 'USD',
      parentId: { authorizations: null, captures: idOf.authorizations, refunds: idOf.captures }[endpoint],
    })
    expect(scripted.received).toMatchObject([
      { method: 'GET', url: `/api/v1/${endpoint}/${idOf[endpoint]}`, body: '' },
    ])
    expect(calls).toMatchObject([
      { purpose: 'LOOKUP', endpoint: `GET /api/v1/${endpoint}/{id}`, conclusion: 'found', httpStatus: 200 },
    ])
  })

  test('404 is notFound, anything else no answer', async () => {
    const answers: [Scripted, string][] = [
      [refusal(404, 'capture_not_found'), 'notFound'],
      [refusal(500, 'internal_error'), 'noAnswer'],
      [{ body: '<html>' }, 'noAnswer'],
      [{ ...done('captures'), status: 203 }, 'noAnswer'],
      [done('captures', { capture_id: 'cap_another' }), 'noAnswer'],
    ]
    for (const [answer, is] of answers) {
      const scripted = await scriptedBank(() => answer)
      expect((await clientOf(scripted.url).bank.look('captures', idOf.captures)).found.is).toBe(is)
    }
  })

  test('an id that an operator mistyped goes nowhere else', async () => {
    const scripted = await scriptedBank(() => ({ status: 404 }))
    await clientOf(scripted.url).bank.look('captures', '../refunds?x=/y')
    expect(scripted.received[0]?.url).toBe('/api/v1/captures/..%2Frefunds%3Fx%3D%2Fy')
  })
})
