import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/gateway.ts'
import { claimAgain } from '../../src/operation/claim-again.ts'
import { claimRow } from '../../src/operation/claim-row.ts'
import { settle } from '../../src/operation/settle.ts'
import { derivedId } from '../../src/payment/ids.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, succeeded } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** A process that was paused, or lost its way, between a claim and its send. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])

/** A gateway whose clock jumps ahead, as after a pause, when it is told to. */
function pausing() {
  const test = startTestGateway({
    databaseUrl: database.url,
    bankUrl: bank.url,
    settings: { attemptTimeoutMs: 1_000, quietPeriodMs: 100, requestDeadlineMs: 60_000 },
  })
  let aheadMs = 0
  const pauses: number[] = []
  // Which of its clocks runs meanwhile: the monotonic one stands still while a machine is suspended, the other can be set back.
  const runs = { monotonic: true, wall: true }
  test.gateway.clock = {
    ...systemClock,
    monotonicMs: () => systemClock.monotonicMs() + (runs.monotonic ? aheadMs : 0),
    wallMs: () => systemClock.wallMs() + (runs.wall ? aheadMs : -aheadMs),
    // Asked for each statement: a pause begins as the statement leaves.
    databaseTime: () => {
      aheadMs += pauses.shift() ?? 0
      return null
    },
  }
  const sleepFor = (ms: number) => (aheadMs += ms)
  return { ...test, pauses, sleepFor, runs }
}

const operationOf = async (orderId: string) => {
  const [row] = await database.sql<{ attempt: number; status: string }[]>`
    select attempt, status from operations where input ->> 'orderId' = ${orderId}`
  return row
}

it.each([
  { monotonic: true, wall: true },
  { monotonic: true, wall: false },
  { monotonic: false, wall: true },
])('a claim that took longer than 5 s by %o sends nothing; it is claimed again first', async (clocks) => {
  const { client, pauses, runs } = pausing()
  Object.assign(runs, clocks)
  pauses.push(6_000, 6_000)
  const orderId = randomUUID()
  const sent = bank.received.length
  expect(succeeded(await client.authorize({ orderId })).payment.state).toBe('AUTHORIZED')
  expect(await operationOf(orderId)).toEqual({ attempt: 3, status: 'SUCCEEDED' })
  expect(bank.received.slice(sent)).toHaveLength(1)
})

it('a definite no is confirmed only by a healthy bank, and under a claim that is fresh by then', async () => {
  const { client, gateway, sleepFor } = pausing()
  const { bank: real } = gateway
  const healths = [true, true, true]
  gateway.bank = {
    ...real,
    healthy: async () => {
      if (healths.shift() === true && healths.length === 1) sleepFor(6_000)
      return await real.healthy()
    },
  }
  bank.faults.add('card-or-parent-not-found', { endpoint: 'authorizations', probe: false })
  bank.faults.add('unhealthy', { endpoint: 'health' })
  const orderId = randomUUID()
  const sends = () => bank.received.filter((line) => line.path.endsWith('/authorizations')).length
  const before = sends()
  expect(succeeded(await client.authorize({ orderId })).payment.state).toBe('AUTHORIZED')
  // Sent, refused; not sent (unhealthy); not sent (the claim had aged); sent.
  expect(sends() - before).toBe(2)
  expect(await operationOf(orderId)).toEqual({ attempt: 4, status: 'SUCCEEDED' })
})

it('what the bank said is in the log where it cannot be recorded', async () => {
  const { client, gateway, logged } = pausing()
  const { sql } = gateway
  gateway.sql = Object.assign(
    (...args: Parameters<typeof sql>) =>
      String(args[0]).includes('settle(') ? Promise.reject(new Error('the claim is gone')) : sql(...args),
    sql,
  ) as typeof sql
  expect(await client.authorize()).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
  const lost = logged.find((line) => line.includes('lost track of an operation')) ?? ''
  expect(JSON.parse(lost)).toMatchObject({
    conclusion: { is: 'FACT', bankId: expect.stringMatching(/^auth_/) },
  })
})

it('a fault of ours after the claim is answered as unknown, and the repeat finds the outcome', async () => {
  const { client, gateway, logged } = pausing()
  const { bank: real } = gateway
  gateway.bank = { ...real, send: () => Promise.reject(new Error('a bug of ours')) }
  const input = { orderId: randomUUID(), idempotencyKey: randomUUID() }
  expect(await client.authorize(input)).toMatchObject({
    code: 'OUTCOME_UNKNOWN',
    payment: { state: 'PENDING' },
  })
  expect(logged.join('')).toContain('lost track of an operation')
  gateway.bank = real
  let answer = await client.authorize(input)
  while (answer.code === 'OUTCOME_UNKNOWN') answer = await client.authorize(input)
  expect(answer).toMatchObject({ code: 'BANK_UNAVAILABLE', payment: { state: 'FAILED' } })
})

it('that an attempt may have been carried out outlives the loss of its claim', async () => {
  const { client, gateway } = pausing()
  const payment = (await authorized(client)).id.slice(4)
  const request = {
    client: 'ficmart',
    idempotencyKey: randomUUID(),
    kind: 'CAPTURE',
    input: { paymentId: payment, expectedAmountCents: null },
  } as const
  const ids = { operationId: derivedId(8), paymentId: payment, token: randomUUID() }
  const { operation } = await claimRow(gateway, request, ids, { maySend: true })
  if (operation === null) throw new Error('it was not claimed')
  const claimed = async (...about: Parameters<typeof claimAgain>) => {
    const turn = await claimAgain(...about)
    if ('lost' in turn) throw new Error('it was not claimed again')
    return turn.claim
  }
  const lose = async () => await database.sql`delete from operations where id = ${operation.id}`
  const next = { purpose: 'PROBE', calls: [] } as const
  const probe = await claimed(gateway, operation, { ...next, after: ids.token, ambiguous: true })
  await lose()
  const again = await claimed(gateway, probe.operation, { ...next, after: probe.token, ambiguous: false })
  expect(again.operation.ambiguousAt).not.toBeNull()
  await lose()
  const left = { conclusion: { is: 'LEAVE' }, ambiguous: false, calls: [] } as const
  expect((await settle(gateway, again, left)).operation).toMatchObject({
    status: 'UNRESOLVED',
    ambiguousAt: expect.any(Date),
  })
})
