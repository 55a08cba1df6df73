import { isDeepStrictEqual } from 'node:util'
import type { Operation } from '../../../src/payment/payment.ts'
import { CARDS, HOLD_MS } from '../bank.ts'
import type { History, Told } from '../play.ts'
import { BROKEN, SETTINGS } from '../process.ts'
import { exchangesOf, groupedBy, madeBy, msOf, nameOf, operationTold, paymentOf } from './history.ts'
import type { Rules } from './history.ts'
import { plainAnswers } from './plain.ts'

/** What the clients were told is true, and stays so. */
export const ANSWERS: Rules = {
  'while nothing fails, the answers are those of the plain payment': (h) => plainAnswers(h.told),

  'a client is answered by its deadline, unless the process dies': (h) =>
    h.told
      .filter(
        ({ askedMs, answeredMs, result }) =>
          result !== null && answeredMs > askedMs + SETTINGS.requestDeadlineMs,
      )
      .map(({ request, askedMs, answeredMs }) => `${request.kind} after ${answeredMs - askedMs} ms`),

  'a key has one final answer': (h) =>
    [...groupedBy(h.told, ({ request }) => request.idempotencyKey)].flatMap(([key, told]) => {
      const answers = new Set(told.map(finalAnswer).filter((answer) => answer !== null))
      return answers.size > 1 ? [`${key} was told ${[...answers].join(' and ')}`] : []
    }),

  'what was told is what is kept, and was done by then': (h) =>
    h.told.flatMap((told) => {
      const answer = finalAnswer(told)
      const operation = operationTold(h.settled, told)
      if (answer === null) return []
      if (operation === undefined)
        return [`${answer} for ${told.request.idempotencyKey}, and nothing is kept`]
      const kept = operation.code ?? `done at ${operation.transitionVersion}`
      if (!isDeepStrictEqual([told.request.kind, told.request.input], [operation.kind, operation.input]))
        return [`${answer} for ${nameOf(operation)}, which was another request`]
      if (kept !== answer) return [`${answer} for ${nameOf(operation)}, and ${kept} is kept`]
      const isDone = madeBy(h, operation).every(({ atMs }) => atMs <= told.answeredMs)
      return operation.code !== null || isDone ? [] : [`${nameOf(operation)} was told before it was done`]
    }),

  '"nothing was sent" is true': (h) =>
    h.told.filter(saysNothingSent).flatMap((told) => {
      const duplicates = h.told.filter(
        (one) => one !== told && isSameKey(one, told) && one.askedMs <= told.answeredMs,
      )
      const operation = operationTold(h.settled, told)
      // A duplicate may have been let in.
      return duplicates.length === 0 &&
        operation !== undefined &&
        msOf(operation.createdAt) <= told.answeredMs
        ? [`${nameOf(operation)} was claimed`]
        : []
    }),

  'a refusal has its reason': (h) =>
    h.settled.operations
      .filter((operation) => !hasReason(h, operation))
      .map((operation) => `${nameOf(operation)}: ${operation.code}`),

  'a repeat of what is known asks the bank nothing': (h) => {
    const repeatedMs = Math.min(...h.told.filter(({ isRepeat }) => isRepeat).map(({ askedMs }) => askedMs))
    return h.bank.exchanges.filter(({ sentMs }) => sentMs > repeatedMs).map(({ endpoint }) => endpoint)
  },

  'the core has no fault of its own': (h) =>
    h.errors
      .filter(({ msg }) => /lost track|sweep failed|goes on later|was taken for/.test(msg))
      // A process that slept through its lease gives up what the database then does not take at once.
      .filter(({ err }) => h.pauses === 0 || err?.message !== BROKEN)
      .map(({ msg, err }) => `${msg}: ${err?.message}`),
}

const isSameKey = (one: Told, other: Told) => one.request.idempotencyKey === other.request.idempotencyKey

/** What a client may build on; null while there is nothing. */
function finalAnswer({ result }: Told): string | null {
  if (result === null) return null
  if (result.is === 'success') return `done at ${result.transition?.version ?? null}`
  const { code, retry } = result.problem
  // Said of another request than the key's.
  if (code === 'IDEMPOTENCY_KEY_REUSED') return null
  return retry === 'NEW_KEY' || retry === 'DO_NOT_RETRY' ? code : null
}

function saysNothingSent({ result }: Told): boolean {
  if (result?.is !== 'problem') return false
  const { code, retry } = result.problem
  return retry === 'WAIT' || (code === 'BANK_UNAVAILABLE' && retry === 'SAME_KEY')
}

const CARD_OF = new Map(Object.values(CARDS).map((card) => [card.number.slice(-4), card]))

/** Of those refusals that the bank gives: it gave it, and twice where it looks like a fault. */
function hasReason(h: History, operation: Operation): boolean {
  const payment = paymentOf(h.settled, operation)
  const faults = exchangesOf(h, operation).filter(({ fault }) => fault === 'parentOrCardFault').length
  const card = CARD_OF.get(payment?.cardLast4 ?? '')
  switch (operation.code) {
    case 'CARD_INVALID':
      return card === CARDS.unknown || faults > 1
    case 'CVV_INVALID':
      return card === CARDS.wrongCvv
    case 'CARD_EXPIRED':
      return card === CARDS.expired
    case 'INSUFFICIENT_FUNDS':
      return card === CARDS.poor
    case 'AUTHORIZATION_EXPIRED': {
      const hold = h.bank.books.find(({ id }) => id === payment?.authorizationId)
      return (
        hold !== undefined &&
        operation.resolvedAt !== null &&
        msOf(operation.resolvedAt) >= hold.atMs + HOLD_MS
      )
    }
    case 'BANK_REFERENCE_MISSING':
      return faults > 1 || operation.attempt === 0
    default:
      return true
  }
}
