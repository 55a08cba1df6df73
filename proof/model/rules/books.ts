import { MOVES } from '../../../src/payment/payment.ts'
import type { Payment, Transition } from '../../../src/payment/payment.ts'
import { HOLD_MS } from '../bank.ts'
import type { History } from '../play.ts'
import {
  authorizeOf,
  groupedBy,
  idKeptOf,
  isForgotten,
  isInReview,
  madeBy,
  msOf,
  nameOf,
  operationOf,
  paymentOf,
} from './history.ts'
import type { Rules } from './history.ts'

/** The receipts are the bank's books, and their own history. */
export const BOOKS: Rules = {
  'what the bank has done, the receipts know; a hold that nobody wants is released': (h) =>
    h.bank.books.flatMap((entry) => {
      const operation = operationOf(h.settled, entry.key)
      if (operation === undefined) return [`${entry.id} was done under no claim`]
      if (operation.status === 'SUCCEEDED') return []
      const isReleased = entry.endpoint === 'authorizations' && h.bank.after(entry.id)?.endpoint === 'voids'
      return isReleased ? [] : [`${entry.id} was done, and ${nameOf(operation)} says ${operation.code}`]
    }),

  'what the receipts say was done, the bank has done, once, over that amount and under that id': (h) =>
    h.settled.operations.flatMap((operation) => {
      const payment = paymentOf(h.settled, operation)
      const [entry, ...others] = madeBy(h, operation)
      if (others.length > 0) return [`${nameOf(operation)} was carried out ${1 + others.length} times`]
      if (operation.status !== 'SUCCEEDED') return []
      if (entry === undefined) return [`${nameOf(operation)} says done, and the bank did nothing`]
      if (entry.amountCents !== payment?.amountCents) return [`${entry.id} is over ${entry.amountCents}`]
      const id = idKeptOf(operation, payment)
      // There is no GET for a void: a lost id stays unknown.
      const isLost = id === null && entry.endpoint === 'voids' && isForgotten(h, operation, entry)
      return id === entry.id || isLost
        ? []
        : [`${nameOf(operation)} made ${entry.id}, and the receipt says ${id}`]
    }),

  'a state is what the bank did for the payment': (h) => {
    const compare = (byMs: number) => (payment: Payment) => {
      const states = statesAtTheBank(h, payment, byMs)
      return states.includes(payment.state)
        ? []
        : [`${payment.state}, and at the bank ${states.join(' or ')}`]
    }
    const known = h.recovered.payments.filter((payment) => !isInReview(h.recovered, payment))
    return [...known.flatMap(compare(h.recoveredAtMs)), ...h.settled.payments.flatMap(compare(Infinity))]
  },

  'a history is a legal path': (h) =>
    h.settled.payments.flatMap((payment) => {
      const steps = h.settled.transitions.filter(({ paymentId }) => paymentId === payment.id)
      const isPath = steps.every((step, at) => isLegal(step, steps[at - 1]) && step.version === at + 1)
      const last = steps.at(-1)
      return isPath && last?.toState === payment.state && last.version === payment.version
        ? []
        : [`${payment.state} v${payment.version} after ${steps.map(({ toState }) => toState).join(' ')}`]
    }),

  'an order has one live payment, unless its client insists': (h) =>
    [...groupedBy(h.settled.payments, ({ orderId }) => orderId)].flatMap(([order, payments]) => {
      const live = payments.filter(({ state }) => ['PENDING', 'AUTHORIZED', 'CAPTURED'].includes(state))
      return live.filter(({ allowAnotherForOrder }) => !allowAnotherForOrder).length > 1
        ? [`${order} has two`]
        : []
    }),

  'an authorization is let go only when it has expired': (h) =>
    h.settled.transitions.flatMap(({ paymentId, toState, at }) => {
      const payment = h.settled.payments.find(({ id }) => id === paymentId)
      const hold = h.bank.books.find(({ id }) => id === payment?.authorizationId)
      return toState === 'EXPIRED' && msOf(at) < (hold?.atMs ?? 0) + HOLD_MS ? [`${hold?.id} had not`] : []
    }),
}

function statesAtTheBank(h: History, payment: Payment, byMs: number): Payment['state'][] {
  const operation = authorizeOf(h.settled, payment)
  const hold = operation && madeBy(h, operation).at(0)
  // One that was lost is another rule's.
  if (hold === undefined || payment.state === 'FAILED') return ['DECLINED', 'FAILED']
  const next = h.bank.after(hold.id, byMs)
  if (next === undefined) return ['AUTHORIZED']
  if (next.endpoint === 'voids')
    return operationOf(h.settled, next.key)?.kind === 'EXPIRE' ? ['EXPIRED'] : ['VOIDED']
  return [h.bank.after(next.id, byMs) === undefined ? 'CAPTURED' : 'REFUNDED']
}

function isLegal({ cause, fromState, toState }: Transition, before: Transition | undefined): boolean {
  if (fromState !== (before?.toState ?? null)) return false
  if (fromState === null) return toState === 'PENDING' && cause === 'AUTHORIZE'
  const isNo = cause === 'AUTHORIZE' && (toState === 'DECLINED' || toState === 'FAILED')
  return fromState === MOVES[cause].from && (toState === MOVES[cause].to || isNo)
}
