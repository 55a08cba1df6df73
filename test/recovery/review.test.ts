import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/gateway.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** The ops desk settles what no rule can: by the bank's confirmation, by another try, by the bank's statement. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client, gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const HOUR_MS = 3_600_000
let laterMs = 0
gateway.clock = { ...systemClock, databaseTime: () => new Date(Date.now() + laterMs) }

beforeEach(() => {
  laterMs = 0
  bank.faults.clear()
})

const REVIEWED = `
  __typename
  ... on PaymentProblem { code message retry }
  ... on PaymentReviewed {
    payment { state captureId authorizationId review { reason } operationInFlight { kind } auditLines { action } }
    auditLine { action actor reason entered { name value } closedReview closedEvidence { reason } }
  }`
type Reviewed = {
  __typename: string
  code?: string
  message?: string
  payment?: {
    state: string
    captureId: string | null
    review: { reason: string } | null
    auditLines: unknown[]
  }
  auditLine?: Record<string, unknown>
}
async function operator(mutation: string, input: Record<string, unknown>): Promise<Reviewed> {
  const type = mutation.replace(/^./, (letter) => letter.toUpperCase())
  const { result } = await client.query<{ result: Reviewed }>(
    `mutation ($input: ${type}Input!) { result: ${mutation}(input: $input) { ${REVIEWED} } }`,
    { input: { reason: 'INC-17: looked at the statement', ...input } },
  )
  return result
}
const rerun = (paymentId: string) => operator('rerunRecovery', { paymentId })
const enter = (paymentId: string, bankReference: string) =>
  operator('enterBankReference', { paymentId, bankReference })
const close = (paymentId: string, outcome: string, more = {}) =>
  operator('closeReview', { paymentId, outcome, ...more })

/** Something that the bank did without us knowing: a person at the bank's desk, say. */
async function atTheBank(endpoint: string, body: Record<string, unknown>): Promise<Record<string, string>> {
  const answer = await fetch(`${bank.url}/api/v1/${endpoint}`, {
    method: 'POST',
    headers: { 'idempotency-key': randomUUID() },
    body: JSON.stringify(body),
  })
  return (await answer.json()) as Record<string, string>
}
const holdAtTheBank = async (amount: number) =>
  (
    await atTheBank('authorizations', {
      card_number: '4111111111111111',
      cvv: '123',
      expiry_month: 12,
      expiry_year: 2030,
      amount,
    })
  )['authorization_id'] ?? ''

/** An authorize whose answer was lost, and that nobody asked about until the bank had forgotten: FAILED, perhaps with a hold. */
async function forgottenAuthorize(amountCents = 4_999) {
  const orderId = randomUUID()
  bank.faults.add('drop-after-commit', { endpoint: 'authorizations', probe: false })
  bank.faults.add('unhealthy', { endpoint: 'health', times: null })
  const { payment } = await client.authorize({ orderId, amountCents })
  bank.faults.clear()
  laterMs += 25 * HOUR_MS
  await sweep(gateway)
  const [hold] = (await bank.transactions('AUTHORIZATION')).slice(-1)
  return { id: payment?.id ?? '', orderId, authorizationId: hold?.id ?? '' }
}

/** FAILED after an attempt of which nobody knew the outcome; `drop-after-store` has left a hold. */
async function failedAuthorize(fault: 'drop-before' | 'drop-after-store', amountCents = 4_999) {
  bank.faults.add(fault, { endpoint: 'authorizations', probe: false })
  bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: null })
  laterMs = 0
  const input = { idempotencyKey: randomUUID(), orderId: randomUUID(), amountCents }
  const { payment } = await client.authorize(input)
  const id = payment?.id ?? ''
  laterMs = 10_000
  while ((await stateOf(id)) === 'PENDING') await sweep(gateway)
  bank.faults.clear()
  const [hold] = (await bank.transactions('AUTHORIZATION')).slice(-1)
  return { id, input, authorizationId: hold?.id ?? '' }
}

