import { randomUUID } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import type { FaultKind } from '../src/simulator/faults.ts'
import { startTestBank } from './support/bank.ts'
import { authorized, captured, succeeded } from './support/client.ts'
import type { Answered } from './support/client.ts'
import { privateServer, testDatabase } from './support/database.ts'
import { startTestGateway } from './support/gateway.ts'
import { startPostgresWire } from '../proof/support/postgres-wire.ts'
import { connect } from '../src/db/connection.ts'
import { migrate } from '../src/db/migrate.ts'

/** What FicMart is told, and what the bank's ledger says, when the bank, the network or Postgres misbehaves. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client, gateway } = startTestGateway({
  databaseUrl: database.url,
  bankUrl: bank.url,
  settings: { attemptTimeoutMs: 400, quietPeriodMs: 200 },
})
beforeEach(() => bank.faults.clear())

let nextCents = 10_000
const ownAmount = () => (nextCents += 1)
const rowsOf = async (amountCents: number) =>
  (await bank.transactions()).filter((row) => row.amount_cents === amountCents)
const typesOf = async (amountCents: number) => (await rowsOf(amountCents)).map((row) => row.type)

/** Repeats the request, as its advice says, until the outcome is known. */
async function untilKnown(ask: () => Promise<Answered>): Promise<Answered> {
  for (;;) {
    const answer = await ask()
    if (answer.code !== 'OUTCOME_UNKNOWN') return answer
    expect(answer.retry).toBe('SAME_KEY')
  }
}

