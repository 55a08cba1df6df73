import { randomUUID } from 'node:crypto'
import type { ISql, TransactionSql } from 'postgres'
import { describe, expect, it } from 'vitest'
import { derivedId, timeOrderedId } from '../../src/payment/ids.ts'
import { MOVES, OPERATION_KINDS, PAYMENT_STATES } from '../../src/payment/payment.ts'
import type { ClientOperation, PaymentState } from '../../src/payment/payment.ts'
import { testDatabase } from '../support/database.ts'

/** The functions of sql/ as two processes use them: what each may still write, and what the tables refuse. */

const { sql, driver } = await testDatabase()
const LEASE_MS = 50_000

type Row = {
  answer: string
  operation: {
    id: string
    status: string
    code: string | null
    transition_version: number | null
    leased_until: string | null
  }
  payment: {
    id: string
    state: PaymentState
    version: number
    authorization_id: string | null
    [column: string]: unknown
  } | null
  transition: { version: number; to_state: string } | null
  quiet: boolean
}
type Item = Record<string, unknown>
type Session = ISql<{ bigint: number }>

const call = async (
  name: 'claim' | 'claim_again' | 'settle',
  items: Item[],
  at: Date | null = null,
): Promise<Row[]> => [...(await sql<Row[]>`select * from ${sql(name)}(${sql.json(items as never)}, ${at})`)]
const one = async (...args: Parameters<typeof call>): Promise<Row> => {
  const [row] = await call(...args)
  if (row === undefined) throw new Error('no row')
  return row
}

function authorizeItem(
  change: Item = {},
): Item & { operationId: string; paymentId: string; token: string; orderId: string } {
  const orderId = `order-${randomUUID()}`
  return {
    operationId: timeOrderedId(),
    paymentId: timeOrderedId(),
    token: randomUUID(),
    orderId,
    client: 'ficmart',
    idempotencyKey: randomUUID(),
    kind: 'AUTHORIZE',
    move: MOVES.AUTHORIZE,
    maySend: true,
    leaseMs: LEASE_MS,
    input: {
      orderId,
      customerId: 'c',
      amountCents: 100,
      allowAnotherForOrder: false,
      cardBrand: 'visa',
      cardLast4: '1111',
      cardExpiryMonth: 12,
      cardExpiryYear: 2030,
    },
    ...change,
  }
}
const followUp = (
  kind: ClientOperation,
  paymentId: string,
): Item & { operationId: string; paymentId: string; token: string; orderId: null } => ({
  operationId: timeOrderedId(),
  paymentId,
  token: randomUUID(),
  orderId: null,
  client: 'ficmart',
  idempotencyKey: randomUUID(),
  kind,
  move: MOVES[kind],
  maySend: true,
  leaseMs: LEASE_MS,
  input: { paymentId, expectedAmountCents: null },
})
type Claimed = {
  operationId: string
  paymentId: string
  orderId: string | null
  token: string
  move?: unknown
}
const outcome = (of: Claimed, conclusion: Item): Item => ({
  ...of,
  calls: [],
  ambiguous: false,
  leaseMs: LEASE_MS,
  conclusion: { bankAt: null, expiresAt: null, ...conclusion },
})
const fact = (bankId: string | null) => ({
  is: 'FACT',
  bankId,
  bankAt: '2026-11-23T10:00:00.123456789+00:00',
  expiresAt: '2030-01-01T00:00:00Z',
})
const failed = { is: 'VERDICT', code: 'BANK_UNAVAILABLE', to: 'FAILED', orphan: false }
const again = (of: Claimed, change: Item = {}): Item & Claimed => ({
  ...of,
  afterToken: of.token,
  token: randomUUID(),
  purpose: 'PROBE',
  ambiguous: false,
  calls: [],
  leaseMs: LEASE_MS,
  replayWindowMs: 23 * 3_600_000,
  ...change,
})

async function authorizedPayment(): Promise<string> {
  const item = authorizeItem()
  await one('claim', [item])
  await one('settle', [outcome(item, fact(`auth_${randomUUID()}`))])
  return item.paymentId
}

