import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { DatabaseSilent } from '../../src/db/pool.ts'
import { perform } from '../../src/operation/run.ts'
import type { Request } from '../../src/operation/result.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized } from '../support/client.ts'
import { privateServer, testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { connect } from '../../src/db/connection.ts'
import { migrate } from '../../src/db/migrate.ts'

/** The gateway's own operations go the road of a client's; and what a client is told when the receipts are out of reach. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client, gateway, logged } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const own = { client: 'gateway', card: null }

async function unusedHold(): Promise<string> {
  const answer = await fetch(`${bank.url}/api/v1/authorizations`, {
    method: 'POST',
    headers: { 'idempotency-key': randomUUID() },
    body: JSON.stringify({
      card_number: '4111111111111111',
      cvv: '123',
      expiry_month: 12,
      expiry_year: 2030,
      amount: 100,
    }),
  })
  const { authorization_id: id } = (await answer.json()) as { authorization_id: string }
  return id
}

describe('the gateway', () => {
  it('releases a stray hold at the bank, and a FAILED payment becomes VOIDED by it', async () => {
    bank.faults.add('chaos', { endpoint: 'authorizations', times: 4 })
    const failed = await client.authorize()
    const paymentId = failed.payment?.id.slice(4) ?? ''
    const authorizationId = await unusedHold()
    await database.sql`
      insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
      select ${authorizationId}, id, payment_id, 100, now() + interval '1 day', now() from operations where payment_id = ${paymentId}`
    const release: Request = {
      ...own,
      kind: 'RELEASE',
      idempotencyKey: randomUUID(),
      input: { paymentId, authorizationId },
    }
    expect(await perform(gateway, release)).toMatchObject({
      is: 'success',
      payment: { state: 'VOIDED', authorizationId },
    })
    const voids = (await bank.transactions('VOID')).filter((row) => row.reference_id === authorizationId)
    expect(voids).toHaveLength(1)
  })

  it('expires an authorization that ran out, by a void at the bank, and not before', async () => {
    const payment = await authorized(client)
    const paymentId = payment.id.slice(4)
    const expire = (): Request => ({
      ...own,
      kind: 'EXPIRE',
      idempotencyKey: randomUUID(),
      input: { paymentId, expectedAmountCents: null },
    })
    expect(await perform(gateway, expire())).toMatchObject({
      is: 'problem',
      problem: { code: 'INVALID_TRANSITION' },
    })
    await database.sql`update payments set authorization_expires_at = clock_timestamp() where id = ${paymentId}`
    expect(await perform(gateway, expire())).toMatchObject({
      is: 'success',
      payment: { state: 'EXPIRED' },
      transition: { cause: 'EXPIRE', actor: 'gateway' },
    })
    expect(await client.capture({ paymentId: payment.id })).toMatchObject({ code: 'AUTHORIZATION_EXPIRED' })
  })

  it('keeps the key of an order that is paid again free until its expired hold is released', async () => {
    const orderId = randomUUID()
    const { id } = await authorized(client, { orderId })
    const paymentId = id.slice(4)
    await database.sql`update payments set authorization_expires_at = clock_timestamp() where id = ${paymentId}`
    const paidAgain = { orderId, idempotencyKey: randomUUID() }
    expect(await client.authorize(paidAgain)).toMatchObject({
      code: 'ORDER_ALREADY_HAS_PAYMENT',
      retry: 'WAIT',
      message: expect.stringMatching(/has expired.*allowAnotherForOrder/),
      payment: { id },
    })
    const input = { paymentId, expectedAmountCents: null }
    await perform(gateway, { ...own, kind: 'EXPIRE', idempotencyKey: randomUUID(), input })
    expect(await client.authorize(paidAgain)).toMatchObject({
      replayed: false,
      payment: { state: 'AUTHORIZED' },
    })
  })

  it('keeps nobody waiting for an operator', { timeout: 10_000 }, async () => {
    const orderId = randomUUID()
    const { id } = await authorized(client, { orderId })
    bank.faults.add('other-parent', { endpoint: 'voids', probe: false })
    expect(await client.void({ paymentId: id })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(await client.capture({ paymentId: id })).toMatchObject({
      code: 'OPERATION_IN_FLIGHT',
      message: expect.stringContaining('waits for an operator'),
    })
    expect(await client.authorize({ orderId })).toMatchObject({
      code: 'ORDER_ALREADY_HAS_PAYMENT',
      retry: 'WAIT',
    })
  })

  it('flags an id that another payment has, and records no state from it', async () => {
    const [first, second] = [await authorized(client), await authorized(client)]
    await client.capture({ paymentId: first.id })
    const gate = bank.faults.hold('after-store', { endpoint: 'captures' })
    const capture = client.capture({ paymentId: second.id })
    await gate.arrived
    // Whatever made it so: the id that is on its way is on another receipt already.
    const [row] = await bank.transactions('CAPTURE').then((rows) => rows.slice(-1))
    await database.sql`update payments set capture_id = ${row?.id ?? ''} where id = ${first.id.slice(4)}`
    gate.open()
    expect(await capture).toMatchObject({ code: 'OUTCOME_UNKNOWN', payment: { state: 'AUTHORIZED' } })
    const [flagged] = await database.sql`select review_reason from payments where id = ${second.id.slice(4)}`
    expect(flagged?.['reviewReason']).toContain('another payment has')
    // The bank has done something under its key: a later attempt that fails does not say that nothing was captured.
    const operations = await database.sql`
      select status from operations
      where payment_id = ${second.id.slice(4)} and kind = 'CAPTURE' and ambiguous_at = sent_at and leased_until is null`
    expect(operations).toEqual([{ status: 'UNRESOLVED' }])
  })
})

it('a claim that got no answer may come late: its client is not told that nothing was done', async () => {
  const other = startTestGateway({
    databaseUrl: database.url,
    bankUrl: bank.url,
    settings: { requestDeadlineMs: 500 },
  })
  const { sql } = other.gateway
  const late: PromiseLike<unknown>[] = []
  other.gateway.sql = new Proxy(sql, {
    apply: (target, self, args: Parameters<typeof sql>) => {
      const statement = Reflect.apply(target, self, args)
      if (late.length > 0 || !String(args[0]).includes('from claim(')) return statement
      late.push(statement)
      return Promise.reject(new DatabaseSilent())
    },
  })
  const payment = await authorized(client)
  const gate = bank.faults.hold('before', { endpoint: 'voids' })
  bank.faults.add('chaos', { endpoint: 'voids', times: null })
  const voiding = client.void({ paymentId: payment.id })
  await gate.arrived
  const capture = { paymentId: payment.id, idempotencyKey: randomUUID() }
  expect(await other.client.capture(capture)).toMatchObject({ code: 'OUTCOME_UNKNOWN', retry: 'SAME_KEY' })
  gate.open()
  expect(await voiding).toMatchObject({ code: 'BANK_UNAVAILABLE' })
  bank.faults.clear()
  await Promise.all(late)
  const [claimed] =
    await database.sql`select status from operations where idempotency_key = ${capture.idempotencyKey}`
  expect(claimed).toEqual({ status: 'UNRESOLVED' })
})

describe('while Postgres is away', () => {
  it('a client is told that the outcome is unknown, never that nothing was sent; then everything goes on', async () => {
    const server = await privateServer()
    await server.createDatabase('gateway')
    const receipts = connect(server.url('gateway'), { connectionsMax: 1, statementTimeoutMs: 5_000 })
    await migrate(receipts)
    await receipts.end()
    const shaken = startTestGateway({
      databaseUrl: server.url('gateway'),
      bankUrl: bank.url,
      settings: { requestDeadlineMs: 400 },
    })
    const input = { idempotencyKey: randomUUID(), orderId: randomUUID() }
    await shaken.client.authorize(input)
    await server.restart(async () => {
      expect(await shaken.client.authorize(input)).toMatchObject({
        code: 'OUTCOME_UNKNOWN',
        retry: 'SAME_KEY',
      })
      expect(await shaken.client.authorize()).toMatchObject({ code: 'OUTCOME_UNKNOWN', retry: 'SAME_KEY' })
      const { errors } = await shaken.client.post('{ paymentsByOrder(orderId: "x") { id } }')
      expect(errors).toMatchObject([{ message: expect.not.stringContaining('127.0.0.1') }])
    })
    let answer = await shaken.client.authorize(input)
    while (answer.code === 'OUTCOME_UNKNOWN') answer = await shaken.client.authorize(input)
    expect(answer).toMatchObject({ replayed: true, payment: { state: 'AUTHORIZED' } })
  })
})

it('the log says what was settled, with ids and without a card', () => {
  const lines = logged.map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(lines).toContainEqual(
    expect.objectContaining({ msg: 'settled', kind: 'EXPIRE', payment: expect.stringMatching(/^pay_/) }),
  )
  expect(logged.join('')).not.toMatch(/4111111111111111|"123"/)
})
