import type { WebhookStatus } from '../events/deliveries.ts'
import type { Retry } from '../operation/problems.ts'
import type {
  AuditAction,
  BankCallPurpose,
  ClientOperation,
  Operation,
  OperationKind,
  PaymentState,
  ProblemCode,
} from '../payment/payment.ts'
import type { DiscrepancyKind } from '../recovery/reconcile/discrepancy.ts'
import type { Reconciliation } from '../recovery/reconcile/runs.ts'
import type { ReviewOutcome } from '../recovery/review.ts'
import { describedEnum } from './described-enum.ts'

export const PaymentStateEnum = describedEnum<PaymentState>(
  'PaymentState',
  'Where a payment is in its life. An operation with an unknown outcome changes nothing here: see `operationInFlight`.',
  {
    PENDING: 'The bank has been or is about to be asked for an authorization; there is no answer yet.',
    AUTHORIZED:
      'The bank holds the amount on the card until `authorizationExpiresAt`. Nothing is charged yet.',
    CAPTURED: 'The customer is charged.',
    REFUNDED: 'The charge was given back in full. Final.',
    VOIDED: 'The hold was released; nothing was charged. Final.',
    EXPIRED: 'The hold ran out and was released; nothing was charged. Final.',
    DECLINED: 'The bank said no; nothing is held. Final.',
    FAILED:
      'The authorization was given up, and is never charged. A hold that may remain (`possibleOrphanHoldSince`) is released when it is found: VOIDED. Pay again under a new key.',
  },
)

export const OperationKindEnum = describedEnum<OperationKind>(
  'OperationKind',
  "What an operation does. The first four are asked for by clients, the last two are the gateway's own.",
  {
    AUTHORIZE: 'Hold the amount on the card.',
    CAPTURE: 'Charge the held amount.',
    VOID: 'Release the hold.',
    REFUND: 'Give a charge back.',
    EXPIRE: 'The gateway releases a hold that ran out: the bank never does so by itself.',
    RELEASE: 'The gateway releases a hold that no payment wants: its authorization turned up late.',
  },
)

export const PaymentOperationEnum = describedEnum<ClientOperation>(
  'PaymentOperation',
  'What a client can ask for.',
  {
    AUTHORIZE: '`authorizePayment`: hold the amount on the card.',
    CAPTURE: '`capturePayment`: charge the held amount.',
    VOID: '`voidPayment`: release the hold.',
    REFUND: '`refundPayment`: give the charge back.',
  },
)

export const OperationStatusEnum = describedEnum<Operation['status']>(
  'OperationStatus',
  'Whether an operation has its final answer.',
  {
    UNRESOLVED: 'Under way, or its outcome at the bank is not known yet. Never to be read as failed.',
    SUCCEEDED: 'Carried out at the bank and recorded.',
    REFUSED: 'Not carried out, and never will be under this key; `code` says why.',
  },
)

export const BankCallPurposeEnum = describedEnum<BankCallPurpose>(
  'BankCallPurpose',
  'Why the bank was called.',
  {
    SEND: 'To have something done: the only kind that can move money.',
    PROBE: 'To ask, by key and with an empty body, what became of an earlier send.',
    HEALTH: 'To hear whether the bank is well, before its answer is believed.',
    LOOKUP: 'To read an authorization, capture or refund by its id.',
  },
)

export const RetryEnum = describedEnum<Retry>('Retry', 'What a client should do after a problem.', {
  SAME_KEY: 'Repeat this very request with the same idempotency key.',
  NEW_KEY: 'It was not carried out and never will be under this key. Ask again under a new one.',
  WAIT: 'Wait for what is under way to end, then ask again if it still applies. The key is still free.',
  DO_NOT_RETRY: 'Repeating it gives the same answer.',
})

export const AuditActionEnum = describedEnum<AuditAction>(
  'AuditAction',
  'What an operator, or the gateway itself, did about the review of a payment.',
  {
    RERUN_RECOVERY: 'Let recovery try again at once.',
    ENTER_BANK_REFERENCE: "Entered the bank's own id, which the bank confirmed.",
    CLOSE_REVIEW: "Ended a case by the outcome that the bank's statement shows.",
    RESEND_WEBHOOK: 'Had a webhook sent again.',
    END_REVIEW: 'By the gateway itself: a fact from the bank has refuted what was in doubt.',
  },
)

