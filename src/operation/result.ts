import type { Card } from '../payment/card.ts'
import { operationId } from '../payment/ids.ts'
import type {
  AuthorizeInput,
  FollowUpInput,
  OperationKind,
  Payment,
  ReleaseInput,
  Transition,
} from '../payment/payment.ts'
import { outcomeUnknown, storedProblem } from './problems.ts'
import type { Problem } from './problems.ts'
import type { Standing } from './standing.ts'

/** What a client asks for, validated and normalised; the card beside the input, never in it. */
export type Request = { client: string; idempotencyKey: string } & (
  | { kind: 'AUTHORIZE'; input: AuthorizeInput; card: Card }
  | { kind: 'CAPTURE' | 'VOID' | 'REFUND' | 'EXPIRE'; input: FollowUpInput; card: null }
  | { kind: 'RELEASE'; input: ReleaseInput; card: null }
)

/**
 * The answer to a mutation. `replayed`: the key was already answered, and this is that answer. `operation`: `op_...`, or
 * null where none was recorded or it is not known yet.
 */
export type Result = { operation: string | null; replayed: boolean } & (
  | { is: 'success'; kind: OperationKind; payment: Payment; transition: Transition | null }
  | { is: 'problem'; problem: Problem }
)

/** What a client is told of an operation as it stands. A fresh answer and its replay are the same by construction. */
export function resultOf({ operation, payment, transition }: Standing, replayed: boolean): Result {
  const of = { operation: operationId(operation.id), replayed }
  switch (operation.status) {
    case 'UNRESOLVED':
      return { is: 'problem', problem: outcomeUnknown(operation, payment), ...of, replayed: false }
    case 'REFUSED':
      return { is: 'problem', problem: storedProblem(operation, payment), ...of }
    case 'SUCCEEDED':
      if (payment === null) throw new Error(`operation ${operation.id} succeeded without a payment`)
      return { is: 'success', kind: operation.kind, payment, transition, ...of }
  }
}

export function refused(problem: Problem): Result {
  return { is: 'problem', problem, operation: null, replayed: false }
}