/** The bank has placed the last hold over another amount, and says so by its key and by GET. */
async function makeLastHold(amountCents: number): Promise<string> {
  const [hold] = (await bank.transactions('AUTHORIZATION')).slice(-1)
  const id = hold?.id ?? ''
  await bank.sql`update transactions set amount_cents = ${amountCents} where id = ${id}`
  await bank.sql`
    update idempotency_keys set body = (body::jsonb || ${bank.sql.json({ amount: amountCents })})::text
    where body like ${`%${id}%`}`
  return id
}
const voidsOf = async (hold: string) =>
  (await bank.transactions('VOID')).filter((row) => row.reference_id === hold)

/** CAPTURED for certain, but the bank has lost the key, and nobody knows the id. */
async function capturedWithoutId() {
  const payment = await authorized(client)
  bank.faults.add('drop-after-commit', { endpoint: 'captures', probe: false })
  await client.capture({ paymentId: payment.id })
  laterMs = 10_000
  while ((await stateOf(payment.id)) === 'AUTHORIZED') await sweep(gateway)
  const capture = (await bank.transactions('CAPTURE')).find(
    (row) => row.reference_id === payment.authorizationId,
  )
  return { id: payment.id, captureId: capture?.id ?? '' }
}

/** A capture is asked for, and the hold was captured at the bank already by somebody else. */
async function capturedBySomebodyElse() {
  const payment = await authorized(client)
  const { capture_id: captureId = '' } = await atTheBank('captures', {
    authorization_id: payment.authorizationId,
    amount: 4_999,
  })
  expect(await client.capture({ paymentId: payment.id })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
  return { id: payment.id, captureId }
}

async function stateOf(id: string): Promise<string> {
  const [row] = await database.sql<{ state: string }[]>`select state from payments where id = ${id.slice(4)}`
  return row?.state ?? 'none'
}

it.each([
  ['it was 4111-1111 1111 1111, cvv 123', 'what could be the number of a card'],
  ['4222222222222', 'what could be the number of a card'],
  ['cvv 123 4111111111111111', 'what could be the number of a card'],
  ['INC-17 4111 1111 1111 1111', 'what could be the number of a card'],
  ['exp 12/30  4242\u00a04242.4242-4242 456', 'what could be the number of a card'],
  ['a\0b', 'NUL'],
  ['a\ud83d', 'half a character'],
])('a reason may not be %j', async (reason, why) => {
  const { id } = await authorized(client)
  const { closeReview } = await client.query<{ closeReview: unknown }>(
    `mutation ($input: CloseReviewInput!) { closeReview(input: $input) {
      __typename ... on InvalidInput { fields { path reason } } } }`,
    { input: { paymentId: id, outcome: 'NO_CHANGE', reason } },
  )
  expect(closeReview).toEqual({
    __typename: 'InvalidInput',
    fields: [{ path: 'input.reason', reason: expect.stringContaining(why) }],
  })
})

describe('a word that is not recorded', () => {
  it('leaves the case as it was: nothing is sent, and it can be said again', async () => {
    const { id } = await capturedBySomebodyElse()
    const { sql } = gateway
    gateway.sql = Object.assign(
      (...args: Parameters<typeof sql>) =>
        String(args[0]).includes('settle(')
          ? Promise.reject(new Error('this process is killed'))
          : sql(...args),
      sql,
    ) as typeof sql
    await client.post('mutation ($input: CloseReviewInput!) { closeReview(input: $input) { __typename } }', {
      input: { paymentId: id, outcome: 'NOT_CARRIED_OUT', reason: 'seen on the statement' },
    })
    gateway.sql = sql
    const sent = bank.received.length
    laterMs = HOUR_MS
    await sweep(gateway)
    expect(bank.received).toHaveLength(sent)
    expect(await close(id, 'NOT_CARRIED_OUT')).toMatchObject({
      payment: { state: 'AUTHORIZED', review: null },
    })
  })

  it('about what was settled meanwhile ends no review', async () => {
    const { id, captureId } = await capturedBySomebodyElse()
    const { sql } = gateway
    gateway.sql = Object.assign(async (...args: Parameters<typeof sql>) => {
      if (String(args[0]).includes('settle(')) {
        gateway.sql = sql
        await enter(id, captureId)
        await database.sql`update payments set review_reason = 'new', review_since = now(),
          review_evidence = '[{"reason": "new", "evidence": {}}]' where id = ${id.slice(4)}`
      }
      return await sql(...args)
    }, sql)
    expect(await close(id, 'NOT_CARRIED_OUT')).toMatchObject({ code: 'OPERATION_IN_FLIGHT' })
    const [row] = await database.sql`select state, review_reason from payments where id = ${id.slice(4)}`
    expect(row).toEqual({ state: 'CAPTURED', reviewReason: 'new' })
  })
})

describe('what somebody else did with the hold at the bank', () => {
  const byOthers = {
    voids: (authorizationId: string | null) => atTheBank('voids', { authorization_id: authorizationId }),
    captures: (authorizationId: string | null) =>
      atTheBank('captures', { authorization_id: authorizationId, amount: 4_999 }),
  }
  it.each([
    ['capture', 'voids'],
    ['void', 'captures'],
  ] as const)(
    'is never taken for our own %s, though the bank was away before and after',
    async (ours, theirs) => {
      const { id, authorizationId } = await authorized(client)
      await byOthers[theirs](authorizationId)
      bank.faults.add('unhealthy', { endpoint: 'health', times: 6 })
      const asked = { paymentId: id, idempotencyKey: randomUUID() }
      expect(await client[ours](asked)).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
      bank.faults.clear()
      // Where it is sent again, that attempt may have been carried out.
      bank.faults.add('drop-before', { endpoint: `${ours}s`, probe: false })
      for (laterMs = 10_000; laterMs < 70_000; laterMs += 10_000) await sweep(gateway)
      expect(await stateOf(id)).toBe('AUTHORIZED')
      expect(await client[ours](asked)).toMatchObject({ message: expect.stringContaining('operator') })
      // Nor when an operator has it asked again.
      await rerun(id)
      for (; laterMs < 140_000; laterMs += 10_000) await sweep(gateway)
      expect(await stateOf(id)).toBe('AUTHORIZED')
      expect(await client[ours](asked)).toMatchObject({ message: expect.stringContaining('operator') })
    },
  )
})

/** Both found by `npm run model`. */
describe('what the bank did otherwise than it was asked', () => {
  it('was done, so another try that the bank refuses is no refusal', async () => {
    const payment = await captured(client)
    bank.faults.add('other-currency', { endpoint: 'refunds', probe: false })
    await client.refund({ paymentId: payment.id })
    bank.faults.add('lookup-fault', { endpoint: 'refunds', probe: true })
    bank.faults.add('redirect', { endpoint: 'refunds', probe: false })
    expect(await rerun(payment.id)).toMatchObject({ __typename: 'PaymentReviewed' })
    laterMs = 10_000
    await sweep(gateway)
    expect(await stateOf(payment.id)).toBe('REFUNDED')
  })

  it('has left a hold, which is released when the bank then denies the authorize, and the case ends', async () => {
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    const { payment } = await client.authorize({ amountCents: 2_222 })
    const id = payment?.id ?? ''
    await makeLastHold(2_223)
    laterMs = 10_000
    bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: 3 })
    await rerun(id)
    expect(await stateOf(id)).toBe('FAILED')
    await sweep(gateway)
    expect(await stateOf(id)).toBe('VOIDED')
    expect(await close(id, 'NO_CHANGE')).toMatchObject({ payment: { state: 'VOIDED', review: null } })
    laterMs = 6 * 60_000
    await sweep(gateway)
    const [row] =
      await database.sql`select review_reason, possible_orphan_hold_since as mark from payments where id = ${id.slice(4)}`
    expect(row).toEqual({ reviewReason: null, mark: null })
  })

  it('is told as what it is: nobody asks the bank any more, an operator looks', async () => {
    const orderId = randomUUID()
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    expect(await client.authorize({ orderId })).toMatchObject({
      code: 'OUTCOME_UNKNOWN',
      retry: 'SAME_KEY',
      message: expect.stringContaining('an operator is looking at it'),
    })
    expect(await client.authorize({ orderId })).toMatchObject({
      code: 'ORDER_ALREADY_HAS_PAYMENT',
      message: expect.stringContaining('waits for an operator'),
    })
  })

  it('and only a late look shows, is released too', async () => {
    const { id, input } = await failedAuthorize('drop-after-store', 7_311)
    expect(await client.authorize(input)).toMatchObject({
      message: expect.stringContaining('may still be held'),
    })
    const hold = await makeLastHold(9_999)
    laterMs = 6 * 60_000
    await sweep(gateway)
    // It is known by now, and not released yet: nobody is told that nothing was held.
    expect(await client.authorize(input)).toMatchObject({
      message: expect.stringContaining('about to be'),
      payment: { state: 'FAILED' },
    })
    await sweep(gateway)
    expect(await stateOf(id)).toBe('VOIDED')
    expect(await voidsOf(hold)).toHaveLength(1)
    for (const outcome of ['CARRIED_OUT', 'NOT_CARRIED_OUT'])
      expect(await close(id, outcome)).toMatchObject({ message: expect.stringContaining('with NO_CHANGE') })
    expect(await close(id, 'NO_CHANGE')).toMatchObject({
      auditLine: { closedReview: expect.stringContaining('does not fit the request') },
    })
  })

  it('is released when an operator finds the hold that was asked for', async () => {
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    const { payment } = await client.authorize({ amountCents: 6_177 })
    const wrong = await makeLastHold(1_000)
    const right = await holdAtTheBank(6_177)
    expect(await enter(payment?.id ?? '', right)).toMatchObject({
      payment: { state: 'AUTHORIZED', authorizationId: right, review: null },
    })
    await sweep(gateway)
    expect([await voidsOf(wrong), await voidsOf(right)]).toMatchObject([[{}], []])
  })

  it('is no other payment’s, however well amount and time agree', async () => {
    const { id } = await failedAuthorize('drop-before', 3_777)
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    const { payment } = await client.authorize({ amountCents: 3_777 })
    const [hold] = (await bank.transactions('AUTHORIZATION')).slice(-1)
    expect(await enter(id, hold?.id ?? '')).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringContaining(payment?.id ?? 'none'),
    })
    // The bank confirms it to the payment that it was given to.
    expect(await enter(payment?.id ?? '', hold?.id ?? '')).toMatchObject({ payment: { state: 'AUTHORIZED' } })
    expect(
      await database.sql`select from stray_holds where authorization_id = ${hold?.id ?? ''}`,
    ).toHaveLength(0)
  })
})

