import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/gateway.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { plain, refusal, scriptedBank } from '../bank/scripted-bank.ts'
import { startTestBank } from '../support/bank.ts'
import type { TestBank } from '../support/bank.ts'
import { authorized, captured, succeeded } from '../support/client.ts'
import type { Client } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** What is said is so: a third hand on a hold, a bank that forgets, a review that outlives its reason. */

const HOUR_MS = 3_600_000

async function scene(settings = {}) {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const { client, gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, settings })
  const clock = { laterMs: 0 }
  gateway.clock = { ...systemClock, databaseTime: () => new Date(Date.now() + clock.laterMs) }
  return { database, bank, client, gateway, clock }
}

async function check(client: Client, orderId: string, amountCents = 4_999) {
  const { shipmentCheck } = await client.query<{ shipmentCheck: { mayShip: boolean; reason: string } }>(
    'query ($orderId: String!, $amountCents: Cents!) { shipmentCheck(orderId: $orderId, amountCents: $amountCents) { mayShip reason confirmedBy } }',
    { orderId, amountCents },
  )
  return shipmentCheck
}

const CLOSE = `mutation ($input: CloseReviewInput!) { closeReview(input: $input) {
  __typename ... on PaymentProblem { code message }
  ... on PaymentReviewed { payment { state review { reason } transitions { toState cause actor } } auditLine { action actor } } } }`
async function close(client: Client, paymentId: string, outcome: string) {
  const input = { paymentId, outcome, reason: 'seen on the statement' }
  return (await client.query<{ closeReview: Record<string, unknown> }>(CLOSE, { input })).closeReview
}

const atTheDesk = (bank: TestBank, endpoint: string, body: object) =>
  fetch(`${bank.url}/api/v1/${endpoint}`, {
    method: 'POST',
    headers: { 'idempotency-key': randomUUID() },
    body: JSON.stringify(body),
  })

