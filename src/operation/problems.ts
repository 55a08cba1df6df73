import { isInReview, operationsAllowedIn } from '../payment/payment.ts'
import type { Operation, Payment, ProblemCode, ProblemDetail } from '../payment/payment.ts'

/** The refusals of the API: what each one means, in one sentence or two, and what the client should do next. */

/**
 * SAME_KEY: repeat this very request. NEW_KEY: it was not carried out and never will be under this key; ask again
 * under a new one. WAIT: ask again later, the key is still free. DO_NOT_RETRY: the answer will not change.
 */
export const RETRIES = ['SAME_KEY', 'NEW_KEY', 'WAIT', 'DO_NOT_RETRY'] as const
export type Retry = (typeof RETRIES)[number]

export type Problem = {
  code: ProblemCode
  message: string
  retry: Retry
  /** When it makes sense to try again; null when the client decides. */
  retryAfterMs: number | null
  detail: ProblemDetail
  /** The payment that it concerns, as it stands now. */
  payment: Payment | null
}

type Wording = { retry: Retry; retryAfterMs: number | null; message: (about: About) => string }
type About = { detail: ProblemDetail; payment: Payment | null }

/** Long enough for most operations to end, short enough that nobody notices. */
const WAIT_MS = 1_000
/** The bank is slow or silent: asking sooner tells nothing new. */
const UNKNOWN_MS = 5_000

const WORDINGS: Record<ProblemCode, Wording> = {
  IDEMPOTENCY_KEY_REUSED: {
    retry: 'NEW_KEY',
    retryAfterMs: null,
    message: ({ detail }) =>
      `This idempotency key was used before for a request with another ${detail.field ?? 'input'}. Nothing was done. Use a new key for a new request, or repeat the first one unchanged.`,
  },
  OPERATION_IN_FLIGHT: {
    retry: 'WAIT',
    retryAfterMs: WAIT_MS,
    message: () =>
      'Another operation on this payment is under way. Nothing was done for this request. Wait for the other one to end, look at the payment, then ask again if it still applies.',
  },
  PAYMENT_NOT_FOUND: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'There is no payment with this id. Nothing was done. Find it by its order (paymentsByOrder), then ask again, under a new key.',
  },
  INVALID_TRANSITION: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: ({ detail }) => {
      const allowed = detail.from === undefined ? [] : operationsAllowedIn(detail.from)
      const next =
        allowed.length === 0
          ? 'Nothing can be done with it any more.'
          : `Allowed then: ${allowed.join(', ').toLowerCase()}; ask under a new key.`
      const what =
        detail.from === detail.to ? 'already' : `and could not become ${detail.to ?? 'what was asked for'}`
      return `The payment was ${detail.from ?? 'in another state'} ${what}. Nothing was done. ${next}`
    },
  },
  AUTHORIZATION_EXPIRED: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'The authorization has expired, so nothing was captured. The customer has to pay for the order again, with a new authorization.',
  },
  AMOUNT_MISMATCH: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: ({ detail }) =>
      `The payment is over ${detail.actualAmountCents} cents, not the expected ${detail.expectedAmountCents}. Nothing was done. Look at the payment before you ask again, under a new key.`,
  },
  ORDER_ALREADY_HAS_PAYMENT: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'This order already has a payment. Nothing was charged for this request. If the order shall really be paid twice, say allowAnotherForOrder under a new key.',
  },
  CARD_INVALID: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'The bank does not accept this card. Nothing was charged. Ask the customer for another card, under a new key.',
  },
  CVV_INVALID: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'The bank says that the CVV does not belong to this card. Nothing was charged. Ask the customer for it again, under a new key.',
  },
  CARD_EXPIRED: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'The card has expired. Nothing was charged. Ask the customer for another card, under a new key.',
  },
  INSUFFICIENT_FUNDS: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'The card does not cover the amount. Nothing was charged. Ask the customer for another card, under a new key.',
  },
  BANK_UNAVAILABLE: {
    retry: 'NEW_KEY',
    retryAfterMs: null,
    message: () =>
      'The bank did not carry this out, and will not under this key any more. Nothing was charged or changed. Ask again later under a new key.',
  },
  OUTCOME_UNKNOWN: {
    retry: 'SAME_KEY',
    retryAfterMs: UNKNOWN_MS,
    message: () =>
      'The bank has not said yet whether it did this. It may have: do not treat it as failed. The gateway keeps asking; repeat this request with the same key, or look at the payment, to learn the outcome.',
  },
  BANK_REFERENCE_MISSING: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      "The bank's own reference that this needs is missing or unknown to the bank. Nothing was done. An operator must enter or check it; then ask again under a new key.",
  },
  BANK_REFERENCE_REFUSED: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: ({ detail }) =>
      `This reference was not entered: ${detail.why ?? 'the bank does not confirm it'}. Nothing was changed. Check it against the bank's statement.`,
  },
  NOTHING_TO_SETTLE: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'Nothing about this payment waits for that. Nothing was changed. Look at its review, its operations and its stray holds.',
  },
  WEBHOOK_NOT_FOUND: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'There is no webhook with this id: the payment has no such transition, or webhooks were off when it was made. Nothing was changed. `webhookDeliveries` lists them.',
  },
  INVALID_INPUT: {
    retry: 'DO_NOT_RETRY',
    retryAfterMs: null,
    message: () =>
      'The input is not valid; the fields tell where and why. Nothing was stored or sent, and no key was used up. Correct it and ask again.',
  },
}

