import type { Database } from '../db/connection.ts'
import type { Operation, Payment, Transition } from '../payment/payment.ts'
import { rowFromJson } from '../payment/rows.ts'

/** An operation with the payment it concerns and the transition that it made, as the functions of sql/ answer. */
export type Standing = { operation: Operation; payment: Payment | null; transition: Transition | null }

/** What the functions of sql/ take, as JSON. */
export type JsonItem = Parameters<Database['json']>[0]

export type JsonRow<Answer> = {
  answer: Answer
  operation: Record<string, unknown> | null
  payment: Record<string, unknown> | null
  transition: Record<string, unknown> | null
}

export function readRow<Answer>(row: JsonRow<Answer>) {
  return {
    answer: row.answer,
    operation: row.operation && rowFromJson<Operation>(row.operation),
    payment: row.payment && rowFromJson<Payment>(row.payment),
    transition: row.transition && rowFromJson<Transition>(row.transition),
  }
}

/** Throws when the answer came without the operation that it must have. */
export function standingOf(row: ReturnType<typeof readRow>): Standing {
  const { operation, payment, transition } = row
  if (operation === null)
    throw new Error(`a function of sql/ answered ${String(row.answer)} without an operation`)
  return { operation, payment, transition }
}
