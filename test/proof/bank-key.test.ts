import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { BANK_KEY_SQL } from '../../proof/support/bank-key.ts'
import { bankKey } from '../../src/operation/bank-key.ts'
import { derivedId, timeOrderedId } from '../../src/payment/ids.ts'
import { OPERATION_KINDS } from '../../src/payment/payment.ts'
import type { Operation, OperationInput, OperationKind, Payment } from '../../src/payment/payment.ts'
import { testDatabase } from '../support/database.ts'

/** The proofs find an operation's rows at the bank by SQL: under the key that the gateway makes. */

const { sql } = await testDatabase()

const AUTHORIZE = {
  orderId: 'order "1" \\ \u0001 Ü 🛒',
  customerId: 'customer\n\u2028',
  amountCents: 9_007_199_254_740_991,
  allowAnotherForOrder: true,
  cardBrand: 'visa',
  cardLast4: '0042',
  cardExpiryMonth: 3,
  cardExpiryYear: 2030,
}
const paymentId = timeOrderedId()
const payment = { id: paymentId, authorizationId: 'auth_1', captureId: 'cap_1' } as Payment

function inputOf(kind: OperationKind): OperationInput {
  if (kind === 'AUTHORIZE') return AUTHORIZE
  return kind === 'RELEASE'
    ? { paymentId, authorizationId: 'auth_stray' }
    : { paymentId, expectedAmountCents: null }
}

async function bySql(operation: Operation, { authorizationId, captureId }: Payment) {
  const [row] = await sql<{ key: string }[]>`
    select ${sql.unsafe(BANK_KEY_SQL)} as key
    from (select ${operation.id}::uuid as id, ${operation.client} as client, ${operation.idempotencyKey} as idempotency_key,
                 ${operation.kind} as kind, ${sql.json(operation.input)}::jsonb as input) as o,
         (select ${authorizationId}::text as authorization_id, ${captureId}::text as capture_id) as p`
  return row?.key
}

it.each(OPERATION_KINDS)('%s', async (kind) => {
  const input = inputOf(kind)
  const operation = { client: 'shop', idempotencyKey: 'key\t"1"', kind, input } as Operation
  for (const id of [derivedId(8), timeOrderedId(), randomUUID()]) {
    for (const about of [payment, { ...payment, authorizationId: null, captureId: null }]) {
      expect(await bySql({ ...operation, id }, about)).toBe(bankKey({ ...operation, id }, about))
    }
  }
})