describe('an authorize', () => {
  const harmless: FaultKind[] = [
    'chaos',
    'database-down',
    'rolled-back',
    'insert-failed',
    'commit-failed',
    'card-or-parent-not-found',
  ]
  it.each(harmless.filter((what) => what !== 'commit-failed'))(
    'is carried out after one %s',
    async (what) => {
      const amountCents = ownAmount()
      bank.faults.add(what, { endpoint: 'authorizations', probe: false })
      expect((await authorized(client, { amountCents })).state).toBe('AUTHORIZED')
      expect(await typesOf(amountCents)).toEqual(['AUTHORIZATION'])
    },
  )

  it.each<FaultKind>(['redirect', 'redirect-307'])(
    'that the bank redirects (%s) has failed: it is neither followed nor sent again',
    async (what) => {
      const amountCents = ownAmount()
      bank.received.length = 0
      bank.faults.add(what, { endpoint: 'authorizations' })
      expect(await client.authorize({ amountCents })).toMatchObject({
        code: 'BANK_UNAVAILABLE',
        retry: 'NEW_KEY',
        payment: { state: 'FAILED' },
      })
      expect(bank.received).toHaveLength(1)
      expect(await typesOf(amountCents)).toEqual([])
    },
  )

  const lostButStored: FaultKind[] = [
    'drop-after-store',
    'hang-after-store',
    'html',
    'malformed',
    'no-id',
    'huge-amount',
    'stalled-body',
  ]
  it.each(lostButStored)('whose answer is lost (%s) is found by its key, without the card', async (what) => {
    const amountCents = ownAmount()
    bank.faults.add(what, { endpoint: 'authorizations', probe: false })
    const input = { idempotencyKey: randomUUID(), orderId: randomUUID(), amountCents }
    expect(succeeded(await untilKnown(() => client.authorize(input))).payment.state).toBe('AUTHORIZED')
    expect(await typesOf(amountCents)).toEqual(['AUTHORIZATION'])
  })

  const perhapsNot: FaultKind[] = ['drop-before', 'bad-gateway', 'hang-before', 'commit-failed']
  it.each(perhapsNot)(
    'that may have been carried out (%s) is never sent again, and fails when the bank is sure',
    async (what) => {
      const amountCents = ownAmount()
      bank.faults.add(what, { endpoint: 'authorizations', probe: false })
      const input = { idempotencyKey: randomUUID(), orderId: randomUUID(), amountCents }
      const first = await client.authorize(input)
      expect(first).toMatchObject({
        code: 'OUTCOME_UNKNOWN',
        retry: 'SAME_KEY',
        payment: { state: 'PENDING' },
      })
      expect(await untilKnown(() => client.authorize(input))).toMatchObject({
        code: 'BANK_UNAVAILABLE',
        retry: 'NEW_KEY',
        message: expect.stringContaining('may still be held on the card'),
        payment: { state: 'FAILED' },
      })
      expect(await typesOf(amountCents)).toEqual([])
      const [marked] =
        await database.sql`select possible_orphan_hold_since from payments where order_id = ${input.orderId}`
      expect(marked?.['possibleOrphanHoldSince']).toBeInstanceOf(Date)
      expect((await authorized(client, { orderId: input.orderId, amountCents })).state).toBe('AUTHORIZED')
    },
  )

  it.each<FaultKind>(['drop-after-commit', 'hang-after-commit', 'commit-failed-but-done'])(
    'that moved money and left no key (%s) leaves one hold, marked, and never a second',
    async (what) => {
      const amountCents = ownAmount()
      bank.faults.add(what, { endpoint: 'authorizations', probe: false })
      const input = { idempotencyKey: randomUUID(), orderId: randomUUID(), amountCents }
      expect(await untilKnown(() => client.authorize(input))).toMatchObject({
        code: 'BANK_UNAVAILABLE',
        message: expect.stringContaining('may still be held on the card'),
        payment: { state: 'FAILED' },
      })
      expect(await typesOf(amountCents)).toEqual(['AUTHORIZATION'])
      const [marked] =
        await database.sql`select possible_orphan_hold_since from payments where order_id = ${input.orderId}`
      expect(marked?.['possibleOrphanHoldSince']).toBeInstanceOf(Date)
    },
  )

  it('that fails four times for certain has failed, and its order may be paid again', async () => {
    const orderId = randomUUID()
    bank.faults.add('chaos', { endpoint: 'authorizations', times: 4 })
    expect(await client.authorize({ orderId })).toMatchObject({
      code: 'BANK_UNAVAILABLE',
      retry: 'NEW_KEY',
      message: expect.stringContaining('Nothing was charged or changed'),
      payment: { state: 'FAILED' },
    })
    expect((await authorized(client, { orderId })).state).toBe('AUTHORIZED')
  })

  it('whose card the bank does not find while its database is ill is not declined', async () => {
    const alone = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
    await authorized(alone.client)
    const unreadable = async (table: string, text: string) => {
      await bank.sql`alter table ${bank.sql(table)} rename to ${bank.sql(text)}`
    }
    await unreadable('accounts', 'accounts_away')
    await unreadable('transactions', 'transactions_away')
    const input = { orderId: randomUUID(), idempotencyKey: randomUUID() }
    const told = await alone.client.authorize(input)
    await unreadable('accounts_away', 'accounts')
    await unreadable('transactions_away', 'transactions')
    expect(told).toMatchObject({ code: 'BANK_UNAVAILABLE', retry: 'NEW_KEY', payment: { state: 'FAILED' } })
  })

  it.each<FaultKind>(['other-amount', 'other-currency'])(
    'that is answered with something else (%s) is looked at by a person and never becomes a state',
    async (what) => {
      const amountCents = ownAmount()
      bank.faults.add(what, { endpoint: 'authorizations' })
      const input = { idempotencyKey: randomUUID(), orderId: randomUUID(), amountCents }
      for (let ask = 0; ask < 2; ask += 1) {
        expect(await client.authorize(input)).toMatchObject({
          code: 'OUTCOME_UNKNOWN',
          payment: { state: 'PENDING' },
        })
      }
      const [payment] =
        await database.sql`select review_reason, review_evidence from payments where order_id = ${input.orderId}`
      expect(payment?.['reviewReason']).toContain('does not fit')
    },
  )

  it.each([
    ['CARD_INVALID', { number: '4000000000000002', cvv: '123', expiryMonth: 12, expiryYear: 2030 }],
    ['CVV_INVALID', { number: '4111111111111111', cvv: '999', expiryMonth: 12, expiryYear: 2030 }],
    ['CARD_EXPIRED', { number: '5105105105105100', cvv: '321', expiryMonth: 12, expiryYear: 2030 }],
    ['CARD_EXPIRED', { number: '4111111111111111', cvv: '123', expiryMonth: 3, expiryYear: 2020 }],
    ['INSUFFICIENT_FUNDS', { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }],
  ])('is declined: %s', async (code, card) => {
    expect(await client.authorize({ card })).toMatchObject({ code, retry: 'DO_NOT_RETRY' })
  })
})