describe('a claim', () => {
  it('whose answer was lost is found to be one’s own', async () => {
    const item = authorizeItem()
    expect((await one('claim', [item])).answer).toBe('CLAIMED')
    expect((await one('claim', [item])).answer).toBe('CLAIMED')
    expect((await one('claim', [{ ...item, token: randomUUID() }])).answer).toBe('IN_FLIGHT')
  })
  it('is abandoned once its lease has run out, and then passes to one process only', async () => {
    const item = authorizeItem()
    const start = new Date('2026-11-23T10:00:00Z')
    await one('claim', [item], start)
    const late = new Date(start.getTime() + LEASE_MS)
    expect(
      (await one('claim', [{ ...item, token: randomUUID() }], new Date(late.getTime() - 1))).answer,
    ).toBe('IN_FLIGHT')
    expect((await one('claim', [{ ...item, token: randomUUID() }], late)).answer).toBe('ABANDONED')
    expect(
      (await one('claim_again', [again(item, { afterToken: null })], new Date(late.getTime() - 1))).answer,
    ).toBe('TAKEN')
    const taken = await one('claim_again', [again(item, { afterToken: null })], late)
    expect(taken).toMatchObject({ answer: 'CLAIMED', quiet: true })
    expect((await one('claim_again', [again(item, { afterToken: null })], late)).answer).toBe('TAKEN')
    expect((await one('claim_again', [again(item)], late)).answer).toBe('TAKEN')
  })
  it('writes nothing when the bank cannot take it', async () => {
    const item = authorizeItem({ maySend: false })
    expect((await one('claim', [item])).answer).toBe('NOT_ADMITTED')
    expect((await one('claim', [{ ...item, maySend: true }])).answer).toBe('CLAIMED')
  })
  it('is refused for a card a day after its last month anywhere on earth, not before', async () => {
    const input = { ...(authorizeItem()['input'] as Item), cardExpiryMonth: 2, cardExpiryYear: 2028 }
    const claimAt = async (at: string) => {
      const item = authorizeItem()
      return await one('claim', [{ ...item, input: { ...input, orderId: item.orderId } }], new Date(at))
    }
    expect((await claimAt('2028-03-01T23:59:59.999Z')).answer).toBe('CLAIMED')
    expect(await claimAt('2028-03-02T00:00:00Z')).toMatchObject({
      answer: 'RESOLVED',
      operation: { code: 'CARD_EXPIRED' },
    })
  })
  it('two batches over the same orders in opposite sequence do not deadlock', async () => {
    const orders = Array.from({ length: 40 }, () => `order-${randomUUID()}`)
    const batch = (ids: string[]) =>
      ids.map((orderId) =>
        authorizeItem({ orderId, input: { ...(authorizeItem()['input'] as Item), orderId } }),
      )
    for (let round = 0; round < 5; round += 1) {
      const [forth, back] = await Promise.all([
        call('claim', batch(orders)),
        call('claim', batch(orders.toReversed())),
      ])
      expect(forth).toHaveLength(40)
      expect(back).toHaveLength(40)
    }
    const rows =
      await sql`select order_id from payments where order_id = any(${orders}) group by order_id having count(*) = 1`
    expect(rows).toHaveLength(40)
  })
  it('of one order twice in one batch is claimed once, as it is one by one', async () => {
    const answers = (rows: Row[]) => rows.map(({ answer }) => answer)
    const pair = (allowAnotherForOrder: boolean) => {
      const first = authorizeItem()
      const input = first['input'] as Item
      return [{ ...first, input: { ...input, allowAnotherForOrder } }, authorizeItem({ input })]
    }
    for (const allow of [false, true]) {
      const [first, second] = pair(allow)
      const together = await call('claim', [authorizeItem(), ...pair(allow)])
      expect(answers(together)).toEqual(['CLAIMED', 'CLAIMED', 'BUSY'])
      expect(together[2]).toMatchObject({ operation: { id: together[1]?.operation.id } })
      const oneByOne = [await one('claim', [first ?? {}]), await one('claim', [second ?? {}])]
      expect(answers(oneByOne)).toEqual(['CLAIMED', 'BUSY'])
    }
  })
  it('of one payment twice in one batch is written not at all', async () => {
    const paymentId = await authorizedPayment()
    await expect(
      call('claim', [followUp('CAPTURE', paymentId), followUp('VOID', paymentId)]),
    ).rejects.toThrow('payment_has_one_operation_in_flight')
  })
})

describe('one operation twice in one batch', () => {
  it('is settled not at all, and one by one it is settled once', async () => {
    const [item, neighbour] = [authorizeItem(), authorizeItem()]
    await call('claim', [item, neighbour])
    const done = outcome(item, fact(`auth_${randomUUID()}`))
    const batch = [outcome(neighbour, fact(`auth_${randomUUID()}`)), done, done]
    await expect(call('settle', batch)).rejects.toThrow('duplicate key')
    for (const alone of batch) expect((await one('settle', [alone])).answer).toBe('SETTLED')
    const rows = await sql`select version from transitions where payment_id = ${item.paymentId}`
    expect(rows).toHaveLength(2)
  })
  it('that moves no payment is left not at all', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    const left = (retryInMs: number) => ({ ...outcome(item, { is: 'LEAVE' }), retryInMs })
    await expect(call('settle', [left(1_000), left(2_000)])).rejects.toThrow('an operation was changed')
  })
})

it('two pieces of evidence about one payment in one batch: none is lost to the other', async () => {
  const item = authorizeItem()
  await one('claim', [item])
  await one('settle', [outcome(item, fact(`auth_${randomUUID()}`))])
  const seen = (bankId: string) =>
    outcome(item, { is: 'LEAVE', review: { reason: 'odd', evidence: { bankId } } })
  await expect(call('settle', [seen('one'), seen('two')])).rejects.toThrow('a payment was changed')
  await one('settle', [seen('one')])
  expect((await one('settle', [seen('two')])).payment?.['review_evidence']).toHaveLength(2)
})

describe('what somebody changes without the locks, after settle has read it, is not written over', () => {
  const settleWhile = async (change: (session: Session, item: Claimed) => PromiseLike<unknown>) => {
    const item = authorizeItem()
    await one('claim', [item])
    const settled = { by: Promise.resolve<unknown>(null) }
    await sql.begin(async (session) => {
      await change(session, item)
      settled.by = call('settle', [outcome(item, fact(`auth_${randomUUID()}`))]).catch(String)
      const waiting = () => sql`
        select from pg_stat_activity where wait_event_type = 'Lock' and query like '%settle%' and datname = current_database()`
      await expect.poll(waiting).toHaveLength(1)
    })
    return await settled.by
  }
  it('an operation', async () => {
    const takeOver = (session: Session, { operationId }: Claimed) =>
      session`update operations set attempt_token = gen_random_uuid() where id = ${operationId}`
    expect(await settleWhile(takeOver)).toContain('an operation was changed outside its lock')
  })
  it('a payment', async () => {
    const move = (session: Session, { paymentId }: Claimed) =>
      session`update payments set version = version + 1 where id = ${paymentId}`
    expect(await settleWhile(move)).toContain('a payment was changed outside its lock')
  })
})

describe('an answer that comes after its lease was taken over', () => {
  const takenOver = async () => {
    const item = authorizeItem()
    const start = new Date('2026-11-23T10:00:00Z')
    await one('claim', [item], start)
    const taker = again(item, { afterToken: null })
    await one('claim_again', [taker], new Date(start.getTime() + LEASE_MS))
    return { item, taker }
  }
  it('still counts when it is a fact', async () => {
    const { item, taker } = await takenOver()
    expect(await one('settle', [outcome(item, fact('auth_late_1'))])).toMatchObject({
      answer: 'SETTLED',
      payment: { state: 'AUTHORIZED', version: 2 },
    })
    expect(await one('settle', [outcome({ ...taker, move: item['move'] }, failed)])).toMatchObject({
      answer: 'SETTLED',
      operation: { status: 'SUCCEEDED' },
      payment: { state: 'AUTHORIZED', version: 2 },
    })
  })
  it('does not count when it is a verdict', async () => {
    const { item, taker } = await takenOver()
    expect(await one('settle', [outcome(item, failed)])).toMatchObject({
      answer: 'TAKEN',
      operation: { status: 'UNRESOLVED' },
      payment: { state: 'PENDING' },
    })
    expect(await one('settle', [outcome({ ...taker, move: item['move'] }, failed)])).toMatchObject({
      answer: 'SETTLED',
      payment: { state: 'FAILED' },
    })
  })
  it('is a stray hold when the operation was resolved without it', async () => {
    const { item, taker } = await takenOver()
    await one('settle', [outcome({ ...taker, move: item['move'] }, { ...failed, orphan: true })])
    for (let repeat = 0; repeat < 2; repeat += 1) {
      expect(await one('settle', [outcome(item, fact('auth_stray_1'))])).toMatchObject({
        answer: 'STRAY',
        payment: { state: 'FAILED' },
      })
    }
    const strays =
      await sql`select payment_id, amount_cents, released_at from stray_holds where authorization_id = 'auth_stray_1'`
    expect([...strays]).toEqual([{ paymentId: item.paymentId, amountCents: 100, releasedAt: null }])
  })
})

