import type { Operation } from '../../../src/payment/payment.ts'
import { HOUR_MS, isSpoilt } from '../bank.ts'
import type { History } from '../play.ts'
import {
  authorizeOf,
  exchangesOf,
  idKeptOf,
  isForgotten,
  isInReview,
  madeBy,
  msOf,
  nameOf,
  paymentOf,
} from './history.ts'
import type { Rules } from './history.ts'

/** Everything ends; what only a person can tell is said to be so, and nothing else is. */
export const RECOVERY: Rules = {
  'once the bank is well, everything is known in 90 s, but what only an operator can tell': (h) => {
    const tookMs = h.recoveredAtMs - h.wellAtMs
    const open = h.recovered.operations.filter(
      ({ status, leasedUntil }) => status === 'UNRESOLVED' && leasedUntil !== null,
    )
    return [
      ...open.map((operation) => `${nameOf(operation)} is not`),
      ...(tookMs > 90_000 ? [`it took ${tookMs} ms`] : []),
    ]
  },

  'an operator is called only for what no rule can tell': (h) =>
    h.recovered.payments.flatMap((payment) => {
      if (!isInReview(h.recovered, payment)) return []
      if (payment.reviewReason === null) return ['an operation is left to an operator who is not told']
      const operations = h.recovered.operations.filter(({ paymentId }) => paymentId === payment.id)
      return operations.some((operation) => needsOperator(h, operation)) ? [] : [payment.reviewReason]
    }),

  'a hold that may be lost is marked, and no other': (h) =>
    h.recovered.payments.flatMap((payment) => {
      const operation = authorizeOf(h.recovered, payment)
      if (operation?.status !== 'REFUSED') return []
      const isMarked = payment.possibleOrphanHoldSince !== null
      const [hold] = madeBy(h, operation)
      const isStray = h.recovered.strays.some(({ authorizationId }) => authorizationId === hold?.id)
      if (hold !== undefined && !isMarked && !isStray) return [`${hold.id} is lost, and nobody is told`]
      const sends = exchangesOf(h, operation).filter(({ hasBody }) => hasBody)
      const isCertain = sends.every(({ allows }) => allows === 'RESEND') && h.interruptions === 0
      return isMarked && isCertain ? ['marked, and every attempt was answered'] : []
    }),

  'an id is missing only when the bank has forgotten it': (h) =>
    h.recovered.operations.flatMap((operation) => {
      const [entry] = madeBy(h, operation)
      const isMissing =
        operation.status === 'SUCCEEDED' && idKeptOf(operation, paymentOf(h.recovered, operation)) === null
      return isMissing && entry !== undefined && !isForgotten(h, operation, entry)
        ? [`${nameOf(operation)} lacks ${entry.id}`]
        : []
    }),

  'what the bank remembers is found without an operator': (h) =>
    h.waited.operations.flatMap((operation) => {
      const [entry] = madeBy(h, operation)
      // The last look is between 22 and 23 h after the send.
      const isOver = h.wellAtMs > msOf(operation.createdAt) + 21 * HOUR_MS
      if (entry === undefined || isOver || isInReview(h.recovered, paymentOf(h.recovered, operation)))
        return []
      if (!h.bank.stored.has(`${entry.key} ${entry.endpoint}`)) return []
      if (operation.status === 'REFUSED')
        return h.bank.after(entry.id) === undefined ? [`${entry.id} is still held`] : []
      return idKeptOf(operation, paymentOf(h.waited, operation)) === null
        ? [`${nameOf(operation)} lacks ${entry.id}`]
        : []
    }),

  'with an operator nothing is left open': (h) => [
    ...h.settled.operations
      .filter(({ status, lookAgainAt }) => status === 'UNRESOLVED' || lookAgainAt !== null)
      .map(nameOf),
    ...h.settled.payments
      .filter((payment) => payment.reviewReason !== null || payment.possibleOrphanHoldSince !== null)
      .map((payment) => payment.reviewReason ?? 'a possible orphan hold'),
    ...h.settled.strays
      .filter(({ releasedAt }) => releasedAt === null)
      .map((hold) => `${hold.authorizationId} is held`),
  ],
}

/** What the contract leaves to people: the bank did something else, forgot, or says what cannot be. */
function needsOperator(h: History, operation: Operation): boolean {
  const exchanges = exchangesOf(h, operation)
  if (exchanges.some(isSpoilt)) return true
  if (operation.kind === 'AUTHORIZE') {
    // Whoever asks within 23 h of the send is told, or has counted.
    return exchanges.some(({ sentMs }) => sentMs >= msOf(operation.createdAt) + 22 * HOUR_MS)
  }
  const count = (fault: string) => exchanges.filter((exchanged) => exchanged.fault === fault).length
  if (count('parentOrCardFault') > 1 || count('redirect') + count('redirect307') > 0) return true
  // One that may have been carried out and is now refused: by such a fault, or since the hold has expired.
  const isLate = exchanges.some(({ sentMs }) => sentMs > 160 * HOUR_MS)
  return operation.ambiguousAt !== null && (count('parentOrCardFault') > 0 || isLate)
}
