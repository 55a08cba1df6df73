import { bankKey } from '../../../src/operation/bank-key.ts'
import type { Operation, Payment } from '../../../src/payment/payment.ts'
import { HOUR_MS, START } from '../bank.ts'
import type { Entry, Exchanged } from '../bank.ts'
import type { History, Told } from '../play.ts'
import type { Receipts } from '../receipts.ts'

/** A rule answers what breaks it in a history; nothing when all is well. */
export type Rules = Record<string, (h: History) => string[]>

/** How rules look at a history. */
export const nameOf = ({ kind, idempotencyKey }: Operation) => `${kind} ${idempotencyKey}`
export const msOf = (date: Date) => date.getTime() - START

/** The bank's key of an operation; null where there was never a payment to ask about. */
export function keyOf(receipts: Receipts, operation: Operation): string | null {
  const payment = paymentOf(receipts, operation)
  return payment === undefined ? null : bankKey(operation, payment)
}
/** `key`: the bank's. */
export const operationOf = (receipts: Receipts, key: string) =>
  receipts.operations.find((operation) => key === keyOf(receipts, operation))
export const operationTold = ({ operations }: Receipts, { request }: Told) =>
  operations.find(({ idempotencyKey }) => idempotencyKey === request.idempotencyKey)
export const paymentOf = ({ payments }: Receipts, operation: Operation) =>
  payments.find(({ id }) => id === operation.paymentId)
/** One that was refused at once names the payment that the order has already. */
export const authorizeOf = ({ operations }: Receipts, payment: Payment) =>
  operations.find(
    ({ kind, paymentId, attempt }) => kind === 'AUTHORIZE' && paymentId === payment.id && attempt > 0,
  )

export const exchangesOf = (h: History, operation: Operation): Exchanged[] =>
  h.bank.exchanges.filter(({ key }) => key === keyOf(h.settled, operation))
/** The rows of the bank's ledger that an operation made. */
export const madeBy = (h: History, operation: Operation): Entry[] =>
  h.bank.books.filter(({ key }) => key === keyOf(h.settled, operation))

/** In review: only an operator can settle it. */
export function isInReview({ operations }: Receipts, payment: Payment | undefined): boolean {
  if (payment === undefined) return false
  const waits = ({ paymentId, status, leasedUntil }: Operation) =>
    paymentId === payment.id && status === 'UNRESOLVED' && leasedUntil === null
  return payment.reviewReason !== null || operations.some(waits)
}

/** The bank's id that the receipt has for what an operation did. */
export function idKeptOf(operation: Operation, payment: Payment | undefined): string | null | undefined {
  switch (operation.kind) {
    case 'AUTHORIZE':
      return payment?.authorizationId
    case 'CAPTURE':
      return payment?.captureId
    case 'REFUND':
      return payment?.refundId
    case 'VOID':
    case 'EXPIRE':
    case 'RELEASE':
      return payment?.voidId
  }
}

/** The answer was never stored, was forgotten by the time that the operation was resolved, or was denied. */
export function isForgotten(h: History, operation: Operation, entry: Entry): boolean {
  const stored = h.bank.stored.get(`${entry.key} ${entry.endpoint}`)
  if (stored === undefined || denialsOf(h, operation) > 0) return true
  return operation.resolvedAt !== null && msOf(operation.resolvedAt) >= stored.atMs + 24 * HOUR_MS
}

/** It was resolved when the bank need not have remembered any more: within 24 h, and an hour for clocks that differ. */
export function isPastMemory({ createdAt, resolvedAt }: Operation): boolean {
  return resolvedAt !== null && msOf(resolvedAt) >= msOf(createdAt) + 23 * HOUR_MS
}

/** How often the bank said "not stored" for a fault of its look-up. */
export function denialsOf(h: History, operation: Operation): number {
  return exchangesOf(h, operation).filter(({ fault }) => fault === 'lookupFault').length
}

export function groupedBy<T>(all: readonly T[], name: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const one of all) groups.set(name(one), [...(groups.get(name(one)) ?? []), one])
  return groups
}