describe('settle', () => {
  it('says the same when it is said again', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    const first = await one('settle', [outcome(item, fact('auth_again_1'))])
    expect(await one('settle', [outcome(item, fact('auth_again_1'))])).toEqual(first)
  })
  it('releases a stray hold, and a FAILED payment becomes VOIDED by it', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    await one('settle', [outcome(item, failed)])
    await one('settle', [outcome(item, fact('auth_stray_2'))])
    const release = {
      ...followUp('VOID', item.paymentId),
      kind: 'RELEASE',
      client: 'gateway',
      move: MOVES.RELEASE,
      input: { paymentId: item.paymentId, authorizationId: 'auth_stray_2' },
    }
    expect((await one('claim', [release])).answer).toBe('CLAIMED')
    expect(await one('settle', [outcome(release, fact('void_stray_2'))])).toMatchObject({
      answer: 'SETTLED',
      payment: { state: 'VOIDED', authorization_id: 'auth_stray_2' },
      transition: { to_state: 'VOIDED' },
    })
    const rows =
      await sql`select released_at from stray_holds where authorization_id = 'auth_stray_2' and released_at is not null`
    expect(rows).toHaveLength(1)
  })
  it('keeps a capture whose id the bank forgot, and refuses its refund', async () => {
    const paymentId = await authorizedPayment()
    const capture = followUp('CAPTURE', paymentId)
    await one('claim', [capture])
    expect(
      await one('settle', [outcome(capture, { ...fact(null), bankAt: null, expiresAt: null })]),
    ).toMatchObject({ payment: { state: 'CAPTURED' } })
    expect(await one('claim', [followUp('REFUND', paymentId)])).toMatchObject({
      operation: { code: 'BANK_REFERENCE_MISSING' },
    })
  })
  it('frees the payment when an operation was not carried out', async () => {
    const paymentId = await authorizedPayment()
    const capture = followUp('CAPTURE', paymentId)
    await one('claim', [capture])
    expect((await one('claim', [followUp('VOID', paymentId)])).answer).toBe('BUSY')
    await one('settle', [outcome(capture, { ...failed, to: null })])
    expect((await one('claim', [followUp('VOID', paymentId)])).answer).toBe('CLAIMED')
  })
  it('waits for the end of what frees an order, and not for its capture', async () => {
    const paid = authorizeItem()
    const again = () => authorizeItem({ input: paid['input'], orderId: paid.orderId })
    await one('claim', [paid])
    await one('settle', [outcome(paid, fact(`auth_${randomUUID()}`))])
    const release = followUp('VOID', paid.paymentId)
    await one('claim', [release])
    expect(await one('claim', [again()])).toMatchObject({
      answer: 'BUSY',
      operation: { id: release.operationId },
    })
    await one('settle', [outcome(release, { ...failed, to: null })])
    const capture = followUp('CAPTURE', paid.paymentId)
    await one('claim', [capture])
    const refused = { answer: 'RESOLVED', operation: { code: 'ORDER_ALREADY_HAS_PAYMENT' } }
    expect(await one('claim', [again()])).toMatchObject(refused)
    const expired = new Date('2030-01-02T00:00:00Z')
    // Nobody has begun to release it. A process of the release before wants an operation to wait for, too.
    const [other, otherId] = [authorizeItem(), `auth_${randomUUID()}`]
    await one('claim', [other])
    await one('settle', [outcome(other, fact(otherId))])
    const next = authorizeItem({ input: other['input'], orderId: other.orderId })
    expect(await one('claim', [next], expired)).toMatchObject({
      answer: 'BUSY',
      operation: { id: other.operationId },
    })
    // Whichever way it ends, it ends soon.
    expect(await one('claim', [again()], expired)).toMatchObject({
      answer: 'BUSY',
      operation: { id: capture.operationId },
    })
    await one('settle', [outcome(capture, fact(`cap_${randomUUID()}`))])
    expect(await one('claim', [again()], expired)).toMatchObject(refused)
  })
  it('keeps the id of a capture that comes after "captured, id unknown"', async () => {
    const paymentId = await authorizedPayment()
    const capture = followUp('CAPTURE', paymentId)
    await one('claim', [capture])
    await one('settle', [outcome(capture, { ...fact(null), bankAt: null, expiresAt: null })])
    expect(await one('settle', [outcome(capture, fact('cap_late_1'))])).toMatchObject({
      answer: 'SETTLED',
      payment: { state: 'CAPTURED', capture_id: 'cap_late_1', review_reason: null },
    })
    expect((await one('claim', [followUp('REFUND', paymentId)])).answer).toBe('CLAIMED')
  })
  it('keeps every piece of evidence, once, and the first reason', async () => {
    const paymentId = await authorizedPayment()
    const [first, second] = [followUp('CAPTURE', paymentId), followUp('CAPTURE', paymentId)]
    await one('claim', [first])
    const refusal = { ...failed, to: null, review: { reason: 'misused', evidence: {} } }
    await one('settle', [outcome(first, refusal)])
    await one('claim', [second])
    const mismatch = {
      is: 'LEAVE',
      review: { reason: 'another amount', evidence: { bankId: 'cap_money' } },
    }
    for (let repeat = 0; repeat < 2; repeat += 1) await one('settle', [outcome(second, mismatch)])
    const [row] = await sql`select review_reason, review_evidence from payments where id = ${paymentId}`
    expect(row).toEqual({
      reviewReason: 'misused',
      reviewEvidence: [
        { reason: 'misused', evidence: {}, operation: `op_${first.operationId}` },
        {
          reason: 'another amount',
          evidence: { bankId: 'cap_money' },
          operation: `op_${second.operationId}`,
        },
      ],
    })
  })
  it('does not flag a stray hold that was released and turns up once more', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    await one('settle', [outcome(item, failed)])
    await one('settle', [outcome(item, fact('auth_stray_3'))])
    const release = {
      ...followUp('VOID', item.paymentId),
      kind: 'RELEASE',
      client: 'gateway',
      move: MOVES.RELEASE,
      input: { paymentId: item.paymentId, authorizationId: 'auth_stray_3' },
    }
    await one('claim', [release])
    await one('settle', [outcome(release, fact('void_stray_3'))])
    expect(await one('settle', [outcome(item, fact('auth_stray_3'))])).toMatchObject({
      payment: { state: 'VOIDED', review_reason: null },
    })
  })
  it('releases only what is a stray hold of that payment', async () => {
    const paymentId = await authorizedPayment()
    const release = {
      ...followUp('VOID', paymentId),
      kind: 'RELEASE',
      move: MOVES.RELEASE,
      input: { paymentId, authorizationId: 'auth_of_somebody' },
    }
    expect(await one('claim', [release])).toMatchObject({
      answer: 'RESOLVED',
      operation: { code: 'PAYMENT_NOT_FOUND' },
    })
  })
  it('never voids what a payment counts on, nor counts on what is to be voided', async () => {
    const [live, dead, third] = [authorizeItem(), authorizeItem(), authorizeItem()]
    await call('claim', [live, dead, third])
    await call('settle', [outcome(live, fact('auth_live')), outcome(dead, failed)])
    await one('settle', [outcome(dead, fact('auth_dead'))])
    const duplicate = expect.objectContaining({ code: '23505' })
    // A stray hold that is a payment's, a payment's that is a stray hold, one stray hold of two.
    await expect(one('settle', [outcome(dead, fact('auth_live'))])).rejects.toEqual(duplicate)
    await expect(one('settle', [outcome(third, fact('auth_dead'))])).rejects.toEqual(duplicate)
    await one('settle', [outcome(third, failed)])
    await expect(one('settle', [outcome(third, fact('auth_dead'))])).rejects.toEqual(duplicate)
    expect(
      await sql`select payment_id from stray_holds where authorization_id in ('auth_live', 'auth_dead')`,
    ).toEqual([{ paymentId: dead.paymentId }])

    // In one statement, and in those of two processes, of which neither sees yet what the other writes.
    const [fourth, fifth] = [authorizeItem(), authorizeItem()]
    await call('claim', [fourth, fifth])
    const both = [outcome(fourth, fact('auth_4')), outcome(dead, fact('auth_4'))]
    await expect(call('settle', both)).rejects.toEqual(duplicate)
    await driver
      .begin(async (transaction) => {
        await transaction`select from settle(${transaction.json([outcome(fifth, fact('auth_5'))] as never)})`
        const fate = one('settle', [outcome(dead, fact('auth_5'))]).catch((error: unknown) => error)
        const isOver = fate.then(() => true)
        // For the row that the other has written and not yet committed.
        const waits = async () => {
          const locks = await sql`
            select from pg_locks l join pg_stat_activity a using (pid)
            where l.locktype = 'transactionid' and not l.granted and a.datname = current_database()`
          return locks.length > 0
        }
        while (!(await Promise.race([isOver, waits()])));
        return { fate }
      })
      .then(async ({ fate }) => expect(await fate).toEqual(duplicate))

    // Nor is it both where it was told as something else than was asked: the first that it was told to keeps it.
    const [sixth, seventh] = [authorizeItem(), authorizeItem()]
    await call('claim', [sixth, seventh])
    const evidence = { bankId: 'auth_6', amountCents: 700 }
    const odd = { is: 'LEAVE', review: { reason: 'another amount', evidence } }
    await one('settle', [outcome(seventh, odd)])
    await expect(one('settle', [outcome(sixth, fact('auth_6'))])).rejects.toEqual(duplicate)
    // It may turn out to be what was asked for, and is not released before.
    const input = { paymentId: seventh.paymentId, authorizationId: 'auth_6' }
    const release = { ...followUp('VOID', seventh.paymentId), kind: 'RELEASE', move: MOVES.RELEASE, input }
    expect(await one('claim', [release])).toMatchObject({ operation: { code: 'PAYMENT_NOT_FOUND' } })
    await one('settle', [outcome(seventh, fact('auth_6'))])
    expect(await sql`select from stray_holds where authorization_id = 'auth_6'`).toHaveLength(0)
    const again = { ...release, operationId: timeOrderedId(), idempotencyKey: randomUUID() }
    expect(await one('claim', [again])).toMatchObject({ operation: { code: 'PAYMENT_NOT_FOUND' } })

    // Whatever else wants to write it.
    await expect(sql`insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
      values ('auth_live', ${dead.operationId}, ${dead.paymentId}, 100, now(), now())`).rejects.toEqual(
      duplicate,
    )
  })
  it('takes an operator’s verdict of what is in review, and not while somebody asks the bank', async () => {
    const paymentId = await authorizedPayment()
    const capture = followUp('CAPTURE', paymentId)
    await one('claim', [capture])
    const verdict = { is: 'VERDICT', code: 'BANK_UNAVAILABLE', to: null, orphan: false }
    const word = () => {
      const line = { action: 'CLOSE_REVIEW', actor: 'ops', reason: 'statement', detail: {} }
      const own = { ...outcome(capture, verdict), token: randomUUID() }
      return one('settle', [{ ...own, audit: { ...line, id: timeOrderedId() } }])
    }
    expect(await word()).toMatchObject({ answer: 'TAKEN', operation: { status: 'UNRESOLVED' } })
    const review = { reason: 'a conflict', evidence: {} }
    await one('settle', [outcome(capture, { is: 'LEAVE', review })])
    expect(await word()).toMatchObject({ answer: 'SETTLED', operation: { status: 'REFUSED' } })
  })
  it('takes no doubt about an operation that has been answered', async () => {
    const paymentId = await authorizedPayment()
    const capture = followUp('CAPTURE', paymentId)
    await one('claim', [capture])
    await one('settle', [outcome(capture, fact('cap_certain_1'))])
    const review = { reason: 'a conflict', evidence: {} }
    expect(await one('settle', [outcome(capture, { is: 'LEAVE', review })])).toMatchObject({
      answer: 'SETTLED',
      operation: { status: 'SUCCEEDED' },
      payment: { state: 'CAPTURED', review_reason: null },
    })
  })
  it('ends no review of another operation that waits for a word of its own', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    await one('settle', [outcome(item, failed)])
    await one('settle', [outcome(item, fact('auth_stray_5'))])
    const input = { paymentId: item.paymentId, authorizationId: 'auth_stray_5' }
    const release = { ...followUp('VOID', item.paymentId), kind: 'RELEASE', move: MOVES.RELEASE, input }
    await one('claim', [release])
    const odd = { is: 'LEAVE', review: { reason: 'odd', evidence: {} } }
    await one('settle', [outcome(release, odd)])
    const word = (operation: Claimed, bankId: string) => {
      const line = { action: 'ENTER_BANK_REFERENCE', actor: 'ops', reason: 'statement', detail: { bankId } }
      return one('settle', [{ ...outcome(operation, fact(bankId)), audit: { ...line, id: timeOrderedId() } }])
    }
    expect(await word(item, 'auth_stray_6')).toMatchObject({
      answer: 'STRAY',
      payment: { review_reason: 'odd' },
    })
    expect(await word(release, 'void_stray_5')).toMatchObject({ payment: { review_reason: null } })
    const lines = await sql`select detail from audit_lines where payment_id = ${item.paymentId} order by id`
    expect(lines).toMatchObject([
      { detail: { bankId: 'auth_stray_6' } },
      { detail: { bankId: 'void_stray_5', reviewReason: 'odd' } },
    ])
  })
  it('ends a review by what refutes it, and not by the release of a hold that nobody wants', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    await one('settle', [outcome(item, fact(`auth_${randomUUID()}`))])
    const stray = `auth_${randomUUID()}`
    await one('settle', [outcome(item, fact(stray))])
    const capture = followUp('CAPTURE', item.paymentId)
    await one('claim', [capture])
    const review = { reason: 'The bank does not know the id that it gave us', evidence: {} }
    await one('settle', [outcome(capture, { ...failed, to: null, review })])
    const input = { paymentId: item.paymentId, authorizationId: stray }
    const releaseOnce = async (conclusion: Item) => {
      const release = { ...followUp('VOID', item.paymentId), kind: 'RELEASE', move: MOVES.RELEASE, input }
      await one('claim', [release])
      return await one('settle', [outcome(release, conclusion)])
    }
    const misused = { ...review, reason: 'The bank refused our request itself' }
    await releaseOnce({ ...failed, to: null, review: misused })
    expect(await releaseOnce(fact(`void_${randomUUID()}`))).toMatchObject({
      operation: { status: 'SUCCEEDED' },
      payment: { review_reason: review.reason },
    })
    await sql`update payments set review_evidence = jsonb_build_array(review_evidence -> 0) where id = ${item.paymentId}`
    const next = followUp('CAPTURE', item.paymentId)
    await one('claim', [next])
    expect(await one('settle', [outcome(next, fact(`cap_${randomUUID()}`))])).toMatchObject({
      payment: { state: 'CAPTURED', review_reason: null },
    })
  })
  it('gives up a hold that the bank has lost, and leaves who waits for a word in review', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    await one('settle', [outcome(item, fact(`auth_${randomUUID()}`))])
    const stray = `auth_${randomUUID()}`
    await one('settle', [outcome(item, fact(stray))])
    const input = { paymentId: item.paymentId, authorizationId: stray }
    const release = { ...followUp('VOID', item.paymentId), kind: 'RELEASE', move: MOVES.RELEASE, input }
    await one('claim', [release])
    await one('settle', [outcome(release, { is: 'LEAVE', review: { reason: 'odd', evidence: {} } })])
    const line = { id: timeOrderedId(), action: 'CLOSE_REVIEW', actor: 'ops', reason: 'lost', detail: {} }
    const lost =
      await sql`select close_as_lost(${item.paymentId}::uuid, ${sql.json(line)}, ${timeOrderedId()}::uuid) as answer`
    expect(lost).toEqual([{ answer: 'CLOSED' }])
    expect(await sql`select state, review_reason from payments where id = ${item.paymentId}`).toEqual([
      { state: 'EXPIRED', reviewReason: 'odd' },
    ])
    expect(await sql`select action from audit_lines where payment_id = ${item.paymentId}`).toHaveLength(1)
  })
  it('takes a review only from the current claim, unless it tells what the bank has done', async () => {
    const paymentId = await authorizedPayment()
    const capture = followUp('CAPTURE', paymentId)
    const start = new Date('2026-11-23T10:00:00Z')
    await one('claim', [capture], start)
    await one('claim_again', [again(capture, { afterToken: null })], new Date(start.getTime() + LEASE_MS))
    const review = { reason: 'a conflict', evidence: {} }
    expect(await one('settle', [outcome(capture, { is: 'LEAVE', review })])).toMatchObject({
      answer: 'TAKEN',
      operation: { leased_until: expect.any(String) },
      payment: { review_reason: null },
    })
    const deed = { ...review, evidence: { bankId: 'cap_1' } }
    expect(await one('settle', [outcome(capture, { is: 'LEAVE', review: deed })])).toMatchObject({
      answer: 'TAKEN',
      operation: { leased_until: expect.any(String) },
      payment: { review_reason: 'a conflict' },
    })
  })
  it('flags what only an operator can settle, and nobody takes it over', async () => {
    const paymentId = await authorizedPayment()
    const capture = followUp('CAPTURE', paymentId)
    await one('claim', [capture])
    const review = { reason: 'another amount', evidence: { amountCents: 1 } }
    expect(await one('settle', [outcome(capture, { is: 'LEAVE', review })])).toMatchObject({
      answer: 'LEFT',
      operation: { status: 'UNRESOLVED', leased_until: null },
      payment: { state: 'AUTHORIZED', review_reason: 'another amount' },
    })
    expect((await one('claim', [{ ...capture, token: randomUUID() }])).answer).toBe('IN_REVIEW')
    expect(
      (await one('claim_again', [again(capture, { afterToken: null })], new Date('2030-01-01'))).answer,
    ).toBe('TAKEN')
  })
})

