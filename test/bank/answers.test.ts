import { describe, expect, test } from 'vitest'
import type { Answer, BankEndpoint } from '../../src/bank/bank.ts'
import {
  ALL,
  CARD,
  DONE,
  REQUESTS,
  clientOf,
  done,
  plain,
  refusal,
  replayed,
  scriptedBank,
} from './scripted-bank.ts'
import type { Scripted } from './scripted-bank.ts'

/** Every row of bank-contract's tables, over real HTTP: what the bank answers to a request, and what that means. */

const AUTHORIZATIONS: BankEndpoint[] = ['authorizations']
const CAPTURES: BankEndpoint[] = ['captures']
const REFUNDS: BankEndpoint[] = ['refunds']
const CAPTURES_AND_VOIDS: BankEndpoint[] = ['captures', 'voids']
const WITH_AMOUNT: BankEndpoint[] = ['authorizations', 'captures', 'refunds']

type Row = [why: string, to: BankEndpoint[], answer: Scripted, means: string]

const databaseFault = (message: string) => refusal(400, 'internal_error', message)
const html = (status: number): Scripted => ({ status, type: 'text/html', body: '<h1>Oops</h1>' })
const redirect = (status: number): Scripted => ({ status, headers: { location: '/elsewhere' } })

const REFUSED: Row[] = [
  ['chaos', ALL, refusal(500, 'internal_error'), 'notDone'],
  ['an insert failed, rolled back', ALL, refusal(500, 'internal_error', 'internal error'), 'notDone'],
  ['another 500', ALL, refusal(500, 'authorization_not_found'), 'ambiguous'],
  ['a 500 that is no JSON', ALL, html(500), 'ambiguous'],
  ['an empty 502', ALL, { status: 502 }, 'ambiguous'],
  ['a 503 in the words of chaos', ALL, refusal(503, 'internal_error'), 'ambiguous'],

  ['the database is down', ALL, databaseFault('failed to start transaction'), 'notDone'],
  ['a fault, rolled back', ALL, databaseFault('failed to create authorization'), 'notDone'],
  ['a fault, rolled back', ALL, databaseFault('failed to adjust balance'), 'notDone'],
  ['a fault, rolled back', ALL, databaseFault('failed to update account'), 'notDone'],
  ['a fault, rolled back', ALL, databaseFault('failed to check refund'), 'notDone'],
  ['the commit failed', ALL, databaseFault('failed to commit transaction'), 'ambiguous'],
  ['a fault of no known step', ALL, databaseFault('commit failed to start'), 'ambiguous'],
  ['a fault without a message', ALL, { status: 400, body: '{"error":"internal_error"}' }, 'ambiguous'],

  [
    'card not found',
    AUTHORIZATIONS,
    refusal(400, 'invalid_card', 'card not found or invalid'),
    'doubtful card',
  ],
  ['Luhn', AUTHORIZATIONS, refusal(400, 'invalid_card', 'invalid card number'), 'declined CARD_INVALID'],
  ['the CVV', AUTHORIZATIONS, refusal(400, 'invalid_cvv'), 'declined CVV_INVALID'],
  ['the card expired', AUTHORIZATIONS, refusal(400, 'card_expired'), 'declined CARD_EXPIRED'],
  ['balance too low', AUTHORIZATIONS, refusal(402, 'insufficient_funds'), 'declined INSUFFICIENT_FUNDS'],
  ['balance too low, but 400', AUTHORIZATIONS, refusal(400, 'insufficient_funds'), 'ambiguous'],
  ['a decline without a card', ['captures', 'voids', 'refunds'], refusal(400, 'invalid_card'), 'ambiguous'],

  ['no such authorization', CAPTURES_AND_VOIDS, refusal(400, 'authorization_not_found'), 'doubtful parent'],
  ['no such capture', REFUNDS, refusal(400, 'capture_not_found'), 'doubtful parent'],
  ['already used', CAPTURES_AND_VOIDS, refusal(400, 'authorization_already_used'), 'alreadyUsed'],
  ['already captured', CAPTURES_AND_VOIDS, refusal(400, 'already_captured'), 'alreadyUsed'],
  ['already voided', CAPTURES_AND_VOIDS, refusal(400, 'already_voided'), 'alreadyUsed'],
  ['already refunded', REFUNDS, refusal(400, 'already_refunded'), 'alreadyUsed'],
  ['after expiry', CAPTURES, refusal(400, 'authorization_expired'), 'holdExpired'],
  ['expiry, for a void', ['voids'], refusal(400, 'authorization_expired'), 'ambiguous'],

  ['an amount that differs', ['captures', 'refunds'], refusal(400, 'amount_mismatch'), 'misused'],
  ['an amount it does not take', WITH_AMOUNT, refusal(400, 'invalid_amount'), 'misused'],
  ['no key seen', ALL, refusal(400, 'missing_idempotency_key'), 'misused'],
  ['a request it cannot read', ALL, plain("can't decode JSON body: EOF\n"), 'misused'],
  ['no such path', ALL, { status: 404, type: 'text/plain', body: '404 page not found' }, 'misused'],
  ['no such method', ALL, { status: 405 }, 'misused'],
  ['a redirect, not followed', ALL, redirect(301), 'misused'],
  ['a redirect that keeps the method, not followed', ALL, redirect(307), 'misused'],

  ['a 400 in HTML', ALL, html(400), 'ambiguous'],
  ['a 400 of no type', ALL, { status: 400, type: '', body: 'bad' }, 'ambiguous'],
  ['an unknown code', ALL, refusal(400, 'card_on_fire'), 'ambiguous'],
  ['a code that is no text', ALL, { status: 400, body: '{"error":7}' }, 'ambiguous'],
  ['a 400 of null', ALL, { status: 400, body: 'null' }, 'ambiguous'],
  ["a proxy's limit", ALL, { status: 429 }, 'ambiguous'],
  ["misdirected (undici's fetch would send it again)", ALL, { status: 421 }, 'ambiguous'],
]