describe.each(['capture', 'void', 'refund'] as const)('a %s', (operation) => {
  const endpoint = `${operation}s`
  const state = { capture: 'CAPTURED', void: 'VOIDED', refund: 'REFUNDED' }[operation]
  const type = operation.toUpperCase()
  const prepared = async (amountCents: number) =>
    operation === 'refund'
      ? await captured(client, { amountCents })
      : await authorized(client, { amountCents })
  const typesAfter = async (amountCents: number) => (await typesOf(amountCents)).filter((one) => one === type)

  const faults: FaultKind[] = [
    'chaos',
    'database-down',
    'rolled-back',
    'insert-failed',
    'commit-failed',
    'card-or-parent-not-found',
    'drop-before',
    'hang-before',
    'bad-gateway',
    'drop-after-store',
    'hang-after-store',
    'html',
    'malformed',
    'stalled-body',
    'lookup-fault',
  ]
  it.each(faults)('is carried out once, whatever happens on the way (%s)', async (what) => {
    const amountCents = ownAmount()
    const { id } = await prepared(amountCents)
    bank.faults.add(what, { endpoint, probe: false })
    const input = { paymentId: id, idempotencyKey: randomUUID() }
    expect(succeeded(await untilKnown(() => client[operation](input))).payment.state).toBe(state)
    expect(await typesAfter(amountCents)).toEqual([type])
  })

  it.each<FaultKind>(['drop-after-commit', 'hang-after-commit', 'commit-failed-but-done'])(
    'that moved money and left no key (%s) is certain, though its id is not known',
    async (what) => {
      const amountCents = ownAmount()
      const { id } = await prepared(amountCents)
      bank.faults.add(what, { endpoint, probe: false })
      const input = { paymentId: id, idempotencyKey: randomUUID() }
      expect(succeeded(await untilKnown(() => client[operation](input))).payment.state).toBe(state)
      expect(await typesAfter(amountCents)).toEqual([type])
      if (operation === 'capture') {
        expect(await client.refund({ paymentId: id })).toMatchObject({
          code: 'BANK_REFERENCE_MISSING',
          retry: 'DO_NOT_RETRY',
        })
      }
    },
  )

  it('that certainly failed frees the payment for another try', async () => {
    const { id } = await prepared(ownAmount())
    bank.faults.add('chaos', { endpoint, times: 4 })
    expect(await client[operation]({ paymentId: id })).toMatchObject({
      code: 'BANK_UNAVAILABLE',
      retry: 'NEW_KEY',
    })
    expect(succeeded(await client[operation]({ paymentId: id })).payment.state).toBe(state)
  })

  it.each<FaultKind>(['redirect', 'redirect-307'])(
    'that the bank redirects (%s) is not followed, not sent again, and looked at by a person',
    async (what) => {
      const amountCents = ownAmount()
      const { id } = await prepared(amountCents)
      bank.received.length = 0
      bank.faults.add(what, { endpoint })
      expect(await client[operation]({ paymentId: id })).toMatchObject({ code: 'BANK_UNAVAILABLE' })
      expect(bank.received).toHaveLength(1)
      expect(await typesAfter(amountCents)).toEqual([])
    },
  )

  it("is carried out when the bank's tables could not be read for a moment, though /health said 200", async () => {
    const amountCents = ownAmount()
    const { id } = await prepared(amountCents)
    bank.received.length = 0
    await bank.sql`alter table transactions rename to gone`
    const asked = client[operation]({ paymentId: id })
    await bank.until((lines) => lines.some(({ over }) => over))
    await bank.sql`alter table gone rename to transactions`
    expect(succeeded(await asked).payment.state).toBe(state)
    expect(bank.received.map(({ path, status }) => [path, status])).toEqual([
      [`/api/v1/${endpoint}`, 400],
      ['/health', 200],
      [`/api/v1/${endpoint}`, 200],
    ])
    expect(await typesAfter(amountCents)).toEqual([type])
  })

  it('whose parent the bank has lost is flagged for a person', async () => {
    const { id } = await prepared(ownAmount())
    bank.faults.add('card-or-parent-not-found', { endpoint, times: null })
    expect(await client[operation]({ paymentId: id })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
  })
})

describe('expiry', () => {
  it('is the bank’s to say: a capture after it is refused, and a void still works', async () => {
    const amountCents = ownAmount()
    const { id } = await authorized(client, { amountCents })
    await bank.sql`update transactions set expires_at = now() - interval '1 second' where amount_cents = ${amountCents}`
    expect(await client.capture({ paymentId: id })).toMatchObject({ code: 'AUTHORIZATION_EXPIRED' })
    expect(await typesOf(amountCents)).toEqual(['AUTHORIZATION'])
    expect(succeeded(await client.void({ paymentId: id })).payment.state).toBe('VOIDED')
  })
  it('by our clock alone refuses nothing', async () => {
    const { id } = await authorized(client)
    await database.sql`update payments set authorization_expires_at = clock_timestamp() where id = ${id.slice(4)}`
    expect(succeeded(await client.capture({ paymentId: id })).payment.state).toBe('CAPTURED')
  })
})

describe('when somebody is gone', () => {
  it('a client that hangs up mid-request changes nothing: its payment is made, and its repeat gets the receipt', async () => {
    const amountCents = ownAmount()
    const input = { idempotencyKey: randomUUID(), orderId: randomUUID(), amountCents }
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const leaving = startTestGateway({
      databaseUrl: database.url,
      bankUrl: bank.url,
      settings: { requestDeadlineMs: 250 },
    })
    const told = await leaving.client.authorize(input)
    await gate.arrived
    gate.open()
    expect(told).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(succeeded(await untilKnown(() => client.authorize(input))).replayed).toBe(true)
    expect(await typesOf(amountCents)).toEqual(['AUTHORIZATION'])
  })

  it('a repeat that takes an operation over just as the database goes away is told that the outcome is unknown', async () => {
    const input = { idempotencyKey: randomUUID(), orderId: randomUUID(), amountCents: ownAmount() }
    bank.faults.add('drop-before', { endpoint: 'authorizations', probe: false })
    expect(await client.authorize(input)).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    await database.sql`update operations set leased_until = clock_timestamp() where idempotency_key = ${input.idempotencyKey}`

    const wire = await startPostgresWire(database.url)
    const cut = startTestGateway({
      databaseUrl: wire.url,
      bankUrl: bank.url,
      settings: { attemptTimeoutMs: 100, quietPeriodMs: 100 },
    })
    const held = wire.hold('request', ({ name }) => name === 'claim_again')
    // Its deadline is beyond the lease, for which the claim is tried.
    const told = cut.client.authorize(input)
    await held.arrived
    await wire.close()
    expect(await told).toMatchObject({
      code: 'OUTCOME_UNKNOWN',
      retry: 'SAME_KEY',
      payment: { state: 'PENDING' },
    })
  })

  it('with the bank gone, payments are refused at once, nothing is recorded, receipts are still answered, and it comes back by itself', async () => {
    const flaky = startTestGateway({
      databaseUrl: database.url,
      bankUrl: bank.url,
      bank: { breaker: { windowMs: 1_000, callsMin: 5, healthWaitMs: 20, healthWaitMsMax: 50 } },
    })
    const first = { idempotencyKey: randomUUID(), orderId: randomUUID() }
    const made = succeeded(await flaky.client.authorize(first))
    bank.faults.add('unhealthy', { endpoint: 'health', times: null })
    bank.faults.add('bad-gateway', { endpoint: 'captures', times: null })
    while (flaky.gateway.bank.state().circuit === 'closed')
      await flaky.client.capture({ paymentId: made.payment.id })
    const refusedOrder = randomUUID()
    const again = { idempotencyKey: randomUUID(), orderId: refusedOrder }
    expect(await flaky.client.authorize(again)).toMatchObject({
      code: 'BANK_UNAVAILABLE',
      retry: 'SAME_KEY',
      retryAfterMs: expect.any(Number),
      payment: null,
    })
    expect(await database.sql`select 1 from payments where order_id = ${refusedOrder}`).toHaveLength(0)
    expect(succeeded(await flaky.client.authorize(first)).replayed).toBe(true)
    bank.faults.clear()
    let answer = await flaky.client.authorize(again)
    while (answer.code === 'BANK_UNAVAILABLE') answer = await flaky.client.authorize(again)
    expect(succeeded(answer).payment.state).toBe('AUTHORIZED')
  })

  it('with the database away, who asks for receipts is told so, and when to ask again', async () => {
    const away = startTestGateway({ databaseUrl: 'postgres://nobody@127.0.0.1:1/none', bankUrl: bank.url })
    const asked = away.client.query('{ paymentsByOrder(orderId: "1") { id } }')
    await expect(asked).rejects.toThrow(
      /The receipts cannot be read.*"code":"DATABASE_UNAVAILABLE","retryAfterMs":1000/,
    )
  })
  it('with every place at the bank taken, a payment is refused at once and nothing is recorded', async () => {
    const small = startTestGateway({
      databaseUrl: database.url,
      bankUrl: bank.url,
      bank: { maxInFlight: 1, maxQueued: 0 },
    })
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const slow = small.client.authorize()
    await gate.arrived
    const orderId = randomUUID()
    const refused = await small.client.authorize({ orderId })
    gate.open()
    expect(refused).toMatchObject({ code: 'BANK_UNAVAILABLE', retry: 'SAME_KEY' })
    expect(await database.sql`select 1 from payments where order_id = ${orderId}`).toHaveLength(0)
    succeeded(await slow)
  })

  it('with Postgres killed and restarted under load, every request is answered and no hold is doubled or lost', async () => {
    const server = await privateServer()
    await server.createDatabase('gateway')
    const receipts = connect(server.url('gateway'), { connectionsMax: 2, statementTimeoutMs: 5_000 })
    await migrate(receipts)
    const shaken = startTestGateway({
      databaseUrl: server.url('gateway'),
      bankUrl: bank.url,
      settings: { attemptTimeoutMs: 10_000, quietPeriodMs: 500, requestDeadlineMs: 10_000 },
    })
    const base = 1_000
    const requests = Array.from({ length: 60 }, (_, index) => ({
      idempotencyKey: randomUUID(),
      orderId: randomUUID(),
      amountCents: base + index,
    }))
    const gate = bank.faults.hold('before', { endpoint: 'authorizations' })
    const load = Promise.all(
      requests.map(async (input) => {
        for (;;) {
          const answer = await shaken.client.authorize(input)
          if (
            answer.code === undefined ||
            !['BANK_UNAVAILABLE', 'OUTCOME_UNKNOWN'].includes(answer.code) ||
            answer.retry !== 'SAME_KEY'
          )
            return answer
        }
      }),
    )
    await gate.arrived
    await server.restart(() => {
      gate.open()
      return Promise.resolve()
    })
    const answers = await load.catch((e) => {
      console.log(
        shaken.logged
          .filter((l) => l.includes('"level":50'))
          .slice(0, 3)
          .join(''),
      )
      throw e
    })
    expect(answers.map((answer) => answer.code ?? answer.payment?.state)).toEqual(
      requests.map(() => 'AUTHORIZED'),
    )
    const holds = (await bank.transactions('AUTHORIZATION'))
      .map((row) => row.amount_cents)
      .filter((cents) => cents >= base && cents < base + 60)
    expect(holds.toSorted((a, b) => a - b)).toEqual(requests.map((request) => request.amountCents))
    await receipts.end({ timeout: 1 })
  })
})

describe('card data', () => {
  it('is in no table of the gateway', async () => {
    await client.authorize()
    const tables = await database.sql<
      { name: string }[]
    >`select table_name as name from information_schema.tables where table_schema = 'public'`
    for (const { name } of tables) {
      const rows = await database.sql.unsafe(`select t::text as line from "${name}" t`)
      expect(
        rows
          .map((row) => String(row['line']))
          .filter((line) => /4111111111111111|5105105105105100|"123"/.test(line)),
      ).toEqual([])
    }
  })
  it('every exchange with the bank is recorded, and nothing of its text', async () => {
    const { id } = await authorized(client)
    const calls = await database.sql`
      select c.purpose, c.endpoint, c.http_status, c.conclusion, c.attempt from bank_calls c
      join operations o on o.id = c.operation_id where o.payment_id = ${id.slice(4)}`
    expect([...calls]).toEqual([
      {
        purpose: 'SEND',
        endpoint: 'POST /api/v1/authorizations',
        httpStatus: 200,
        conclusion: 'done',
        attempt: 1,
      },
    ])
  })
})

describe('what is kept in memory', () => {
  it('is let go when the work has ended', async () => {
    await Promise.all(Array.from({ length: 20 }, () => client.authorize()))
    expect(gateway.inFlight.mailboxes.size).toBe(0)
    expect(gateway.inFlight.runs.size).toBe(0)
    expect(gateway.inFlight.awaited.waiters.size).toBe(0)
  })
})
