import type { Card } from '../payment/card.ts'
import type {
  AuthorizeInput,
  FollowUpInput,
  OperationKind,
  Payment,
  ReleaseInput,
  Transition,
} from '../payment/payment.ts'
import { problem, storedProblem } from './problems.ts'
import type { Problem } from './problems.ts'
import type { Standing } from './standing.ts'

/** What a client asks for, validated and normalised; the card beside the input, never in it. */
export type Request = { client: string; idempotencyKey: string } & (
  | { kind: 'AUTHORIZE'; input: AuthorizeInput; card: Card }
  | { kind: 'CAPTURE' | 'VOID' | 'REFUND' | 'EXPIRE'; input: FollowUpInput; card: null }
  | { kind: 'RELEASE'; input: ReleaseInput; card: null }
)

/** The answer to a mutation. `replayed`: the key was already answered, and this is that answer. */
export type Result =
  | { is: 'success'; kind: OperationKind; payment: Payment; transition: Transition | null; replayed: boolean }
  | { is: 'problem'; problem: Problem; replayed: boolean }

/** What a client is told of an operation as it stands. A fresh answer and its replay are the same by construction. */
export function resultOf({ operation, payment, transition }: Standing, replayed: boolean): Result {
  switch (operation.status) {
    case 'UNRESOLVED':
      return { is: 'problem', problem: problem('OUTCOME_UNKNOWN', { payment }), replayed: false }
    case 'REFUSED':
      return { is: 'problem', problem: storedProblem(operation, payment), replayed }
    case 'SUCCEEDED':
      if (payment === null) throw new Error(`operation ${operation.id} succeeded without a payment`)
      return { is: 'success', kind: operation.kind, payment, transition, replayed }
  }
}

export function refused(problem: Problem): Result {
  return { is: 'problem', problem, replayed: false }
}
