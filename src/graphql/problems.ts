import type { Problem } from '../operation/problems.ts'
import { operationsAllowedIn } from '../payment/payment.ts'
import type { Payment, PaymentState, ProblemCode } from '../payment/payment.ts'
import { EVERYONE } from './audience.ts'
import { builder } from './builder.ts'
import { visible } from './customer.ts'
import { PaymentOperationEnum, PaymentStateEnum, ProblemCodeEnum, RetryEnum } from './enums.ts'
import type { FieldProblem } from './errors.ts'
import { MoneyType } from './money.ts'
import { PaymentType } from './nouns.ts'

/**
 * The refusals of the API as types: a client can treat all of them alike by the interface, or each by its own fields.
 * `fields` is there for INVALID_INPUT only.
 */
export type ProblemAnswer = { is: 'problem'; problem: Problem; replayed: boolean; fields?: FieldProblem[] }

const PaymentProblem = builder.interfaceRef<ProblemAnswer>('PaymentProblem').implement({
  description:
    'Why a request was not carried out. `code` says what happened, `retry` what to do about it; PaymentOutcomeUnknown alone means that it perhaps was carried out.',
  resolveType: ({ problem }): string => problemTypes[problem.code].name,
  fields: (t) => ({
    code: t.field({
      type: ProblemCodeEnum,
      authScopes: EVERYONE,
      description: 'What happened, for programs.',
      resolve: ({ problem }) => problem.code,
    }),
    message: t.string({
      authScopes: EVERYONE,
      description: 'What happened and what to do, for people. Its wording may change.',
      resolve: ({ problem }) => problem.message,
    }),
    retry: t.field({
      type: RetryEnum,
      authScopes: EVERYONE,
      description: 'What to do next.',
      resolve: ({ problem }) => problem.retry,
    }),
    retryAfterMs: t.int({
      nullable: true,
      authScopes: EVERYONE,
      description:
        'When it makes sense to try again, in milliseconds from now; null when that is yours to say.',
      resolve: ({ problem }) => problem.retryAfterMs,
    }),
    payment: t.field({
      type: PaymentType,
      nullable: true,
      authScopes: EVERYONE,
      description:
        "The payment that it concerns, as it stands now; null when there is none, or it is none of a customer's own.",
      resolve: ({ problem }, _, context) => visible(context, problem.payment),
    }),
    replayed: t.exposeBoolean('replayed', {
      authScopes: EVERYONE,
      description: 'This very request was answered before, and this is that answer.',
    }),
  }),
})

const IdempotencyKeyReused = problemType('IdempotencyKeyReused').implement({
  interfaces: [PaymentProblem],
  description: 'The idempotency key was used before for another request. Nothing was done.',
  fields: (t) => ({
    field: t.string({
      authScopes: EVERYONE,
      description: "The input field that differs from the first request's, for instance `amountCents`.",
      resolve: ({ problem }) => problem.detail.field ?? 'input',
    }),
  }),
})

const OperationInFlight = problemType('OperationInFlight').implement({
  interfaces: [PaymentProblem],
  description:
    'Another operation on this payment (or order) is under way. Nothing was done, and nothing will be later.',
})

const PaymentNotFound = problemType('PaymentNotFound').implement({
  interfaces: [PaymentProblem],
  description: 'There is no payment with this id.',
})

const InvalidTransition = problemType('InvalidTransition').implement({
  interfaces: [PaymentProblem],
  description: 'The payment was not in the state that this operation starts from. Nothing was done.',
  fields: (t) => ({
    from: t.field({
      type: PaymentStateEnum,
      description: 'The state that it was in when this was asked first.',
      resolve: ({ problem }) => moveOf(problem).from,
    }),
    to: t.field({
      type: PaymentStateEnum,
      description: 'Where the operation would have taken it.',
      resolve: ({ problem }) => moveOf(problem).to,
    }),
    allowed: t.field({
      type: [PaymentOperationEnum],
      description: 'The operations that start from that state.',
      resolve: ({ problem }) => operationsAllowedIn(moveOf(problem).from),
    }),
  }),
})

const AuthorizationExpired = problemType('AuthorizationExpired').implement({
  interfaces: [PaymentProblem],
  description: 'The hold has run out and cannot be captured any more. The customer has to pay anew.',
})

const AmountMismatch = problemType('AmountMismatch').implement({
  interfaces: [PaymentProblem],
  description: 'The payment is not over the expected amount. Nothing was done.',
  fields: (t) => ({
    expected: t.field({
      type: MoneyType,
      description: 'What the request expected.',
      resolve: ({ problem }) => money(problem, problem.detail.expectedAmountCents),
    }),
    actual: t.field({
      type: MoneyType,
      description: 'What the payment is over.',
      resolve: ({ problem }) => money(problem, problem.detail.actualAmountCents),
    }),
  }),
})