it('a late look at what is under way, since it was claimed once more, takes no lease from it', async () => {
  const item = authorizeItem()
  await one('claim', [item])
  const late = again(item, { afterToken: null, late: true, byOperator: true })
  expect(await one('claim_again', [late])).toMatchObject({
    answer: 'TAKEN',
    operation: { leased_until: expect.any(String) },
  })
})

describe('who waits for whom', () => {
  /** What `statement` answers once `holder` has committed, of which it must not see half. */
  const answerAfter = async <T>(
    holder: (session: TransactionSql) => PromiseLike<unknown>,
    statement: () => Promise<T>,
  ): Promise<T> => {
    const { answer } = await driver.begin(async (session) => {
      await holder(session)
      const answer = statement()
      const isOver = answer.then(
        () => true,
        () => true,
      )
      const waits = async () => {
        const locks = await sql`
          select from pg_locks l where l.locktype = 'advisory' and not l.granted
            and l.database = (select oid from pg_database where datname = current_database())`
        return locks.length > 0
      }
      while (!(await waits())) {
        if (await Promise.race([isOver, new Promise((resolve) => setImmediate(resolve, false))]))
          throw new Error('it did not wait')
      }
      return { answer }
    })
    return await answer
  }
  const holding = (lock: string) => (session: TransactionSql) =>
    session`select pg_advisory_xact_lock(hashtextextended(${lock}, 0))`
  const line = () => ({ id: timeOrderedId(), action: 'CLOSE_REVIEW', actor: 'ops', reason: 'r', detail: {} })

  it('a claim waits for its key, its order and its payment', async () => {
    const authorize = authorizeItem()
    const key = `key:ficmart:${String(authorize['idempotencyKey'])}`
    for (const lock of [key, `order:${authorize.orderId}`])
      expect(await answerAfter(holding(lock), () => one('claim', [authorize]))).toMatchObject({
        answer: 'CLAIMED',
      })
    const capture = followUp('CAPTURE', await authorizedPayment())
    const locks = [`key:ficmart:${String(capture['idempotencyKey'])}`, `payment:${capture.paymentId}`]
    for (const lock of locks)
      expect(await answerAfter(holding(lock), () => one('claim', [capture]))).toMatchObject({
        answer: 'CLAIMED',
      })
  })
  it.each(['claim_again', 'settle'] as const)('%s waits for its payment, and for its order', async (name) => {
    const item = authorizeItem()
    await one('claim', [item])
    for (const lock of [`payment:${item.paymentId}`, `order:${item.orderId}`]) {
      const statement = name === 'settle' ? outcome(item, { is: 'LEAVE' }) : again(item)
      const answer = await answerAfter(holding(lock), () => one(name, [statement]))
      expect(answer.operation).toMatchObject({ id: item.operationId, status: 'UNRESOLVED' })
    }
  })
  it.each([
    ['close_review', true],
    ['close_as_lost', timeOrderedId()],
  ])('%s waits for its payment', async (name, more) => {
    const paymentId = await authorizedPayment()
    const close = async () =>
      await sql`select ${sql(name)}(${paymentId}::uuid, ${sql.json(line())}, ${more}) as answer`
    expect(await answerAfter(holding(`payment:${paymentId}`), close)).toHaveLength(1)
  })
  it('a capture that meets a void just being settled is refused', async () => {
    const paymentId = await authorizedPayment()
    const release = followUp('VOID', paymentId)
    await one('claim', [release])
    const settled = (session: TransactionSql) =>
      session`select from settle(${session.json([outcome(release, fact(`void_${randomUUID()}`))] as never)})`
    expect(await answerAfter(settled, () => one('claim', [followUp('CAPTURE', paymentId)]))).toMatchObject({
      answer: 'RESOLVED',
      operation: { code: 'INVALID_TRANSITION' },
    })
  })
  it('nobody works on what an operator gives up at the moment', async () => {
    const paymentId = await authorizedPayment()
    const lost = (session: TransactionSql) =>
      session`select close_as_lost(${paymentId}::uuid, ${session.json(line())}, ${timeOrderedId()}::uuid)`
    expect(await answerAfter(lost, () => one('claim', [followUp('CAPTURE', paymentId)]))).toMatchObject({
      answer: 'RESOLVED',
      operation: { code: 'AUTHORIZATION_EXPIRED' },
    })
  })
})