describe('a reference from the statement', () => {
  it('completes a capture whose id is missing, and the refund goes', async () => {
    const { id, captureId } = await capturedWithoutId()
    expect(await client.refund({ paymentId: id })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    expect(await enter(id, captureId)).toMatchObject({
      payment: { state: 'CAPTURED', captureId },
      auditLine: {
        action: 'ENTER_BANK_REFERENCE',
        actor: 'ficmart',
        reason: 'INC-17: looked at the statement',
        entered: [{ name: 'bankReference', value: captureId }],
      },
    })
    expect(await client.refund({ paymentId: id })).toMatchObject({ payment: { state: 'REFUNDED' } })
  })

  it('settles a capture that somebody else did at the bank, and ends the review', async () => {
    const { id, captureId } = await capturedBySomebodyElse()
    expect(await enter(id, captureId)).toMatchObject({
      payment: { state: 'CAPTURED', captureId, review: null },
      auditLine: {
        closedReview: expect.stringContaining('done already'),
        closedEvidence: [expect.anything()],
      },
    })
  })

  it('finds the hold of an authorize that the bank has forgotten: it is released, and the mark goes', async () => {
    const { id, authorizationId } = await forgottenAuthorize()
    const { payments } = await client.query<{ payments: { edges: { node: object }[] } }>(
      '{ payments(filter: { possibleOrphanHold: true }) { edges { node { id state review { reason } } } } }',
    )
    expect(payments.edges.map(({ node }) => node)).toContainEqual({ id, state: 'FAILED', review: null })
    expect(await enter(id, authorizationId)).toMatchObject({ payment: { state: 'FAILED' } })
    await sweep(gateway)
    expect(await voidsOf(authorizationId)).toHaveLength(1)
    const [row] =
      await database.sql`select state, possible_orphan_hold_since as mark from payments where id = ${id.slice(4)}`
    expect(row).toEqual({ state: 'VOIDED', mark: null })
  })

  it('of a failed authorize is a stray hold: released, never captured', async () => {
    const { id, authorizationId } = await forgottenAuthorize()
    // The statement of the day showed nothing; a later one does.
    await close(id, 'NOT_CARRIED_OUT')
    expect(await enter(id, authorizationId)).toMatchObject({ code: 'NOTHING_TO_SETTLE' })
    await database.sql`update payments set possible_orphan_hold_since = now() where id = ${id.slice(4)}`
    expect(await enter(id, authorizationId)).toMatchObject({ payment: { state: 'FAILED' } })
    await sweep(gateway)
    expect(await stateOf(id)).toBe('VOIDED')
    expect(await voidsOf(authorizationId)).toHaveLength(1)
  })

  it.each([
    ['of another amount', async () => (await forgottenAuthorize(1_234)).authorizationId, /another amount/],
    ['that the bank does not know', () => `auth_${randomUUID()}`, /does not know/],
    [
      'that another payment has',
      async () => (await authorized(client)).authorizationId ?? '',
      /has it already/,
    ],
    ['of a void', () => `void_${randomUUID()}`, /no authorization/],
    [
      'that was placed long before it was asked for',
      async () => {
        const id = await holdAtTheBank(4_999)
        await bank.sql`update transactions set created_at = created_at - interval '30 days' where id = ${id}`
        return id
      },
      /placed it at .* not when this payment was asked for/,
    ],
  ])('%s is refused, and nothing changes', async (_, reference, why) => {
    const bankReference = await reference()
    const { id } = await forgottenAuthorize()
    expect(await enter(id, bankReference)).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringMatching(why),
    })
    expect(await stateOf(id)).toBe('FAILED')
    const [row] =
      await database.sql`select count(*)::int as lines from audit_lines where payment_id = ${id.slice(4)}`
    expect(row?.['lines']).toBe(0)
  })

  it('that may be that of a payment whose recovery still asks is refused, and that one gets it', async () => {
    const amountCents = 5_434
    const { id } = await failedAuthorize('drop-before', amountCents)
    bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
    bank.faults.add('unhealthy', { endpoint: 'health', times: null })
    const { payment: other } = await client.authorize({ amountCents })
    bank.faults.clear()
    const [hold] = (await bank.transactions('AUTHORIZATION')).slice(-1)
    expect(await enter(id, hold?.id ?? '')).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringContaining(other?.id ?? 'none'),
    })
    laterMs += 60_000
    await sweep(gateway)
    expect(await stateOf(other?.id ?? '')).toBe('AUTHORIZED')
    expect(await enter(id, hold?.id ?? '')).toMatchObject({
      message: expect.stringContaining('has it already'),
    })
  })

  it('that a late look may show to be of another payment charges nobody', async () => {
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    const { payment } = await client.authorize({ amountCents: 5_433 })
    const other = await failedAuthorize('drop-after-store', 5_433)
    expect(await enter(payment?.id ?? '', other.authorizationId)).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringContaining(other.id),
    })
  })

  it('is entered however often others were refused meanwhile', async () => {
    const { id, captureId } = await capturedWithoutId()
    expect(await client.refund({ paymentId: id })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    await database.sql`
      insert into operations select (jsonb_populate_record(o, jsonb_build_object(
        'id', gen_random_uuid(), 'idempotency_key', gen_random_uuid()))).*
      from operations o, generate_series(1, 200) where o.payment_id = ${id.slice(4)} and o.kind = 'REFUND'`
    expect(await enter(id, captureId)).toMatchObject({ payment: { captureId } })
  })

  it('of one of two that failed alike is looked for by key before a person may guess', async () => {
    const [one, other] = [
      await failedAuthorize('drop-after-store', 4_997),
      await failedAuthorize('drop-after-store', 4_997),
    ]
    expect(await enter(one.id, other.authorizationId)).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringContaining(other.id),
    })
    laterMs = 6 * 60_000
    await sweep(gateway)
    await sweep(gateway)
    expect([await stateOf(one.id), await stateOf(other.id)]).toEqual(['VOIDED', 'VOIDED'])
    expect([await voidsOf(one.authorizationId), await voidsOf(other.authorizationId)]).toMatchObject([
      [{}],
      [{}],
    ])
  })

  it('that is a stray hold of another already is refused, and its own is still looked for', async () => {
    const one = await failedAuthorize('drop-after-store', 4_998)
    expect(await enter(one.id, one.authorizationId)).toMatchObject({ __typename: 'PaymentReviewed' })
    const other = await failedAuthorize('drop-after-store', 4_998)
    expect(await enter(other.id, one.authorizationId)).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringContaining('has it already'),
    })
    laterMs = 6 * 60_000
    await sweep(gateway)
    await sweep(gateway)
    expect(await stateOf(other.id)).toBe('VOIDED')
  })

  it('of another authorization is refused', async () => {
    const { id } = await capturedWithoutId()
    const other = await captured(client)
    await database.sql`update payments set capture_id = null where id = ${other.id.slice(4)}`
    expect(await enter(id, other.captureId ?? '')).toMatchObject({
      code: 'BANK_REFERENCE_REFUSED',
      message: expect.stringContaining('another authorization or capture'),
    })
  })

  it('is neither believed nor refused while the bank does not answer, or answers as if its database failed', async () => {
    const { id, captureId } = await capturedWithoutId()
    bank.faults.add('chaos', { endpoint: 'captures', method: 'GET', times: 4 })
    expect(await enter(id, captureId)).toMatchObject({ code: 'BANK_UNAVAILABLE', retry: 'WAIT' })
    bank.faults.add('database-down', { endpoint: 'captures', method: 'GET' })
    bank.faults.add('unhealthy', { endpoint: 'health' })
    expect(await enter(id, captureId)).toMatchObject({ code: 'BANK_UNAVAILABLE', retry: 'WAIT' })
    bank.faults.add('database-down', { endpoint: 'captures', method: 'GET' })
    expect(await enter(id, captureId)).toMatchObject({ payment: { captureId } })
  })

  it('is asked for again when the bank fails at random, and every question is on record', async () => {
    const { id, captureId } = await capturedWithoutId()
    bank.faults.add('chaos', { endpoint: 'captures', method: 'GET', times: 3 })
    expect(await enter(id, captureId)).toMatchObject({ payment: { captureId } })
    const lookups = await database.sql`
      select c.conclusion from bank_calls c join operations o on o.id = c.operation_id
      where o.payment_id = ${id.slice(4)} and c.purpose = 'LOOKUP' order by c.id`
    expect(lookups.map(({ conclusion }) => conclusion as string)).toEqual([
      'noAnswer',
      'noAnswer',
      'noAnswer',
      'found',
    ])
  })

  it('for a payment that lacks none is refused', async () => {
    const { id, captureId } = await captured(client)
    expect(await enter(id, captureId ?? '')).toMatchObject({ code: 'NOTHING_TO_SETTLE' })
  })
})