export function problem(
  code: ProblemCode,
  about: Partial<About> & Partial<Pick<Problem, 'retry' | 'retryAfterMs' | 'message'>> = {},
): Problem {
  const { detail = {}, payment = null } = about
  const wording = WORDINGS[code]
  return {
    code,
    message: about.message ?? wording.message({ detail, payment }),
    retry: about.retry ?? wording.retry,
    retryAfterMs: about.retryAfterMs === undefined ? wording.retryAfterMs : about.retryAfterMs,
    detail,
    payment,
  }
}

/** The final answer of a refused operation, the same each time it is asked for. */
export function storedProblem(operation: Operation, payment: Payment | null): Problem {
  if (operation.code === null)
    throw new Error(`operation ${operation.id} is ${operation.status} and has no problem`)
  const { code, kind, detail, ambiguousAt } = operation
  const mayHaveHeld = code === 'BANK_UNAVAILABLE' && kind === 'AUTHORIZE' && ambiguousAt !== null
  return problem(code, {
    detail: detail ?? {},
    payment,
    ...(mayHaveHeld ? { message: givenUp(payment) } : {}),
  })
}

function givenUp(payment: Payment | null): string {
  const hold =
    payment?.possibleOrphanHoldSince == null
      ? 'If the amount was held on the card, it has been released, or is about to be.'
      : 'The amount may still be held on the card; such a hold is released when it is found.'
  return `The payment was not authorized, and never will be under this key: nothing is charged. ${hold} Ask again later under a new key.`
}

/** What a client is told of an operation that is not resolved. */
export function outcomeUnknown(operation: Operation, payment: Payment | null): Problem {
  return problem('OUTCOME_UNKNOWN', { payment, ...(isInReview(operation) ? { message: IN_REVIEW } : {}) })
}

const IN_REVIEW =
  'What the bank has done cannot be told by rule; an operator is looking at it. Do not treat it as failed. Repeat this request with the same key later to learn the outcome.'

/** What a client is told whom another operation keeps waiting. */
export function inFlight(other: Operation | null, payment: Payment | null): Problem {
  return problem('OPERATION_IN_FLIGHT', {
    payment,
    ...(other !== null && isInReview(other) ? { message: WAITS } : {}),
  })
}

const WAITS =
  'Another operation on this payment waits for an operator, since what the bank has done cannot be told by rule. Nothing was done for this request. Ask again when it has ended, if it still applies.'

/** An order whose payment is under way, or about to end, may yet be paid by this request: the key stays free. */
export function orderBusy(other: Operation | null, payment: Payment | null): Problem {
  const isPending = payment?.state === 'PENDING'
  const what =
    other !== null && isInReview(other)
      ? "This order's payment waits for an operator, since what the bank has done cannot be told by rule"
      : isPending
        ? 'A payment for this order is under way'
        : "This order's payment has expired, or is being voided or refunded, and has not ended yet"
  const orElse = isPending ? '' : ' Or, if the order shall really be paid twice, say allowAnotherForOrder.'
  const message = `${what}. Nothing was done for this request. Ask again when the other one has ended.${orElse}`
  return problem('ORDER_ALREADY_HAS_PAYMENT', { payment, retry: 'WAIT', retryAfterMs: WAIT_MS, message })
}

/** Refused before anything was written: definitely not sent, and the key is still free. */
export function notAdmitted(
  refusal: { retryAfterMs: number; reason: string },
  payment: Payment | null,
): Problem {
  const { retryAfterMs, reason } = refusal
  const message = `${sentence(reason)} Nothing was sent or recorded. Repeat the request with the same key.`
  return problem('BANK_UNAVAILABLE', { payment, retry: 'SAME_KEY', retryAfterMs, message })
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
