import { CLIENT_OPERATIONS, MOVES } from './payment.ts'
import type { ClientOperation, Payment, ProblemCode } from './payment.ts'

export type AllowedOperation = {
  operation: ClientOperation
  /** What the operation would be refused with now; null when it is allowed. */
  blockedBy: ProblemCode | null
}

/**
 * What could be asked of a payment now. It tells before what sql/claim.sql decides when it is asked, in the same order;
 * only the claim's answer counts.
 */
export function allowedOperations(payment: Payment, isBusy: boolean): AllowedOperation[] {
  return CLIENT_OPERATIONS.filter((operation) => operation !== 'AUTHORIZE').map((operation) => ({
    operation,
    blockedBy: blockedBy(operation, payment, isBusy),
  }))
}

function blockedBy(operation: ClientOperation, payment: Payment, isBusy: boolean): ProblemCode | null {
  const { state, captureId } = payment
  if (isBusy) return 'OPERATION_IN_FLIGHT'
  // That a hold has run out is the bank's to say.
  if (operation === 'CAPTURE' && state === 'EXPIRED') return 'AUTHORIZATION_EXPIRED'
  if (state !== MOVES[operation].from) return 'INVALID_TRANSITION'
  if (operation === 'REFUND' && captureId === null) return 'BANK_REFERENCE_MISSING'
  return null
}