const eachOf = (
  endpoints: BankEndpoint[],
  why: string,
  answer: (to: BankEndpoint) => Scripted,
  means: string,
) => endpoints.map((to): Row => [why, [to], answer(to), means])
const unreadable = (why: string, answer: (to: BankEndpoint) => Scripted, to = ALL) =>
  eachOf(to, why, answer, 'ambiguous')
const text = (to: BankEndpoint) => JSON.stringify(DONE[to])

const CARRIED_OUT: Row[] = [
  eachOf(ALL, 'done', (to) => done(to), 'done'),
  eachOf(ALL, 'replayed', (to) => replayed(done(to)), 'done'),
  eachOf(ALL, 'done, and more said', (to) => done(to, { fee: 3 }), 'done'),

  ...[1233, 0, -1234].map((amount) =>
    eachOf(WITH_AMOUNT, `done with amount ${amount}`, (to) => done(to, { amount }), 'mismatch'),
  ),
  eachOf(WITH_AMOUNT, 'done in euros', (to) => done(to, { currency: 'EUR' }), 'mismatch'),
  eachOf(CAPTURES_AND_VOIDS, 'done to another', (to) => done(to, { authorization_id: 'auth_b' }), 'mismatch'),
  eachOf(REFUNDS, 'done to another', (to) => done(to, { capture_id: 'cap_b' }), 'mismatch'),

  ...['1234', 1234.5, 2 ** 53, null, true].map((amount) =>
    unreadable(`200 with amount ${JSON.stringify(amount)}`, (to) => done(to, { amount }), WITH_AMOUNT),
  ),
  unreadable(
    '200 with a lossy amount',
    (to) => ({ body: text(to).replace('1234', '9007199254740993') }),
    WITH_AMOUNT,
  ),
  unreadable('200 in dollars', (to) => done(to, { currency: 'dollars' }), WITH_AMOUNT),
  unreadable('200 of another status', (to) => done(to, { status: 'declined' })),
  unreadable('200 with a time that is none', () => done('captures', { captured_at: 'yesterday' }), CAPTURES),
  unreadable('200 with a refund id', () => done('captures', { capture_id: 'ref_1' }), CAPTURES),
  ...ALL.flatMap((to) =>
    Object.keys(DONE[to]).map((field) =>
      unreadable(`200 without ${field}`, () => done(to, { [field]: undefined }), [to]),
    ),
  ),
  unreadable('200 in HTML', () => html(200)),
  unreadable('200 without a body', () => ({})),
  unreadable('200 with half a body', (to) => ({ body: text(to).slice(0, -9) })),
  unreadable('200 with bytes behind the body', (to) => ({ body: `${text(to)}x` })),
  unreadable('200 with a list', (to) => ({ body: `[${text(to)}]` })),
  unreadable('200 with an error', () => refusal(200, 'internal_error')),
  unreadable('201', (to) => ({ ...done(to), status: 201 })),
  unreadable('204', () => ({ status: 204 })),
].flat()