describe('whether an attempt may have been carried out', () => {
  const start = new Date('2026-11-23T10:00:00Z')
  const later = new Date(start.getTime() + 4 * LEASE_MS)
  const captureAt = async (at: Date) => {
    const capture = followUp('CAPTURE', await authorizedPayment())
    await one('claim', [capture], at)
    return capture
  }
  const takenOver = async (item: Claimed) => {
    const { operation, quiet } = await one('claim_again', [again(item, { afterToken: null })], later)
    return { ambiguousAt: Object(operation).ambiguous_at as string | null, quiet }
  }
  it('is not known of a send whose claim is taken over', async () => {
    expect(await takenOver(await captureAt(start))).toEqual({ ambiguousAt: expect.any(String), quiet: true })
  })
  it('is known of one that was left, for whatever it was claimed', async () => {
    const [sent, probed] = [await captureAt(start), await captureAt(start)]
    await one('settle', [outcome(sent, { is: 'LEAVE' })], start)
    expect(await takenOver(sent)).toMatchObject({ ambiguousAt: null })
    const probe = again(probed)
    await one('claim_again', [probe], start)
    expect(await takenOver(probed)).toMatchObject({ ambiguousAt: null })
  })
  it('is said by who leaves it, or claims again, and is never unsaid', async () => {
    const [left, next] = [await captureAt(start), await captureAt(start)]
    await one('settle', [{ ...outcome(left, { is: 'LEAVE' }), ambiguous: true }], start)
    await one('settle', [outcome(left, { is: 'LEAVE' })], start)
    const probe = again(next, { ambiguous: true })
    await one('claim_again', [probe], start)
    await one('settle', [outcome({ ...probe, move: next['move'] }, { is: 'LEAVE' })], start)
    for (const item of [left, next])
      expect((await takenOver(item)).ambiguousAt).toContain('2026-11-23T10:00:00')
  })
  it('is not quiet before no send can be at work', async () => {
    const capture = await captureAt(start)
    const send = again(capture, { purpose: 'SEND', ambiguous: true })
    const soon = new Date(start.getTime() + LEASE_MS - 1)
    expect(await one('claim_again', [send], soon)).toMatchObject({ quiet: false })
    const leave = { ...outcome({ ...send, move: capture['move'] }, { is: 'LEAVE' }), ambiguous: true }
    const { operation } = await one('settle', [leave], soon)
    expect(Date.parse(operation.leased_until ?? '')).toBe(soon.getTime() + LEASE_MS)
  })
})