describe('recovery that is run again', () => {
  it('settles what the bank can tell by now', async () => {
    bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
    bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: null })
    const { payment } = await client.authorize()
    const id = payment?.id ?? ''
    laterMs = 25 * HOUR_MS
    await sweep(gateway)
    bank.faults.clear()
    expect(await rerun(id)).toMatchObject({
      payment: { state: 'FAILED', auditLines: [{ action: 'RERUN_RECOVERY' }] },
    })
    await sweep(gateway)
    expect(await stateOf(id)).toBe('VOIDED')
  })

  it('finds the same again where nothing has changed, and guesses nothing', async () => {
    const { id } = await forgottenAuthorize()
    expect(await rerun(id)).toMatchObject({ payment: { state: 'FAILED', review: null } })
    const [row] =
      await database.sql`select possible_orphan_hold_since as mark from payments where id = ${id.slice(4)}`
    expect(row?.['mark']).toBeInstanceOf(Date)
  })

  it('looks for a hold of a failed authorize before its time', async () => {
    bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
    bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: null })
    const { payment } = await client.authorize()
    const id = payment?.id ?? ''
    laterMs = 10_000
    while ((await stateOf(id)) === 'PENDING') await sweep(gateway)
    bank.faults.clear()
    expect(await rerun(id)).toMatchObject({ payment: { state: 'FAILED' } })
    await sweep(gateway)
    expect(await stateOf(id)).toBe('VOIDED')
  })

  it('has nothing to do for a payment that is settled, and leaves alone what is under way', async () => {
    const payment = await authorized(client)
    expect(await rerun(payment.id)).toMatchObject({ code: 'NOTHING_TO_SETTLE' })
    expect(await rerun(`pay_${randomUUID()}`)).toMatchObject({ code: 'PAYMENT_NOT_FOUND' })
    const gate = bank.faults.hold('before', { endpoint: 'captures' })
    const capture = client.capture({ paymentId: payment.id })
    await gate.arrived
    expect(await rerun(payment.id)).toMatchObject({ code: expect.stringMatching(/IN_FLIGHT|UNKNOWN/) })
    const [{ operationId } = {}] = await database.sql<{ operationId: string }[]>`
      select 'op_' || id as operation_id from operations where payment_id = ${payment.id.slice(4)} and kind = 'CAPTURE'`
    for (const named of [{}, { operationId }]) {
      expect(await close(payment.id, 'NOT_CARRIED_OUT', named)).toMatchObject({ code: 'OPERATION_IN_FLIGHT' })
    }
    gate.open()
    expect(await capture).toMatchObject({ payment: { state: 'CAPTURED' } })
  })
})

