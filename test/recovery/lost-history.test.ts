import { randomUUID } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { bankKey } from '../../src/operation/bank-key.ts'
import { timeOrderedId } from '../../src/payment/ids.ts'
import type { Operation, Payment } from '../../src/payment/payment.ts'
import { lookAtHistory, startHistory } from '../../src/recovery/history.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, succeeded } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { loseCommits } from '../support/lost-commits.ts'
import { temporaryFolder } from '../support/temporary.ts'

/** The receipts go back in time: a standby is promoted that had not had the last commits, a backup is restored. */

async function scene() {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const start = () => startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
  const { client, gateway, logged } = start()
  const restore = () => database.sql`select note_history('RESTORED')`
  const typesOf = async (amountCents: number) =>
    (await bank.transactions()).filter((row) => row.amount_cents === amountCents).map(({ type }) => type)
  return { database, bank, start, client, gateway, logged, restore, typesOf }
}
const authorize = (amountCents: number) => ({
  idempotencyKey: randomUUID(),
  orderId: randomUUID(),
  amountCents,
})

describe('a claim that is lost while the bank works on it', () => {
  it('is made again by who settles it: one hold, one receipt, and its client is told', async () => {
    const { database, bank, client, logged, typesOf } = await scene()
    const input = authorize(7_771)
    const gate = bank.faults.hold('after-store', { endpoint: 'authorizations' })
    const paying = client.authorize(input)
    await gate.arrived
    await loseCommits(database, [input.idempotencyKey])
    gate.open()
    const told = succeeded(await paying)
    expect(told.payment.state).toBe('AUTHORIZED')
    expect(succeeded(await client.authorize(input))).toMatchObject({
      replayed: true,
      payment: { id: told.payment.id, authorizationId: told.payment.authorizationId },
    })
    expect(await typesOf(7_771)).toEqual(['AUTHORIZATION'])
    expect(logged.join('')).toContain('"alarm":"operation-gone"')
    const calls = await database.sql`
      select conclusion from bank_calls c join operations o on o.id = c.operation_id
      where o.idempotency_key = ${input.idempotencyKey}`
    expect(calls).toEqual([{ conclusion: 'done' }])
  })

  it('and whose process has ended leaves one hold when its client repeats the request', async () => {
    const { database, start, bank, typesOf } = await scene()
    const input = authorize(7_772)
    const [dying, next] = [start(), start()]
    const gate = bank.faults.hold('after-store', { endpoint: 'authorizations' })
    const lost = dying.client.authorize(input)
    await gate.arrived
    await loseCommits(database, [input.idempotencyKey])
    // It settles nothing any more.
    dying.gateway.sql = (() => Promise.reject(new Error('this process is killed'))) as never
    gate.open()
    await lost.catch(() => null)
    expect(succeeded(await next.client.authorize(input)).payment.state).toBe('AUTHORIZED')
    expect(await typesOf(7_772)).toEqual(['AUTHORIZATION'])
  })

  it.each(['capture', 'void'] as const)('of a %s is carried out once and recorded', async (operation) => {
    const { database, bank, client, typesOf } = await scene()
    const { id } = await authorized(client, { amountCents: 7_773 })
    const asked = { paymentId: id, idempotencyKey: randomUUID() }
    const gate = bank.faults.hold('after-store', { endpoint: `${operation}s` })
    const acting = client[operation](asked)
    await gate.arrived
    await loseCommits(database, [asked.idempotencyKey])
    gate.open()
    expect(succeeded(await acting).transition.version).toBe(3)
    expect(succeeded(await client[operation](asked)).replayed).toBe(true)
    expect(await typesOf(7_773)).toEqual(['AUTHORIZATION', operation.toUpperCase()])
  })

  it('between two exchanges is made again, and what may have been carried out stays so', async () => {
    const { database, bank, client, gateway, typesOf } = await scene()
    const input = authorize(7_774)
    const gate = bank.faults.hold('after-store', { endpoint: 'authorizations', probe: false })
    bank.faults.add('drop-after-store', { endpoint: 'authorizations', probe: false })
    bank.faults.add('lookup-fault', { endpoint: 'authorizations', probe: true, times: 3 })
    const paying = client.authorize(input)
    await gate.arrived
    await loseCommits(database, [input.idempotencyKey])
    gate.open()
    let answer = await paying
    for (let ask = 0; answer.code === 'OUTCOME_UNKNOWN' && ask < 50; ask += 1) {
      await sweep(gateway)
      answer = await client.authorize(input)
    }
    expect(succeeded(answer).payment.state).toBe('AUTHORIZED')
    expect(await typesOf(7_774)).toEqual(['AUTHORIZATION'])
  })
})

