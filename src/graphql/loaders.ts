import { createContextCache } from '@pothos/core'
import DataLoader from 'dataloader'
import { deliveriesOfPayments } from '../events/deliveries.ts'
import {
  auditLinesOfPayments,
  bankCallsOfOperations,
  operationsById,
  operationsInFlight,
  operationsOfPayments,
  paymentsById,
  strayHoldsOfPayments,
  transitionsOfPayments,
} from '../payment/reads.ts'
import { discrepanciesById, reconciliationsById } from '../recovery/reconcile/reads.ts'
import type { Context } from './context.ts'

/**
 * What belongs to payments and operations, fetched for a whole page in one statement. They live as long as one request
 * and remember nothing (a mutation's second field must see what its first did): they only gather.
 */
export const loaders = createContextCache(({ gateway }: Context) => ({
  payment: one(
    (ids) => paymentsById(gateway, ids),
    (payment) => payment.id,
  ),
  operation: one(
    (ids) => operationsById(gateway, ids),
    (operation) => operation.id,
  ),
  reconciliation: one(
    (ids) => reconciliationsById(gateway, ids),
    (run) => run.id,
  ),
  discrepancy: one(
    (ids) => discrepanciesById(gateway, ids),
    (discrepancy) => discrepancy.id,
  ),
  operationInFlight: one(
    (ids) => operationsInFlight(gateway, ids),
    (operation) => operation.paymentId,
  ),
  operations: many(
    (ids) => operationsOfPayments(gateway, ids),
    (operation) => operation.paymentId,
  ),
  transitions: many(
    (ids) => transitionsOfPayments(gateway, ids),
    (transition) => transition.paymentId,
  ),
  strayHolds: many(
    (ids) => strayHoldsOfPayments(gateway, ids),
    (hold) => hold.paymentId,
  ),
  deliveries: many(
    (ids) => deliveriesOfPayments(gateway, ids),
    (delivery) => delivery.paymentId,
  ),
  auditLines: many(
    (ids) => auditLinesOfPayments(gateway, ids),
    (line) => line.paymentId,
  ),
  bankCalls: many(
    (ids) => bankCallsOfOperations(gateway, ids),
    (call) => call.operationId,
  ),
}))

type Fetch<Row> = (ids: readonly string[]) => Promise<Row[]>

function one<Row>(fetch: Fetch<Row>, idOf: (row: Row) => string) {
  return gathering(async (ids) => {
    const rows = new Map((await fetch(ids)).map((row) => [idOf(row), row]))
    return ids.map((id) => rows.get(id) ?? null)
  })
}

function many<Row>(fetch: Fetch<Row>, idOf: (row: Row) => string) {
  return gathering(async (ids) => {
    const rows = new Map<string, Row[]>(ids.map((id) => [id, []]))
    for (const row of await fetch(ids)) rows.get(idOf(row))?.push(row)
    return ids.map((id) => rows.get(id) ?? [])
  })
}

/** `fetch` is asked for each id once, however many fields want it. */
function gathering<Value>(fetch: (ids: readonly string[]) => Promise<Value[]>) {
  return new DataLoader<string, Value>(
    async (wanted) => {
      const ids = [...new Set(wanted)]
      const values = new Map((await fetch(ids)).map((value, at) => [ids[at], value]))
      return wanted.map((id) => values.get(id) as Value)
    },
    { cache: false },
  )
}