it('a second authorization that is told to an authorized payment is a stray one, and its release leaves the payment', async () => {
  const item = authorizeItem()
  await one('claim', [item])
  await one('settle', [outcome(item, fact('auth_two_1'))])
  for (let repeat = 0; repeat < 2; repeat += 1) {
    expect(await one('settle', [outcome(item, fact('auth_two_2'))])).toMatchObject({
      answer: 'STRAY',
      operation: { status: 'SUCCEEDED' },
      payment: { state: 'AUTHORIZED', authorization_id: 'auth_two_1' },
    })
  }
  expect(
    await sql`
    select authorization_id, role from authorizations where payment_id = ${item.paymentId} order by 1`,
  ).toEqual([
    { authorizationId: 'auth_two_1', role: 'WANTED' },
    { authorizationId: 'auth_two_2', role: 'STRAY' },
  ])
  const input = { paymentId: item.paymentId, authorizationId: 'auth_two_2' }
  const release = { ...followUp('VOID', item.paymentId), kind: 'RELEASE', move: MOVES.RELEASE, input }
  await one('claim', [release])
  expect(await one('settle', [outcome(release, fact('void_two_2'))])).toMatchObject({
    operation: { status: 'SUCCEEDED' },
    payment: { state: 'AUTHORIZED', authorization_id: 'auth_two_1', void_id: null },
  })
  expect(
    await sql`select from stray_holds where authorization_id = 'auth_two_2' and released_at is null`,
  ).toHaveLength(0)
})