const OrderAlreadyHasPayment = problemType('OrderAlreadyHasPayment').implement({
  interfaces: [PaymentProblem],
  description:
    'The order has a payment that is pending, authorized or captured: `payment`. Nothing was charged for this request. `allowAnotherForOrder` permits a second one.',
})

const PaymentDeclined = problemType('PaymentDeclined').implement({
  interfaces: [PaymentProblem],
  description:
    'The card was refused: CARD_INVALID, CVV_INVALID, CARD_EXPIRED or INSUFFICIENT_FUNDS. Nothing is held or charged.',
})

const BankUnavailable = problemType('BankUnavailable').implement({
  interfaces: [PaymentProblem],
  description:
    'Not carried out, and never charged: the bank could not be reached, did not do it, or has no record of it. `retry` says whether the key is still free.',
})

const PaymentOutcomeUnknown = problemType('PaymentOutcomeUnknown').implement({
  interfaces: [PaymentProblem],
  description:
    'Perhaps carried out: the bank has not said yet. NEVER to be read as failed. The gateway keeps asking; repeat the request with the same key, or look at the payment or the operation, to learn the outcome.',
})

const BankReferenceMissing = problemType('BankReferenceMissing').implement({
  interfaces: [PaymentProblem],
  description:
    "The bank's own reference that this needs (a capture id for a refund) is missing or unknown to the bank. An operator must see to it.",
})

const BankReferenceRefused = problemType('BankReferenceRefused').implement({
  interfaces: [PaymentProblem],
  description:
    'The reference was not entered: the bank does not know it, or it belongs to something else. Nothing was changed.',
})

const NothingToSettle = problemType('NothingToSettle').implement({
  interfaces: [PaymentProblem],
  description: 'Nothing about this payment waits for that. Nothing was changed.',
})

const WebhookNotFound = problemType('WebhookNotFound').implement({
  interfaces: [PaymentProblem],
  description: 'There is no webhook with this id. Nothing was changed.',
})

const FieldProblemType = builder.objectRef<FieldProblem>('FieldProblem').implement({
  description: 'One field of an input that is not valid.',
  authScopes: EVERYONE,
  fields: (t) => ({
    path: t.exposeString('path', { description: 'Where, for instance `input.card.number`.' }),
    reason: t.exposeString('reason', { description: 'Why, for people. It never repeats the value.' }),
  }),
})

const InvalidInput = problemType('InvalidInput').implement({
  interfaces: [PaymentProblem],
  description: 'The input is not valid. Nothing was stored or sent, and the key is still free.',
  fields: (t) => ({
    fields: t.field({
      type: [FieldProblemType],
      authScopes: EVERYONE,
      description: 'Every field that is not valid.',
      resolve: ({ fields }) => fields ?? [],
    }),
  }),
})

/** A code without a type does not compile. */
export const problemTypes: Record<ProblemCode, ProblemType> = {
  IDEMPOTENCY_KEY_REUSED: IdempotencyKeyReused,
  OPERATION_IN_FLIGHT: OperationInFlight,
  PAYMENT_NOT_FOUND: PaymentNotFound,
  INVALID_TRANSITION: InvalidTransition,
  AUTHORIZATION_EXPIRED: AuthorizationExpired,
  AMOUNT_MISMATCH: AmountMismatch,
  ORDER_ALREADY_HAS_PAYMENT: OrderAlreadyHasPayment,
  CARD_INVALID: PaymentDeclined,
  CVV_INVALID: PaymentDeclined,
  CARD_EXPIRED: PaymentDeclined,
  INSUFFICIENT_FUNDS: PaymentDeclined,
  BANK_UNAVAILABLE: BankUnavailable,
  OUTCOME_UNKNOWN: PaymentOutcomeUnknown,
  BANK_REFERENCE_MISSING: BankReferenceMissing,
  BANK_REFERENCE_REFUSED: BankReferenceRefused,
  NOTHING_TO_SETTLE: NothingToSettle,
  WEBHOOK_NOT_FOUND: WebhookNotFound,
  INVALID_INPUT: InvalidInput,
}

type ProblemType = ReturnType<ReturnType<typeof problemType>['implement']>

function problemType(name: string) {
  return builder.objectRef<ProblemAnswer>(name)
}

/** The claim that refuses a transition always says which. */
function moveOf({ detail, code }: Problem): { from: PaymentState; to: PaymentState } {
  const { from, to } = detail
  if (from === undefined || to === undefined) throw new Error(`${code} without its states`)
  return { from, to }
}

function money({ payment, code }: Problem, cents: Payment['amountCents'] | undefined) {
  if (cents === undefined) throw new Error(`${code} without its amounts`)
  return { cents, currency: payment?.currency ?? 'USD' }
}
