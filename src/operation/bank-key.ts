import { createHash } from 'node:crypto'
import { derivedId } from '../payment/ids.ts'
import type { Operation, Payment } from '../payment/payment.ts'
import type { Request } from './result.ts'

/**
 * The bank's idempotency key, made from what the client repeats: should the receipts lose their last commits, the
 * client's repeat sends the same key, and the bank gives back what it has done. It is the same over all attempts, and
 * never the client's own.
 *
 * What follows an authorization is named by the bank's own id of it, which outlives the receipts; the payment's id here
 * may not. An operation of a release that made the key from the operation's id keeps that one: the new kind has ids of
 * UUID version 8 (sql/claim_again.sql: is_keyed).
 */
export function bankKey(operation: Operation, payment: Payment): string {
  return isKeyed(operation) ? digestOf(operation, parentAtBank(operation, payment)) : `op_${operation.id}`
}

/** A payment's id differs only in its time when the same request is claimed again. */
export function idsOf(request: Request): { operationId: string; paymentId: string } {
  const operationId = derivedId(8)
  if (request.kind !== 'AUTHORIZE') return { operationId, paymentId: request.input.paymentId }
  return { operationId, paymentId: derivedId(7, digestOf(request, null)) }
}

const isKeyed = ({ id }: Operation) => id.charAt(14) === '8'

function parentAtBank({ kind, input }: Operation, payment: Payment): string | null {
  if ('authorizationId' in input) return input.authorizationId
  return kind === 'REFUND' ? payment.captureId : payment.authorizationId
}

type Named = Pick<Operation, 'client' | 'idempotencyKey' | 'kind' | 'input'>

/** In the form of Postgres's array_to_json, so that the bank's ledger can be compared by SQL (proof/support/bank-key.ts). */
function digestOf({ client, idempotencyKey, kind, input }: Named, parent: string | null): string {
  const about =
    'orderId' in input
      ? [
          input.orderId,
          input.customerId,
          input.amountCents,
          input.allowAnotherForOrder,
          input.cardBrand,
          input.cardLast4,
          input.cardExpiryMonth,
          input.cardExpiryYear,
        ]
      : [parent]
  return createHash('sha256')
    .update(JSON.stringify([client, idempotencyKey, kind, ...about].map(String)))
    .digest('hex')
}