describe('receipts that lost their last hour', () => {
  it('come back by the requests of that hour, repeated as they were: nothing is done twice', async () => {
    const { database, client, restore, typesOf } = await scene()
    const pay = authorize(8_881)
    const { id } = await authorized(client, pay)
    const capture = { paymentId: id, idempotencyKey: randomUUID() }
    const refund = { paymentId: id, idempotencyKey: randomUUID() }
    const captured = succeeded(await client.capture(capture)).payment
    await client.refund(refund)
    const before = await database.sql`select from_state, to_state, cause from transitions order by version`
    await loseCommits(database, [pay.idempotencyKey, capture.idempotencyKey, refund.idempotencyKey])
    await restore()

    // What follows an authorize waits for it, and its key is not used up.
    expect(await client.capture(capture)).toMatchObject({ code: 'PAYMENT_NOT_FOUND', retry: 'WAIT' })
    const again = succeeded(await client.authorize(pay))
    expect(again.payment).toMatchObject({ authorizationId: captured.authorizationId })
    expect(succeeded(await client.capture(capture)).payment.captureId).toBe(captured.captureId)
    expect(succeeded(await client.refund(refund)).payment).toMatchObject({
      id: again.payment.id,
      state: 'REFUNDED',
    })
    expect(succeeded(await client.capture(capture)).replayed).toBe(true)
    expect(await database.sql`select from_state, to_state, cause from transitions order by version`).toEqual(
      before,
    )
    expect(await typesOf(8_881)).toEqual(['AUTHORIZATION', 'CAPTURE', 'REFUND'])
  })

  it('and by the new id of the payment as well', async () => {
    const { database, client, restore, typesOf } = await scene()
    const pay = authorize(8_882)
    const key = randomUUID()
    await client.capture({ paymentId: (await authorized(client, pay)).id, idempotencyKey: key })
    await loseCommits(database, [pay.idempotencyKey, key])
    await restore()
    const { id } = await authorized(client, pay)
    expect(succeeded(await client.capture({ paymentId: id, idempotencyKey: key })).payment.state).toBe(
      'CAPTURED',
    )
    expect(await typesOf(8_882)).toEqual(['AUTHORIZATION', 'CAPTURE'])
  })

  it('are no void: what the bank has captured since is looked at by an operator', async () => {
    const { database, bank, client, gateway, restore, typesOf } = await scene()
    const { id } = await authorized(client, { amountCents: 8_883 })
    const key = randomUUID()
    await client.capture({ paymentId: id, idempotencyKey: key })
    await loseCommits(database, [key])
    await restore()
    await lookAtHistory(gateway)
    bank.faults.add('drop-before', { endpoint: 'voids', probe: false })
    const asked = { paymentId: id, idempotencyKey: randomUUID() }
    let answer = await client.void(asked)
    while (answer.code === 'OUTCOME_UNKNOWN' && !answer.message.includes('operator')) {
      await sweep(gateway)
      answer = await client.void(asked)
    }
    expect(answer).toMatchObject({ code: 'OUTCOME_UNKNOWN', message: expect.stringContaining('operator') })
    expect(await typesOf(8_883)).toEqual(['AUTHORIZATION', 'CAPTURE'])
  })

  it('another request under a key of that hour is a request of its own', async () => {
    const { database, client, restore, typesOf } = await scene()
    const pay = authorize(8_884)
    await authorized(client, pay)
    await loseCommits(database, [pay.idempotencyKey])
    await restore()
    expect(succeeded(await client.authorize({ ...pay, amountCents: 8_885 })).payment.amount.cents).toBe(8_885)
    expect([await typesOf(8_884), await typesOf(8_885)]).toEqual([['AUTHORIZATION'], ['AUTHORIZATION']])
  })
})