export const ReviewOutcomeEnum = describedEnum<ReviewOutcome>(
  'ReviewOutcome',
  "What the bank's statement shows of a payment under review.",
  {
    CARRIED_OUT: 'The unresolved operation was carried out. An authorization needs its reference instead.',
    NOT_CARRIED_OUT:
      'The unresolved operation was not carried out; or, where none is unresolved, the authorization that failed has left no hold.',
    NO_CHANGE:
      'Nothing is unresolved: what was found has been dealt with. Refused while the bank says that it does not know what the payment counts on.',
    LOST_AT_BANK:
      'The bank has lost the hold of an authorized payment, or released it: the payment ends as EXPIRED, and the order may be paid anew.',
  },
)

export const ProblemCodeEnum = describedEnum<ProblemCode>(
  'ProblemCode',
  'Why a request was not carried out, or, for OUTCOME_UNKNOWN, why that cannot be said yet.',
  {
    IDEMPOTENCY_KEY_REUSED: 'The key was used before for another request.',
    OPERATION_IN_FLIGHT: 'Another operation on this payment is under way.',
    PAYMENT_NOT_FOUND: 'There is no payment with this id.',
    INVALID_TRANSITION: 'The payment is not in the state that this operation starts from.',
    AUTHORIZATION_EXPIRED: 'The hold has run out and cannot be captured any more.',
    AMOUNT_MISMATCH: 'The payment is not over the expected amount.',
    ORDER_ALREADY_HAS_PAYMENT: 'The order has a payment that is pending, authorized or captured.',
    CARD_INVALID: 'The bank does not accept the card.',
    CVV_INVALID: 'The CVV does not belong to the card.',
    CARD_EXPIRED: 'The card has expired.',
    INSUFFICIENT_FUNDS: 'The card does not cover the amount.',
    BANK_UNAVAILABLE:
      'Not carried out, and never charged: the bank could not be reached, did not do it, or has no record of it.',
    OUTCOME_UNKNOWN: 'Perhaps carried out. Never to be read as failed.',
    BANK_REFERENCE_MISSING:
      "The bank's own reference that the operation needs is missing or unknown to the bank.",
    BANK_REFERENCE_REFUSED: 'For operators: the bank does not confirm the reference that was entered.',
    NOTHING_TO_SETTLE: 'For operators: nothing about the payment waits for that.',
    WEBHOOK_NOT_FOUND: 'For operators: there is no webhook with this id.',
    INVALID_INPUT: 'The input is not valid; nothing was stored or sent.',
  },
)

export const WebhookStatusEnum = describedEnum<WebhookStatus>(
  'WebhookStatus',
  "Whether FicMart's back end has taken a webhook.",
  {
    PENDING: 'Not sent yet, or to be sent again because an operator wants it.',
    FAILING: 'Sent in vain so far; it is sent again, for three days.',
    DELIVERED: 'The receiver has answered 2xx.',
    GIVEN_UP: 'Sent in vain for three days. An operator can have it sent again.',
  },
)

export const ReconciliationKindEnum = describedEnum<Reconciliation['kind']>(
  'ReconciliationKind',
  'How receipts and bank are compared.',
  {
    GET: 'The bank is asked for each id that a receipt has: existence, amount, currency, parent.',
    STATEMENT:
      "The bank's own ledger, exported as a file, is compared both ways: it also shows what no receipt knows of.",
  },
)

export const ReconciliationStatusEnum = describedEnum<'UNDER_WAY' | 'STOPPED' | 'FINISHED'>(
  'ReconciliationStatus',
  'Whether a reconciliation has ended.',
  {
    UNDER_WAY: 'A process works on it, or will in a moment.',
    STOPPED: 'Ended before its end: `note` says why. It can be taken up again where it was.',
    FINISHED: 'Everything was compared.',
  },
)

export const DiscrepancyKindEnum = describedEnum<DiscrepancyKind>(
  'DiscrepancyKind',
  'What receipts and bank do not agree about.',
  {
    ORPHAN_HOLD: 'The bank holds an amount that no receipt and no stray hold knows of. It is no charge.',
    NOT_IN_RECEIPTS: 'The bank has a transaction that belongs to no receipt.',
    NOT_AT_BANK: 'A receipt has an id that the bank does not know, or that its statement lacks.',
    STATE_DIFFERS:
      'The bank is further than the receipt: it has captured, voided or refunded what is not recorded so.',
    ID_MISSING: 'Both sides agree that it was done; the receipt only lacks the id.',
    ID_DIFFERS: 'The receipt has another id for the same thing: it was perhaps done twice.',
    AMOUNT_DIFFERS: 'The amounts differ.',
    CURRENCY_DIFFERS: 'The currencies differ.',
    PARENT_DIFFERS: 'At the bank it belongs to another authorization or capture.',
    UNCLEAR_ANSWER: 'A bank that is well answers about it in a way that cannot be understood.',
    DUPLICATE_LINE: 'The statement has the same id more than once.',
  },
)
