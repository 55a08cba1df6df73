import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/gateway.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** What the sweep does by itself long after the answer. The database is told what time it is. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const start = () => startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const { client, gateway } = start()
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
let laterMs = 0
const clock = { ...systemClock, databaseTime: () => new Date(Date.now() + laterMs) }
gateway.clock = clock

beforeEach(() => {
  laterMs = 0
})

/** An authorize that the bank answers by cutting the line, and that has failed since. */
async function failedAfterAmbiguity(fault: 'drop-before' | 'drop-after-commit' | 'drop-after-store') {
  const orderId = randomUUID()
  bank.faults.add(fault, { endpoint: 'authorizations', probe: false })
  // While it looks, the bank finds no stored answer.
  bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: null })
  await client.authorize({ orderId })
  laterMs = 10 * 1_000
  while ((await paymentOf(orderId)).state === 'PENDING') await sweep(gateway)
  bank.faults.clear()
  return await paymentOf(orderId)
}

type Row = {
  id: string
  state: string
  authorizationId: string | null
  captureId: string | null
  possibleOrphanHoldSince: Date | null
  reviewReason: string | null
}
async function paymentOf(orderId: string): Promise<Row> {
  const [row] = await database.sql<Row[]>`select * from payments where order_id = ${orderId}`
  if (row === undefined) throw new Error('no such payment')
  return row
}
const probesOf = async (paymentId: string): Promise<number> => {
  const [row] = await database.sql<{ count: number }[]>`
    select count(*)::int from bank_calls c join operations o on o.id = c.operation_id
    where o.payment_id = ${paymentId} and c.purpose = 'PROBE'`
  return row?.count ?? 0
}
const voidsOf = async (authorizationId: string | null) =>
  (await bank.transactions('VOID')).filter((row) => row.reference_id === authorizationId)

describe('an authorize that failed and may have left a hold', () => {
  it('is asked about again, less and less often, while the bank remembers, and then no more', async () => {
    const { id, state, possibleOrphanHoldSince } = await failedAfterAmbiguity('drop-before')
    expect([state, possibleOrphanHoldSince]).toEqual(['FAILED', expect.any(Date)])
    const seen: number[] = []
    const before = await probesOf(id)
    for (const at of [
      4 * MINUTE_MS,
      6 * MINUTE_MS,
      59 * MINUTE_MS,
      61 * MINUTE_MS,
      21 * HOUR_MS,
      21.5 * HOUR_MS,
      22.1 * HOUR_MS,
      25 * HOUR_MS,
    ]) {
      laterMs = at
      await sweep(gateway)
      await sweep(gateway)
      seen.push((await probesOf(id)) - before)
    }
    expect(seen).toEqual([1, 2, 3, 3, 4, 4, 5, 5])
  })

  it('is asked about once by two processes that look at once', async () => {
    const other = start()
    other.gateway.clock = clock
    const { id } = await failedAfterAmbiguity('drop-before')
    const before = await probesOf(id)
    laterMs = 6 * MINUTE_MS
    await Promise.all([sweep(gateway), sweep(other.gateway), sweep(gateway)])
    expect((await probesOf(id)) - before).toBe(1)
  })

  it('has a hold that turns up released at the bank, and is VOIDED by that', async () => {
    const { id, state } = await failedAfterAmbiguity('drop-after-store')
    expect(state).toBe('FAILED')
    laterMs = 6 * MINUTE_MS
    // Found by the first round, released by the next.
    await sweep(gateway)
    await sweep(gateway)
    const [after] = await database.sql<Row[]>`select * from payments where id = ${id}`
    expect(after).toMatchObject({ state: 'VOIDED', authorizationId: expect.stringMatching(/^auth_/) })
    expect(after?.possibleOrphanHoldSince).toBeNull()
    expect(await voidsOf(after?.authorizationId ?? null)).toHaveLength(1)
    const { payment } = await client.query<{ payment: unknown }>(
      '{ payment(by: { id: "pay_' +
        id +
        '" }) { strayHolds { authorizationId releasedAt } transitions { toState cause actor } } }',
    )
    expect(payment).toEqual({
      strayHolds: [{ authorizationId: after?.authorizationId, releasedAt: expect.any(String) }],
      transitions: [
        { toState: 'PENDING', cause: 'AUTHORIZE', actor: 'ficmart' },
        { toState: 'FAILED', cause: 'AUTHORIZE', actor: 'ficmart' },
        { toState: 'VOIDED', cause: 'RELEASE', actor: 'gateway' },
      ],
    })
    laterMs = 2 * HOUR_MS
    const before = await probesOf(id)
    await sweep(gateway)
    expect(await probesOf(id)).toBe(before)
  })

  it('is asked again soon when the bank says nothing of use, or the process dies while it looks', async () => {
    const { id } = await failedAfterAmbiguity('drop-after-store')
    laterMs = 6 * MINUTE_MS
    bank.faults.add('unhealthy', { endpoint: 'health', times: null })
    await sweep(gateway)
    bank.faults.clear()
    expect((await database.sql`select from stray_holds where payment_id = ${id}`).length).toBe(0)
    laterMs += MINUTE_MS
    const dying = start()
    dying.gateway.clock = clock
    const { bank: real } = dying.gateway
    let probed = () => {}
    const reached = new Promise<void>((resolve) => (probed = resolve))
    dying.gateway.bank = {
      ...real,
      probe: () => {
        probed()
        return new Promise(() => {})
      },
    }
    void sweep(dying.gateway)
    await reached
    laterMs += MINUTE_MS
    await sweep(gateway)
    expect((await database.sql`select from stray_holds where payment_id = ${id}`).length).toBe(1)
  })
})