describe('a case is closed by what the statement shows', () => {
  it('carried out: the payment moves, without an id', async () => {
    const { id, captureId } = await capturedBySomebodyElse()
    expect(await close(id, 'CARRIED_OUT')).toMatchObject({
      payment: { state: 'CAPTURED', captureId: null, review: null, operationInFlight: null },
      auditLine: { action: 'CLOSE_REVIEW', entered: [{ name: 'outcome', value: 'CARRIED_OUT' }] },
    })
    expect(await enter(id, captureId)).toMatchObject({ payment: { captureId } })
  })

  it('not carried out: the payment is free again, its key answered', async () => {
    const { id, orderId } = await forgottenAuthorize()
    expect(await close(id, 'NOT_CARRIED_OUT')).toMatchObject({ payment: { state: 'FAILED', review: null } })
    expect(await client.authorize({ orderId })).toMatchObject({ payment: { state: 'AUTHORIZED' } })
    const { id: second } = await capturedBySomebodyElse()
    expect(await close(second, 'NOT_CARRIED_OUT')).toMatchObject({
      payment: { state: 'AUTHORIZED', review: null, operationInFlight: null },
    })
  })

  it('not carried out as asked: the hold that the bank placed instead is released', async () => {
    const amountCents = 6_311
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    const { payment } = await client.authorize({ amountCents })
    const id = payment?.id ?? ''
    const [hold] = (await bank.transactions('AUTHORIZATION')).slice(-1)
    expect(await close(id, 'NOT_CARRIED_OUT')).toMatchObject({ payment: { state: 'FAILED', review: null } })
    await sweep(gateway)
    expect(await stateOf(id)).toBe('VOIDED')
    expect(await voidsOf(hold?.id ?? '')).toHaveLength(1)
  })

  it('an authorize is never taken for carried out without its reference', async () => {
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    const { payment } = await client.authorize()
    const id = payment?.id ?? ''
    expect(await close(id, 'CARRIED_OUT')).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    expect(await close(id, 'NO_CHANGE')).toMatchObject({ code: 'NOTHING_TO_SETTLE' })
    expect(await stateOf(id)).toBe('PENDING')
  })

  it('a void by the reference that nobody can look up', async () => {
    const payment = await authorized(client)
    const { void_id: voidReference } = await atTheBank('voids', { authorization_id: payment.authorizationId })
    expect(await client.void({ paymentId: payment.id })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(await close(payment.id, 'CARRIED_OUT', { voidReference })).toMatchObject({
      payment: { state: 'VOIDED' },
    })
    const [row] = await database.sql`select void_id from payments where id = ${payment.id.slice(4)}`
    expect(row?.['voidId']).toBe(voidReference)
  })

  it('the operation that is meant, where two wait', async () => {
    const { id } = await failedAuthorize('drop-before', 1_010)
    const holds = [await holdAtTheBank(1_010), await holdAtTheBank(1_010)]
    // Both were voided at the bank's desk.
    const voids = await Promise.all(holds.map((hold) => atTheBank('voids', { authorization_id: hold })))
    await database.sql`
      insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
      select hold, o.id, o.payment_id, 1010, now() + interval '7 days', now()
      from operations o, unnest(${holds}::text[]) as hold where o.payment_id = ${id.slice(4)}`
    await sweep(gateway)
    const releases = await database.sql<{ id: string; hold: string }[]>`
      select 'op_' || id as id, input ->> 'authorizationId' as hold from operations
      where payment_id = ${id.slice(4)} and kind = 'RELEASE' and status = 'UNRESOLVED' and leased_until is null`
    expect(releases).toHaveLength(2)
    const voidReference = voids[1]?.['void_id']
    const which = {
      code: 'NOTHING_TO_SETTLE',
      message: expect.stringContaining(releases[0]?.id ?? 'none') as string,
    }
    expect([await close(id, 'CARRIED_OUT', { voidReference }), await rerun(id)]).toMatchObject([which, which])
    const meant = releases.find(({ hold }) => hold === holds[1])
    await close(id, 'CARRIED_OUT', { voidReference, operationId: meant?.id })
    expect(
      await database.sql`
        select authorization_id as hold from stray_holds where payment_id = ${id.slice(4)} and released_at is not null`,
    ).toEqual([{ hold: holds[1] }])
    // It waits no more; the other one alone needs no name.
    expect(await close(id, 'CARRIED_OUT', { voidReference, operationId: meant?.id })).toMatchObject({
      code: 'NOTHING_TO_SETTLE',
    })
    expect(await rerun(id)).toMatchObject({ __typename: 'PaymentReviewed' })
  })

  it('dealt with: the review ends, the evidence is kept in the line', async () => {
    const payment = await authorized(client)
    bank.faults.add('card-or-parent-not-found', { endpoint: 'captures', probe: false, times: 3 })
    expect(await client.capture({ paymentId: payment.id })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    expect(await close(payment.id, 'NO_CHANGE')).toMatchObject({
      payment: { state: 'AUTHORIZED', review: null },
      auditLine: {
        closedReview: expect.stringContaining('does not know the id'),
        closedEvidence: [expect.anything()],
      },
    })
    expect(await close(payment.id, 'NO_CHANGE')).toMatchObject({ code: 'NOTHING_TO_SETTLE' })
  })

  it('a possible orphan hold that was none is unmarked, and looked for no more', async () => {
    bank.faults.add('drop-before', { endpoint: 'authorizations', probe: false })
    const input = { idempotencyKey: randomUUID(), orderId: randomUUID() }
    const { payment } = await client.authorize(input)
    const id = payment?.id ?? ''
    laterMs = 10_000
    while ((await stateOf(id)) === 'PENDING') await sweep(gateway)
    expect(await client.authorize(input)).toMatchObject({
      message: expect.stringContaining('may still be held'),
    })
    expect(await close(id, 'NOT_CARRIED_OUT')).toMatchObject({ payment: { state: 'FAILED' } })
    // Its client was told that the amount may be held; that is over, too.
    expect(await client.authorize(input)).toMatchObject({
      code: 'BANK_UNAVAILABLE',
      message: expect.not.stringContaining('may still be held'),
    })
    const rows = await database.sql`
      select p.possible_orphan_hold_since as mark, o.look_again_at as look
      from payments p join operations o on o.payment_id = p.id where p.id = ${id.slice(4)}`
    expect(rows).toEqual([{ mark: null, look: null }])
  })

  it('only with a reason, and the line can never be changed', async () => {
    const { id } = await forgottenAuthorize()
    for (const reason of ['', '  ', 'x'.repeat(1_001)]) {
      expect(await operator('rerunRecovery', { paymentId: id, reason })).toMatchObject({
        __typename: 'InvalidInput',
      })
    }
    await rerun(id)
    await expect(database.sql`update audit_lines set reason = 'another'`).rejects.toThrow('append-only')
  })
})

it('a hold that no payment can be tied to is only ever released by name', async () => {
  const nobodys = await holdAtTheBank(77)
  const { id } = await captured(client)
  expect(await enter(id, nobodys)).toMatchObject({ code: 'NOTHING_TO_SETTLE' })
})