describe('what money rests on', () => {
  const releaseOf = (paymentId: string, authorizationId: string) => ({
    ...followUp('VOID', paymentId),
    kind: 'RELEASE',
    move: MOVES.RELEASE,
    input: { paymentId, authorizationId },
  })
  const failedWith = async (stray: string) => {
    const item = authorizeItem()
    await one('claim', [item])
    await one('settle', [outcome(item, { ...failed, orphan: true })])
    expect((await one('settle', [outcome(item, fact(stray))])).payment).toMatchObject({
      state: 'FAILED',
      possible_orphan_hold_since: null,
    })
    return item
  }
  const line = (action = 'CLOSE_REVIEW') => ({
    id: timeOrderedId(),
    action,
    actor: 'ops',
    reason: 'r',
    detail: {},
  })
  const linesOf = async (paymentId: string) =>
    await sql`select from audit_lines where payment_id = ${paymentId}`

  it('no stray hold is released for a payment that is not its own', async () => {
    const stray = `auth_${randomUUID()}`
    await failedWith(stray)
    expect(await one('claim', [releaseOf(await authorizedPayment(), stray)])).toMatchObject({
      answer: 'RESOLVED',
      operation: { code: 'PAYMENT_NOT_FOUND' },
    })
  })
  it('a stray hold whose release was refused is still to be released', async () => {
    const stray = `auth_${randomUUID()}`
    const { paymentId } = await failedWith(stray)
    const release = releaseOf(paymentId, stray)
    await one('claim', [release])
    await one('settle', [outcome(release, { ...failed, to: null })])
    expect(await sql`select released_at from stray_holds where authorization_id = ${stray}`).toEqual([
      { releasedAt: null },
    ])
  })
  it('a send that was claimed again and is taken over may have been carried out', async () => {
    const start = new Date('2026-11-23T10:00:00Z')
    const capture = followUp('CAPTURE', await authorizedPayment())
    await one('claim', [capture], start)
    await one('settle', [outcome(capture, { is: 'LEAVE' })], start)
    const send = again(capture, { purpose: 'SEND' })
    expect(await one('claim_again', [send], start)).toMatchObject({ answer: 'CLAIMED' })
    // Said again, since its answer was lost.
    expect(await one('claim_again', [send], start)).toMatchObject({
      answer: 'CLAIMED',
      operation: { attempt: 2 },
    })
    const later = new Date(start.getTime() + LEASE_MS)
    expect((await one('claim_again', [again(send, { afterToken: null })], later)).operation).toMatchObject({
      ambiguous_at: expect.stringContaining('2026-11-23T10:00:00'),
    })
  })
  it('who does not know how its key is made takes no operation of today over', async () => {
    const start = new Date('2026-11-23T10:00:00Z')
    const later = new Date(start.getTime() + LEASE_MS)
    const [before, today] = [authorizeItem(), authorizeItem({ operationId: derivedId(8) })]
    await call('claim', [before, today], start)
    const takeOver = async (item: Claimed, change: Item) =>
      (await one('claim_again', [again(item, { afterToken: null, ...change })], later)).answer
    expect(await takeOver(today, {})).toBe('TAKEN')
    expect(await takeOver(today, { keyed: true })).toBe('CLAIMED')
    expect(await takeOver(before, {})).toBe('CLAIMED')
  })
  it('what the bank has carried out after it was answered as refused goes to review', async () => {
    const capture = followUp('CAPTURE', await authorizedPayment())
    await one('claim', [capture])
    await one('settle', [outcome(capture, { ...failed, to: null })])
    expect(await one('settle', [outcome(capture, fact('cap_refused'))])).toMatchObject({
      operation: { status: 'REFUSED' },
      payment: {
        state: 'AUTHORIZED',
        review_reason: expect.stringContaining('answered as refused'),
        review_evidence: [{ evidence: { bankId: 'cap_refused' } }],
      },
    })
    // Whatever succeeds later: somebody must look at what was done.
    const release = followUp('VOID', capture.paymentId)
    await one('claim', [release])
    expect(await one('settle', [outcome(release, fact(`void_${randomUUID()}`))])).toMatchObject({
      payment: { state: 'VOIDED', review_reason: expect.stringContaining('answered as refused') },
    })
  })
  it('the first id of what was done stands', async () => {
    const capture = followUp('CAPTURE', await authorizedPayment())
    await one('claim', [capture])
    for (const id of ['cap_first', 'cap_second']) await one('settle', [outcome(capture, fact(id))])
    expect(await sql`select capture_id from payments where id = ${capture.paymentId}`).toEqual([
      { captureId: 'cap_first' },
    ])
  })
  it('a hold of which the bank says that it has expired may be let go', async () => {
    const capture = followUp('CAPTURE', await authorizedPayment())
    await one('claim', [capture])
    const at = new Date('2026-11-24T10:00:00Z')
    await one('settle', [outcome(capture, { ...failed, code: 'AUTHORIZATION_EXPIRED', to: null })], at)
    const expire = { ...followUp('VOID', capture.paymentId), kind: 'EXPIRE', move: MOVES.EXPIRE }
    expect((await one('claim', [expire], at)).answer).toBe('CLAIMED')
  })
  it('an operator’s word that comes too late changes nothing, and leaves no line', async () => {
    const capture = followUp('CAPTURE', await authorizedPayment())
    await one('claim', [capture])
    const doubt = { is: 'LEAVE', review: { reason: 'odd', evidence: { bankId: 'cap_odd' } } }
    await one('settle', [outcome(capture, doubt)])
    await one('settle', [outcome(capture, fact('cap_word'))])
    const word = { ...outcome(capture, { ...failed, to: null }), token: randomUUID(), audit: line() }
    expect(await one('settle', [word])).toMatchObject({
      operation: { status: 'SUCCEEDED' },
      payment: { state: 'CAPTURED', review_reason: 'odd' },
    })
    expect(await linesOf(capture.paymentId)).toHaveLength(0)
  })
  it('the mark of a possible orphan goes when the statement shows that there is none, not with a review', async () => {
    const item = authorizeItem()
    await one('claim', [item])
    const review = { reason: 'odd', evidence: {} }
    await one('settle', [outcome(item, { ...failed, orphan: true, review })])
    const isMarked = async () => {
      const [row] = await sql<{ since: Date | null }[]>`
        select possible_orphan_hold_since as since from payments where id = ${item.paymentId}`
      return row?.since !== null
    }
    const close = async (noHold: boolean) =>
      await sql`select close_review(${item.paymentId}::uuid, ${sql.json(line())}, ${noHold}) as answer`
    expect([await close(false), await isMarked()]).toEqual([[{ answer: 'CLOSED' }], true])
    expect([await close(true), await isMarked()]).toEqual([[{ answer: 'CLOSED' }], false])
  })
  it('only an authorized payment’s hold can be given up', async () => {
    const capture = followUp('CAPTURE', await authorizedPayment())
    const lose = async () =>
      await sql`select close_as_lost(${capture.paymentId}::uuid, ${sql.json(line())}, ${timeOrderedId()}::uuid) as answer`
    await one('claim', [capture])
    expect(await lose()).toEqual([{ answer: 'UNRESOLVED' }])
    await one('settle', [outcome(capture, fact(`cap_${randomUUID()}`))])
    expect(await lose()).toEqual([{ answer: 'NOTHING' }])
    expect(await linesOf(capture.paymentId)).toHaveLength(0)
  })
})