const rows = [...REFUSED, ...CARRIED_OUT].flatMap(([why, endpoints, scripted, means]) =>
  endpoints.map((endpoint) => ({ endpoint, why, scripted, means })),
)

/** `declined CARD_INVALID`, `doubtful parent`, `done`. */
function meaning(answer: Answer): string {
  const which = answer.is === 'declined' ? answer.code : answer.is === 'doubtful' ? answer.about : ''
  return `${answer.is} ${which}`.trimEnd()
}

describe('an answer to a request that may move money', () => {
  test.each(rows)('$endpoint: $why => $means', async ({ endpoint, scripted, means }) => {
    const { url, received } = await scriptedBank(() => scripted)
    const { bank, logged } = clientOf(url)

    const { answer, calls } = await bank.send('op_1', REQUESTS[endpoint])

    expect(meaning(answer)).toBe(means)
    expect(received).toHaveLength(1)
    expect(calls).toMatchObject([
      {
        purpose: 'SEND',
        endpoint: `POST /api/v1/${endpoint}`,
        httpStatus: scripted.status ?? 200,
        conclusion: answer.is,
        replayed: scripted.headers?.['X-Idempotent-Replayed'] === 'true',
      },
    ])
    // Our own fault is an alarm, and nothing else is.
    expect(logged.map((line) => (JSON.parse(line) as { alarm: string }).alarm)).toEqual(
      answer.is === 'misused' ? ['bank-request-misused'] : [],
    )
  })

  test('a fact has the id and the times of the bank, digit by digit', async () => {
    const { url } = await scriptedBank((request) => done(request.url.split('/').at(-1) as BankEndpoint))
    const { bank } = clientOf(url)
    const asked = await Promise.all(ALL.map((endpoint) => bank.send('op_1', REQUESTS[endpoint])))
    const { authorizations, captures, voids, refunds } = DONE
    expect(asked.map(({ answer }) => (answer.is === 'done' ? answer.fact : answer))).toEqual([
      {
        bankId: authorizations.authorization_id,
        bankAt: '2026-11-23T19:25:01.123456789+01:00',
        expiresAt: '2026-11-30T19:25:01.123456789+01:00',
      },
      { bankId: captures.capture_id, bankAt: captures.captured_at, expiresAt: null },
      { bankId: voids.void_id, bankAt: voids.voided_at, expiresAt: null },
      { bankId: refunds.refund_id, bankAt: refunds.refunded_at, expiresAt: null },
    ])
  })

  test('a mismatch brings its evidence', async () => {
    const { url } = await scriptedBank(() =>
      done('captures', { amount: 99, currency: 'EUR', authorization_id: 'auth_b' }),
    )
    const { answer } = await clientOf(url).bank.send('op_1', REQUESTS.captures)
    expect(answer).toEqual({
      is: 'mismatch',
      reason: 'the bank carried it out with another amount and currency and parent id',
      evidence: {
        bankId: DONE.captures.capture_id,
        bankAt: DONE.captures.captured_at,
        expiresAt: null,
        amountCents: 99,
        currency: 'EUR',
        parentId: 'auth_b',
        expectedAmountCents: 1234,
        expectedParentId: DONE.captures.authorization_id,
      },
    })
  })

  test.each([
    [refusal(402, 'insufficient_funds'), 'insufficient_funds'],
    [refusal(500, 'internal_error'), 'internal_error'],
    [refusal(404, 'not_found'), 'not_found'],
    [refusal(400, 'any text 4111111111111111'), null],
    [html(502), null],
    [done('captures'), null],
  ])('%j is recorded with the code %s: only one that the contract knows', async (scripted, errorCode) => {
    const { url } = await scriptedBank(() => scripted)
    const { calls } = await clientOf(url).bank.send('op_1', REQUESTS.captures)
    expect(calls).toMatchObject([{ errorCode }])
  })

  test('the bank gets the key, the JSON and nothing twice, at a path without doubled slashes', async () => {
    const { url, received } = await scriptedBank(() => done('authorizations'))
    await clientOf(`${url}//mock///bank//`).bank.send('op_42', REQUESTS.authorizations)
    expect(received).toMatchObject([
      {
        method: 'POST',
        url: '/mock/bank/api/v1/authorizations',
        headers: { 'idempotency-key': 'op_42', 'content-type': 'application/json' },
      },
    ])
    expect(JSON.parse(received[0]?.body ?? '')).toEqual({
      card_number: CARD.number,
      cvv: CARD.cvv,
      expiry_month: 12,
      expiry_year: 2030,
      amount: 1234,
    })
  })
})