describe('what the bank says that somebody did', () => {
  it.each([
    ['capture', 'already_voided', 'AUTHORIZED'],
    ['void', 'already_captured', 'AUTHORIZED'],
    ['capture', 'already_captured', 'CAPTURED'],
    ['void', 'already_voided', 'VOIDED'],
  ] as const)(
    'to a %s that may have been carried out, "%s": the payment is %s',
    async (operation, code, state) => {
      const database = await testDatabase()
      let asked = 0
      const bank = await scriptedBank(({ url, body }) => {
        if (url.endsWith('/authorizations') && body !== '')
          return {
            body: JSON.stringify({
              authorization_id: `auth_${randomUUID()}`,
              status: 'approved',
              amount: (JSON.parse(body) as { amount: number }).amount,
              currency: 'USD',
              expires_at: '2099-01-01T00:00:00Z',
              created_at: '2026-11-23T00:00:00Z',
            }),
          }
        if (body === '') return plain("can't decode JSON body: EOF")
        asked += 1
        return asked === 1
          ? { status: 502, type: 'text/html', body: '<h1>Bad Gateway</h1>' }
          : refusal(400, code, 'the authorization was used')
      })
      const { client, gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
      const orderId = randomUUID()
      const { id } = await authorized(client, { orderId })
      const request = { paymentId: id, idempotencyKey: randomUUID() }
      let answer = await client[operation](request)
      while (answer.code === 'OUTCOME_UNKNOWN' && !answer.message.includes('operator')) {
        await sweep(gateway)
        answer = await client[operation](request)
      }
      expect(answer.payment?.state).toBe(state)
      if (state === 'AUTHORIZED') expect(answer).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
      // It was done, but nobody knows by whom: nothing is shipped on it.
      expect((await check(client, orderId)).mayShip).toBe(false)
    },
  )

  it('after a process that died before it sent a capture, and a void at the desk, ships nothing', async () => {
    const { bank, client, gateway } = await scene({ attemptTimeoutMs: 400, quietPeriodMs: 100 })
    const orderId = randomUUID()
    const { id, authorizationId } = await authorized(client, { orderId })
    await atTheDesk(bank, 'voids', { authorization_id: authorizationId })
    const { bank: real } = gateway
    gateway.bank = { ...real, send: () => Promise.reject(new Error('the process is gone')) }
    const request = { paymentId: id, idempotencyKey: randomUUID() }
    expect(await client.capture(request)).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    gateway.bank = real
    let answer = await client.capture(request)
    while (answer.code === 'OUTCOME_UNKNOWN') answer = await client.capture(request)
    expect(await check(client, orderId)).toEqual({
      mayShip: false,
      reason: 'CAPTURE_UNCONFIRMED',
      confirmedBy: null,
    })
  })

  it('of a capture without an id ships once its id is known', async () => {
    const { bank, client, gateway, clock } = await scene()
    const orderId = randomUUID()
    const { id, authorizationId } = await authorized(client, { orderId })
    expect(await check(client, orderId)).toEqual({ mayShip: true, reason: 'AUTHORIZED', confirmedBy: 'BANK' })
    bank.faults.add('drop-after-commit', { endpoint: 'captures', probe: false })
    await client.capture({ paymentId: id })
    clock.laterMs = 10_000
    while ((await check(client, orderId)).reason === 'OPERATION_IN_FLIGHT') await sweep(gateway)
    expect(await check(client, orderId)).toMatchObject({ mayShip: false, reason: 'CAPTURE_UNCONFIRMED' })
    const capture = (await bank.transactions('CAPTURE')).find((row) => row.reference_id === authorizationId)
    await client.query(
      'mutation ($input: EnterBankReferenceInput!) { enterBankReference(input: $input) { __typename } }',
      { input: { paymentId: id, bankReference: capture?.id, reason: 'statement, line 3' } },
    )
    expect(await check(client, orderId)).toEqual({ mayShip: true, reason: 'CAPTURED', confirmedBy: 'BANK' })
  })

  it('an operator who says that a capture was carried out confirms it', async () => {
    const { bank, client } = await scene()
    const orderId = randomUUID()
    const { id, authorizationId } = await authorized(client, { orderId })
    await atTheDesk(bank, 'captures', { authorization_id: authorizationId, amount: 4_999 })
    expect(await client.capture({ paymentId: id })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(await check(client, orderId)).toMatchObject({ mayShip: false })
    expect(await close(client, id, 'CARRIED_OUT')).toMatchObject({ payment: { state: 'CAPTURED' } })
    expect(await check(client, orderId)).toEqual({
      mayShip: true,
      reason: 'CAPTURED',
      confirmedBy: 'OPERATOR',
    })
  })
})

describe('a bank that has lost a hold', () => {
  const lost = async () => {
    const made = await scene()
    const orderId = randomUUID()
    const { id } = await authorized(made.client, { orderId })
    await made.bank.sql`truncate transactions, idempotency_keys`
    return { ...made, orderId, id }
  }

  it('is no change: the case is closed as lost, and the order may be paid anew', async () => {
    const { client, orderId, id } = await lost()
    expect(await client.capture({ paymentId: id })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    expect(await check(client, orderId)).toMatchObject({ mayShip: false, reason: 'UNDER_REVIEW' })
    expect(await close(client, id, 'NO_CHANGE')).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringContaining('LOST_AT_BANK'),
    })
    expect(await close(client, id, 'LOST_AT_BANK')).toMatchObject({
      payment: {
        state: 'EXPIRED',
        review: null,
        transitions: [{}, {}, { toState: 'EXPIRED', cause: 'EXPIRE', actor: 'gateway' }],
      },
      auditLine: { action: 'CLOSE_REVIEW', actor: 'ficmart' },
    })
    expect(await check(client, orderId)).toMatchObject({ mayShip: false, reason: 'AUTHORIZATION_EXPIRED' })
    expect(await client.capture({ paymentId: id })).toMatchObject({ code: 'AUTHORIZATION_EXPIRED' })
    expect(succeeded(await client.authorize({ orderId })).payment.state).toBe('AUTHORIZED')
  })

  it('without anybody having asked for it, too; and only of an authorized payment', async () => {
    const { client, id } = await lost()
    expect(await close(client, id, 'LOST_AT_BANK')).toMatchObject({ payment: { state: 'EXPIRED' } })
    expect(await close(client, id, 'LOST_AT_BANK')).toMatchObject({ code: 'NOTHING_TO_SETTLE' })
    const { client: other } = await scene()
    expect(await close(other, (await captured(other)).id, 'LOST_AT_BANK')).toMatchObject({
      code: 'NOTHING_TO_SETTLE',
    })
  })

  it('keeps an operation that somebody asks the bank about', async () => {
    const { bank, client, id } = await lost()
    const gate = bank.faults.hold('before', { endpoint: 'captures' })
    const capturing = client.capture({ paymentId: id })
    await gate.arrived
    expect(await close(client, id, 'LOST_AT_BANK')).toMatchObject({ code: 'OPERATION_IN_FLIGHT' })
    gate.open()
    await capturing
  })

  it('and that a reconciliation has found ships nothing, until it is found no more or an operator has dealt with it', async () => {
    const { database, client } = await scene()
    const orderId = randomUUID()
    const { id } = await authorized(client, { orderId })
    const found = async (kind: string) => {
      const [run] = await database.sql<{ id: string }[]>`
        insert into reconciliations (id, kind, actor, span_from, span_to, phase, finished_at)
        values (${uuidAt(1)}, 'GET', 'ficmart', now() - interval '1 day', now(), 'CLAIMS', now()) returning id`
      await database.sql`
        insert into discrepancies (id, reconciliation_id, kind, payment_id, ours)
        values (${randomUUID()}, ${run?.id ?? ''}, ${kind}, ${id.slice(4)}, '{}')`
    }
    await found('NOT_AT_BANK')
    expect(await check(client, orderId)).toMatchObject({ mayShip: false, reason: 'DISCREPANCY' })
    // A later run that compared it has not found it.
    await database.sql`
      insert into reconciliations (id, kind, actor, span_from, span_to, phase, finished_at)
      values (${uuidAt(2)}, 'GET', 'ficmart', now() - interval '1 day', now(), 'CLAIMS', now())`
    expect(await check(client, orderId)).toMatchObject({ mayShip: true })
    await database.sql`update discrepancies set reconciliation_id = ${uuidAt(2)}`
    expect(await check(client, orderId)).toMatchObject({ mayShip: false, reason: 'DISCREPANCY' })
    expect(await close(client, id, 'NO_CHANGE')).toMatchObject({ __typename: 'PaymentReviewed' })
    expect(await check(client, orderId)).toMatchObject({ mayShip: true })
  })
})

const uuidAt = (nth: number) => `01a22000-0000-7000-8000-00000000000${nth}`

describe('a review', () => {
  it('ends when the bank carries out what it was in doubt about, and says so', async () => {
    const { bank, client } = await scene()
    const orderId = randomUUID()
    const { id } = await authorized(client, { orderId })
    bank.faults.add('card-or-parent-not-found', { endpoint: 'captures', times: null })
    expect(await client.capture({ paymentId: id })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    expect(await check(client, orderId)).toMatchObject({ mayShip: false, reason: 'UNDER_REVIEW' })
    bank.faults.clear()
    expect(succeeded(await client.capture({ paymentId: id })).payment.state).toBe('CAPTURED')
    expect(await check(client, orderId)).toMatchObject({ mayShip: true, reason: 'CAPTURED' })
    const { payment } = await client.query<{ payment: unknown }>(
      `{ payment(by: { id: "${id}" }) { review { reason } auditLines { action actor reason closedReview } } }`,
    )
    expect(payment).toEqual({
      review: null,
      auditLines: [
        {
          action: 'END_REVIEW',
          actor: 'gateway',
          reason: expect.stringContaining('refutes'),
          closedReview: expect.stringContaining('does not know the id'),
        },
      ],
    })
  })

  it('of what the bank did otherwise than it was asked does not', async () => {
    const { bank, client } = await scene()
    const { id } = await captured(client)
    bank.faults.add('other-currency', { endpoint: 'refunds', probe: false })
    await client.refund({ paymentId: id })
    const { payment } = await client.query<{ payment: unknown }>(
      `{ payment(by: { id: "${id}" }) { review { reason } } }`,
    )
    expect(payment).toMatchObject({ review: { reason: expect.stringContaining('does not fit') } })
  })
})

describe('a bank that stays silent past its memory', () => {
  it.each(['unhealthy', 'drop-before'] as const)(
    '(%s) lets an authorize fail, with the mark of a possible orphan hold, and its order is free',
    async (fault) => {
      const { database, bank, client, gateway, clock } = await scene({ requestDeadlineMs: 500 })
      const orderId = randomUUID()
      bank.faults.add('drop-before', { endpoint: 'authorizations', probe: false })
      bank.faults.add(fault, { endpoint: fault === 'unhealthy' ? 'health' : 'authorizations', times: null })
      expect(await client.authorize({ orderId })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
      for (const hours of [1, 10, 22]) {
        clock.laterMs = hours * HOUR_MS
        await sweep(gateway)
      }
      const row = async () =>
        (
          await database.sql`
            select state, possible_orphan_hold_since is not null as marked, review_reason
            from payments where order_id = ${orderId}`
        )[0]
      expect(await row()).toEqual({ state: 'PENDING', marked: false, reviewReason: null })
      clock.laterMs = 24 * HOUR_MS
      await sweep(gateway)
      expect(await row()).toEqual({ state: 'FAILED', marked: true, reviewReason: null })
      bank.faults.clear()
      let answer = await client.authorize({ orderId })
      // Its circuit may be open.
      while (answer.code === 'BANK_UNAVAILABLE') answer = await client.authorize({ orderId })
      expect(succeeded(answer).payment.state).toBe('AUTHORIZED')
    },
  )

  it('and whose circuit is open as well', async () => {
    const { database, bank, client, gateway, clock } = await scene()
    const orderId = randomUUID()
    bank.faults.add('drop-before', { endpoint: 'authorizations', probe: false })
    bank.faults.add('unhealthy', { endpoint: 'health', times: null })
    await client.authorize({ orderId })
    gateway.bank = {
      ...gateway.bank,
      state: () => ({ circuit: 'open', inFlight: 0, inFlightMax: 9, queued: 0 }),
    }
    clock.laterMs = 24 * HOUR_MS
    await sweep(gateway)
    expect(await database.sql`select state from payments where order_id = ${orderId}`).toEqual([
      { state: 'FAILED' },
    ])
  })
})