describe('the transition table', () => {
  const origins = [null, 'NULL', ...PAYMENT_STATES]
  it.each(origins.flatMap((state) => OPERATION_KINDS.map((kind) => [state, kind] as const)))(
    'is the same in code and SQL for %s and %s',
    async (state, kind) => {
      for (const to of PAYMENT_STATES) {
        const attempt = driver.begin(async (tx) => {
          await tx`insert into transitions (payment_id, version, from_state, to_state, at, operation_id, cause, actor)
                   select id, 99, ${state}, ${to}, now(), ${randomUUID()}, ${kind}, 'test' from payments limit 1`
          throw new Error('legal')
        })
        const said = await attempt.catch((error: unknown) =>
          String(Object(error).constraint_name ?? Object(error).message),
        )
        const move = MOVES[kind]
        const isMove =
          move.from === state &&
          (move.to === to || (kind === 'AUTHORIZE' && ['DECLINED', 'FAILED'].includes(to)))
        // The version of this one is not 1.
        const isBeginning = state === null && to === 'PENDING' && kind === 'AUTHORIZE'
        const refusal = isBeginning ? 'transition_starts_at_one' : 'transition_is_legal'
        expect([said, to]).toEqual([isMove ? 'legal' : refusal, to])
      }
    },
  )
  it('is append-only', async () => {
    await expect(sql`update transitions set actor = 'somebody'`).rejects.toThrow('append-only')
    await expect(sql`delete from transitions`).rejects.toThrow('append-only')
  })
})

/** During an upgrade the processes of the release before go on: who changes one of these breaks them. Add a new name. */
it('keep the signatures that older processes call', async () => {
  const row = 'TABLE(item integer, answer text, operation jsonb, payment jsonb, transition jsonb'
  const functions = await sql<{ told: string }[]>`
    select format('%s(%s) %s', proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid)) as told
    from pg_proc where pronamespace = 'public'::regnamespace and proname in ('claim', 'claim_again', 'settle', 'close_review', 'settle_delivery', 'resend_delivery')
    order by proname`
  expect(functions.map(({ told }) => told)).toEqual([
    `claim(items jsonb, at_time timestamp with time zone) ${row})`,
    `claim_again(items jsonb, at_time timestamp with time zone) ${row}, quiet boolean, replayable boolean)`,
    'close_review(payment uuid, audit jsonb, no_hold boolean, at_time timestamp with time zone) text',
    'resend_delivery(payment uuid, number integer, audit jsonb, at_time timestamp with time zone) jsonb',
    `settle(items jsonb, at_time timestamp with time zone) ${row})`,
    'settle_delivery(payment uuid, number integer, attempt integer, outcome jsonb, at_time timestamp with time zone) text',
  ])
})
