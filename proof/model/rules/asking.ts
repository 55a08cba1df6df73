import type { Operation } from '../../../src/payment/payment.ts'
import { isSpoilt } from '../bank.ts'
import type { History } from '../play.ts'
import {
  denialsOf,
  exchangesOf,
  groupedBy,
  isPastMemory,
  madeBy,
  msOf,
  nameOf,
  operationOf,
} from './history.ts'
import type { Rules } from './history.ts'

/** What may be asked of the bank, and concluded from what it says. */
export const ASKING: Rules = {
  'an authorize is sent again only after an answer that says that it was not carried out': (h) =>
    [...groupedBy(h.bank.exchanges, ({ key }) => key)].flatMap(([key, exchanges]) => {
      const sends = exchanges.filter(({ endpoint, hasBody }) => endpoint === 'authorizations' && hasBody)
      return sends.slice(1).flatMap((send, at) => {
        const before = sends[at]
        const isRefused =
          before?.allows === 'RESEND' && before.endedMs !== null && before.endedMs <= send.sentMs
        return isRefused ? [] : [`${key} was sent again after ${before?.fault ?? 'a plain answer'}`]
      })
    }),

  'nothing is sent under a claim older than 5 s': (h) =>
    h.bank.exchanges
      .filter(({ hasBody, claimAgeMs }) => hasBody && claimAgeMs > 5_000)
      .map(({ endpoint, claimAgeMs }) => `${endpoint} under one of ${Math.round(claimAgeMs)} ms`),

  'nothing is carried out after its operation was answered': (h) =>
    h.bank.books.flatMap((entry) => {
      const operation = operationOf(h.settled, entry.key)
      if (operation === undefined || operation.resolvedAt === null || wasHeld(h, operation)) return []
      return entry.atMs > msOf(operation.resolvedAt) ? [`${entry.id} came after ${nameOf(operation)}`] : []
    }),

  'no verdict is passed over what the bank still tells': (h) =>
    h.recovered.operations.flatMap((operation) => {
      const [entry] = madeBy(h, operation)
      if (operation.status !== 'REFUSED' || entry === undefined || wasHeld(h, operation)) return []
      const isTold =
        h.bank.stored.has(`${entry.key} ${entry.endpoint}`) &&
        denialsOf(h, operation) < 3 &&
        !isPastMemory(operation)
      return isTold
        ? [`${nameOf(operation)}: ${operation.code}, and whoever asked was told of ${entry.id}`]
        : []
    }),

  'an answer that does not fit the request becomes no state': (h) =>
    h.bank.exchanges
      .filter((exchanged) => isSpoilt(exchanged) && exchanged.endedMs !== null)
      .flatMap(({ key }) => {
        const operation = operationOf(h.recovered, key)
        // Somebody else may have asked again, or an operator settled it.
        const isJudged = h.interruptions > 0 || h.acts > 0
        return operation?.status === 'UNRESOLVED' || isJudged ? [] : [`${key} is ${operation?.status}`]
      }),

  'every exchange with the bank is on record': (h) =>
    h.settled.operations.flatMap((operation) => {
      const made = exchangesOf(h, operation).filter(({ endedMs }) => endedMs !== null).length
      const recorded = h.settled.calls.filter(
        ({ operationId, purpose }) =>
          operationId === operation.id && (purpose === 'SEND' || purpose === 'PROBE'),
      ).length
      const isLost = recorded < made && h.interruptions > 0
      return recorded === made || isLost ? [] : [`${nameOf(operation)}: ${recorded} of ${made}`]
    }),
}

/** No lease can bind a process that stands still at its last step: what it sends then is found late, and let go. */
function wasHeld(h: History, operation: Operation): boolean {
  return exchangesOf(h, operation).some((exchanged) => exchanged.wasHeld)
}