describe('a capture that is certain and whose id is missing', () => {
  it('gets its id when the bank is able to find it again', async () => {
    const payment = await authorized(client)
    const id = payment.id.slice(4)
    bank.faults.add('drop-after-store', { endpoint: 'captures', probe: false })
    bank.faults.add('lookup-fault', { endpoint: 'captures', times: null })
    await client.capture({ paymentId: payment.id })
    const stateNow = async () =>
      (await database.sql<Row[]>`select * from payments where id = ${id}`)[0] as Row
    laterMs = 10_000
    while ((await stateNow()).state === 'AUTHORIZED') await sweep(gateway)
    expect(await stateNow()).toMatchObject({ state: 'CAPTURED', captureId: null })
    expect(await client.refund({ paymentId: payment.id })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    bank.faults.clear()
    laterMs = 6 * MINUTE_MS
    await sweep(gateway)
    expect(await stateNow()).toMatchObject({ state: 'CAPTURED', captureId: expect.stringMatching(/^cap_/) })
    expect(await client.refund({ paymentId: payment.id })).toMatchObject({ payment: { state: 'REFUNDED' } })
  })
})

describe('a database whose clock was ahead and is set right', () => {
  it('asks the bank about an authorize as usual, from now on', async () => {
    const orderId = randomUUID()
    laterMs = 3 * HOUR_MS
    bank.faults.add('drop-before', { endpoint: 'authorizations', probe: false })
    bank.faults.add('unhealthy', { endpoint: 'health', times: 6 })
    await client.authorize({ orderId })
    bank.faults.clear()
    const { id } = await paymentOf(orderId)
    for (const ms of [0, 10_000]) {
      laterMs = ms
      const asked = await probesOf(id)
      await sweep(gateway)
      await sweep(gateway)
      expect((await probesOf(id)) - asked).toBe(ms === 0 ? 0 : 3)
    }
    expect((await paymentOf(orderId)).state).toBe('FAILED')
  })

  it('keeps no operation waiting until its clock has caught up', async () => {
    const { id } = await authorized(client)
    bank.faults.add('bad-gateway', { endpoint: 'captures', times: null })
    laterMs = 3 * HOUR_MS
    const input = { paymentId: id, idempotencyKey: randomUUID() }
    expect(await client.capture(input)).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    bank.faults.clear()
    for (laterMs = 0; laterMs <= MINUTE_MS; laterMs += MINUTE_MS) await sweep(gateway)
    expect(await client.capture(input)).toMatchObject({ payment: { state: 'CAPTURED' } })
  })

  it('takes nothing from who is at work on it', async () => {
    laterMs = 3 * HOUR_MS
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const paying = client.authorize({ card: { ...TEST_CARD, cvv: '999' } })
    await gate.arrived
    laterMs = 0
    await sweep(gateway)
    gate.open()
    expect(await paying).toMatchObject({ payment: { state: 'DECLINED' } })
  })
})

describe('an authorization that ran out', () => {
  it('is voided at the bank once, after a margin, by one of two processes that sweep at once', async () => {
    const other = start()
    other.gateway.clock = clock
    const orderId = randomUUID()
    const { authorizationId } = await authorized(client, { orderId })
    laterMs = 168 * HOUR_MS + 10_000
    await sweep(gateway)
    expect((await paymentOf(orderId)).state).toBe('AUTHORIZED')
    laterMs += 5 * MINUTE_MS
    await Promise.all([sweep(gateway), sweep(other.gateway)])
    expect((await paymentOf(orderId)).state).toBe('EXPIRED')
    expect(await voidsOf(authorizationId)).toHaveLength(1)
    expect(await client.capture({ paymentId: `pay_${(await paymentOf(orderId)).id}` })).toMatchObject({
      code: 'AUTHORIZATION_EXPIRED',
    })
  })

  it('is tried again, after a pause and under another key, when the bank would not', async () => {
    const orderId = randomUUID()
    await authorized(client, { orderId })
    laterMs = 169 * HOUR_MS
    bank.faults.add('chaos', { endpoint: 'voids', times: 4 })
    await sweep(gateway)
    await sweep(gateway)
    expect((await paymentOf(orderId)).state).toBe('AUTHORIZED')
    laterMs += MINUTE_MS
    await sweep(gateway)
    expect((await paymentOf(orderId)).state).toBe('EXPIRED')
    const { id } = await paymentOf(orderId)
    const tries =
      await database.sql`select status from operations where payment_id = ${id} and kind = 'EXPIRE' order by id`
    expect(tries.map((row) => row['status'])).toEqual(['REFUSED', 'SUCCEEDED'])
  })

  it('at a bank that has lost it for some minutes is voided all the same', async () => {
    const orderId = randomUUID()
    await authorized(client, { orderId })
    laterMs = 169 * HOUR_MS
    bank.faults.add('card-or-parent-not-found', { endpoint: 'voids', times: null })
    await sweep(gateway)
    laterMs += 5 * MINUTE_MS
    await sweep(gateway)
    bank.faults.clear()
    laterMs += 5 * MINUTE_MS
    await sweep(gateway)
    expect((await paymentOf(orderId)).state).toBe('EXPIRED')
  })

  it('at a bank that knows it no more waits, after ten tries, for an operator, who ends it', async () => {
    const orderId = randomUUID()
    const { id } = await authorized(client, { orderId })
    bank.faults.add('card-or-parent-not-found', { endpoint: 'voids', times: null })
    for (let hours = 169; hours < 182; hours += 1) {
      laterMs = hours * HOUR_MS
      await sweep(gateway)
    }
    bank.faults.clear()
    await sweep(gateway)
    const rows = await database.sql`
      select o.status, count(*)::int, max(jsonb_array_length(p.review_evidence)) as evidence
      from operations o join payments p on p.id = o.payment_id where p.id = ${id.slice(4)} and o.kind = 'EXPIRE'
      group by o.status order by o.status`
    expect(rows).toEqual([
      { status: 'REFUSED', count: 10, evidence: 1 },
      { status: 'UNRESOLVED', count: 1, evidence: 1 },
    ])
    const input = { paymentId: id, outcome: 'CARRIED_OUT', reason: 'the bank was reset' }
    await client.query(`mutation ($input: CloseReviewInput!) { closeReview(input: $input) { __typename } }`, {
      input,
    })
    expect((await paymentOf(orderId)).state).toBe('EXPIRED')
    expect(await client.authorize({ orderId })).toMatchObject({ payment: { state: 'AUTHORIZED' } })
  })

  it("by one clock alone keeps its hold: the database's may have jumped ahead, or this machine's", async () => {
    const orderId = randomUUID()
    const { id } = await authorized(client, { orderId })
    const [here, wallMs] = [{ ...clock, databaseTime: () => null }, clock.wallMs]
    const sweepBy = async (ms: number, expiresAt: string) => {
      await database.sql`update payments set authorization_expires_at = now() + ${expiresAt}::interval where id = ${id.slice(4)}`
      gateway.clock = { ...here, wallMs: () => wallMs() + ms }
      await sweep(gateway)
      gateway.clock = clock
      return (await paymentOf(orderId)).state
    }
    expect(await sweepBy(-2 * HOUR_MS, '-1 hour')).toBe('AUTHORIZED')
    expect(await sweepBy(2 * HOUR_MS, '1 hour')).toBe('AUTHORIZED')
    expect(await sweepBy(0, '-1 hour')).toBe('EXPIRED')
  })

  it('by the bank alone is believed: the capture is refused, the hold released', async () => {
    const orderId = randomUUID()
    bank.settings.authExpiryHours = 1 / 3_600
    const { id, authorizationId } = await authorized(client, { orderId })
    bank.settings.authExpiryHours = 168
    await database.sql`update payments set authorization_expires_at = now() + interval '7 days' where id = ${id.slice(4)}`
    await bank.sql`update transactions set expires_at = now() where id = ${authorizationId}`
    expect(await client.capture({ paymentId: id })).toMatchObject({ code: 'AUTHORIZATION_EXPIRED' })
    laterMs = 5 * MINUTE_MS
    await sweep(gateway)
    expect((await paymentOf(orderId)).state).toBe('EXPIRED')
    expect(await voidsOf(authorizationId)).toHaveLength(1)
  })

  it('is listed for operators before', async () => {
    const orderId = randomUUID()
    await authorized(client, { orderId })
    const expiring = async (hours: number) => {
      const { payments } = await client.query<{ payments: { edges: { node: { orderId: string } }[] } }>(
        'query ($before: DateTime!) { payments(filter: { expiringBefore: $before }, first: 100) { edges { node { orderId } } } }',
        { before: new Date(Date.now() + hours * HOUR_MS).toISOString() },
      )
      return payments.edges.some(({ node }) => node.orderId === orderId)
    }
    expect([await expiring(24), await expiring(169)]).toEqual([false, true])
  })
})