describe('while receipts may be lost', () => {
  const probesAndSends = (received: readonly { path: string; probe: boolean }[]) =>
    received
      .filter(({ path }) => path.endsWith('/authorizations'))
      .map(({ probe }) => (probe ? 'PROBE' : 'SEND'))

  it('an authorize is asked about before it is sent, and never otherwise, nor after a day', async () => {
    const { database, bank, client, restore } = await scene()
    await authorized(client)
    expect(probesAndSends(bank.received)).toEqual(['SEND'])
    await restore()
    await authorized(client)
    expect(probesAndSends(bank.received)).toEqual(['SEND', 'PROBE', 'SEND'])
    await database.driver.begin(async (tx) => {
      await tx.unsafe('set local session_replication_role = replica')
      await tx`update history set noticed_at = noticed_at - interval '26 hours'`
    })
    await authorized(client)
    expect(probesAndSends(bank.received)).toEqual(['SEND', 'PROBE', 'SEND', 'SEND'])
  })

  it('and no more once a person says that nothing was lost', async () => {
    const { database, bank, client, restore, gateway } = await scene()
    await restore()
    await lookAtHistory(gateway)
    await database.sql`select note_history('NOTHING_LOST')`
    await authorized(client)
    expect(probesAndSends(bank.received)).toEqual(['SEND'])
    await lookAtHistory(gateway)
    expect(gateway.inFlight.history.lostAt).toBeNull()
  })

  it.each([
    ['another timeline', { timeline: 0 }, 'TIMELINE_CHANGED'],
    ['another cluster', { system_identifier: '1' }, 'SYSTEM_CHANGED'],
  ])('is noticed by %s, once, and at any process', async (_, other, reason) => {
    const { database, gateway, start, logged } = await scene()
    await database.driver.begin(async (tx) => {
      await tx.unsafe('set local session_replication_role = replica')
      await tx`update history set ${tx(other)}`
    })
    for (const { gateway: each } of [{ gateway }, start(), start()]) await lookAtHistory(each)
    expect(await database.sql`select reason from history order by id`).toEqual([
      { reason: 'FIRST' },
      { reason },
    ])
    expect(logged.join('')).toContain('"alarm":"history-lost"')
    expect(gateway.inFlight.history.lostAt).toBeInstanceOf(Date)
  })

  it('is noticed by a claim before it sends, where nobody has looked', async () => {
    const { database, bank, client } = await scene()
    await database.driver.begin(async (tx) => {
      await tx.unsafe('set local session_replication_role = replica')
      await tx`update history set timeline = 0`
    })
    await authorized(client)
    expect(probesAndSends(bank.received)).toEqual(['PROBE', 'SEND'])
  })

  it('is noticed by a log that has gone back behind what a process has seen, over its restart too', async () => {
    const { database, gateway, start, client, bank } = await scene()
    const folder = await temporaryFolder('history-')
    const file = join(folder, 'deep', 'history.json')
    await (await startHistory(gateway, file)).stop()
    const seen = JSON.parse(await readFile(file, 'utf8')) as { position: string }
    await writeFile(file, JSON.stringify({ ...seen, position: 'FFFFFFF0/0' }))
    const next = start()
    await (await startHistory(next.gateway, file)).stop()
    expect(next.gateway.inFlight.history.lostAt).toBeInstanceOf(Date)
    expect(await database.sql`select reason from history order by id desc limit 1`).toEqual([
      { reason: 'POSITION_WENT_BACK' },
    ])
    // From now on it goes by where the log is.
    expect(next.gateway.inFlight.history.seen?.position).not.toBe('FFFFFFF0/0')
    await authorized(client)
    expect(probesAndSends(bank.received)).toEqual(['PROBE', 'SEND'])
  })

  it.each(['', '{"position": 1}', 'null', '{"systemIdentifier":"1","timeline":1,"position":"x"}'])(
    'a file that holds %j says nothing',
    async (text) => {
      const { gateway } = await scene()
      const folder = await temporaryFolder('history-')
      await mkdir(folder, { recursive: true })
      await writeFile(join(folder, 'history.json'), text)
      await (await startHistory(gateway, join(folder, 'history.json'))).stop()
      expect(gateway.inFlight.history.lostAt).toBeNull()
    },
  )
})

it('an operation of the release before keeps the key that was made from its id', () => {
  const input = { paymentId: 'p', expectedAmountCents: null }
  const operation = { client: 'c', idempotencyKey: 'k', kind: 'CAPTURE', input } as Operation
  const payment = { authorizationId: 'auth_1', captureId: null } as Payment
  const old = timeOrderedId()
  expect(bankKey({ ...operation, id: old }, payment)).toBe(`op_${old}`)
  const keyed = `${old.slice(0, 14)}8${old.slice(15)}`
  const key = bankKey({ ...operation, id: keyed }, payment)
  expect(key).toMatch(/^[0-9a-f]{64}$/)
  expect(bankKey({ ...operation, id: keyed, input: { ...input, paymentId: 'another' } }, payment)).toBe(key)
  for (const other of [{ client: 'd' }, { idempotencyKey: 'l' }, { kind: 'VOID' }] as const)
    expect(bankKey({ ...operation, ...other, id: keyed }, payment)).not.toBe(key)
})
