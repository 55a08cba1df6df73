import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { derivedId, timeOrderedId } from '../../src/payment/ids.ts'
import { MOVES } from '../../src/payment/payment.ts'
import { testDatabase } from '../support/database.ts'

/** What a claim does while the database is known to have lost commits (sql/history.sql). */

const { sql } = await testDatabase()

type Row = { answer: string; operation: Record<string, unknown> | null }
type Item = Record<string, unknown>
async function claim(item: Item, at: Date | null = null): Promise<Row> {
  const [row] = await sql<Row[]>`select * from claim(${sql.json([item] as never)}, ${at})`
  if (row === undefined) throw new Error('no row')
  return row
}
const request = (kind: 'AUTHORIZE' | 'CAPTURE', paymentId = timeOrderedId()): Item => ({
  kind,
  paymentId,
  operationId: derivedId(8),
  token: randomUUID(),
  client: 'ficmart',
  idempotencyKey: randomUUID(),
  move: MOVES[kind],
  maySend: true,
  wasSent: false,
  leaseMs: 50_000,
  input:
    kind === 'CAPTURE'
      ? { paymentId, expectedAmountCents: null }
      : {
          orderId: randomUUID(),
          customerId: 'c',
          amountCents: 100,
          allowAnotherForOrder: false,
          cardBrand: 'visa',
          cardLast4: '1111',
          cardExpiryMonth: 12,
          cardExpiryYear: 2030,
        },
})
const sent = { answer: 'CLAIMED', operation: { attempt_purpose: 'SEND', sent_at: expect.any(String) } }
const probed = { answer: 'CLAIMED', operation: { attempt_purpose: 'PROBE', sent_at: null } }

it('an authorize is probed before it is sent, and a payment may come back, for as long as the bank remembers', async () => {
  expect(await claim(request('AUTHORIZE'))).toMatchObject(sent)
  expect(await claim(request('CAPTURE'))).toMatchObject({ operation: { code: 'PAYMENT_NOT_FOUND' } })

  // A process that has seen the log further than it is.
  const [seen] = await sql`
    select system_identifier, timeline, 'FFFFFFFF/FFFFFFFF' as position from history order by id desc limit 1`
  const history = seen ?? {}
  expect(await claim({ ...request('AUTHORIZE'), history })).toMatchObject(probed)
  // The others need not have seen it, and it is noted once.
  const held = request('AUTHORIZE')
  expect(await claim(held)).toMatchObject(probed)
  await claim({ ...request('AUTHORIZE'), history })
  expect(await sql`select reason from history order by id`).toEqual([
    { reason: 'FIRST' },
    { reason: 'POSITION_WENT_BACK' },
  ])
  // What was sent under a claim that is gone is known to have been sent.
  expect(await claim({ ...request('AUTHORIZE'), wasSent: true })).toMatchObject(sent)

  const capture = request('CAPTURE')
  expect(await claim(capture)).toMatchObject({ answer: 'NOT_ADMITTED', operation: null })
  expect(await sql`select from operations where id = ${String(capture['operationId'])}`).toHaveLength(0)
  // The payment that stands for it is found by the part of its id that is made from the request.
  const successors = await sql`
    select payment_id from payment_successors where id_tail = ${String(held['paymentId']).slice(-12)}`
  expect(successors).toEqual([{ paymentId: held['paymentId'] }])

  const later = new Date(Date.now() + 25 * 3_600_000 + 60_000)
  expect(await claim(request('AUTHORIZE'), later)).toMatchObject(sent)
  expect(await claim(request('CAPTURE'), later)).toMatchObject({ operation: { code: 'PAYMENT_NOT_FOUND' } })
})
