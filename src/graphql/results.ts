import type { Result } from '../operation/result.ts'
import { CLIENT_OPERATIONS, PROBLEM_CODES } from '../payment/payment.ts'
import type { ClientOperation, ProblemCode } from '../payment/payment.ts'
import { EVERYONE } from './audience.ts'
import { builder } from './builder.ts'
import { PaymentType, TransitionType } from './nouns.ts'
import { problemTypes } from './problems.ts'
import type { ProblemAnswer } from './problems.ts'

/** The answers to the four mutations: a success, or one of the problems that this operation can meet. */

type SuccessAnswer = Extract<Result, { is: 'success' }>
/** What `perform` answers, or the refusal of an input that never got there. */
export type Answer = SuccessAnswer | ProblemAnswer

const PaymentSuccess = builder.interfaceRef<SuccessAnswer>('PaymentSuccess').implement({
  description: 'The operation was carried out at the bank and recorded.',
  resolveType: ({ kind }): string => successType(kind).name,
  fields: (t) => ({
    // A problem's `payment` may be null, and one document cannot have both under one name: so not `payment`.
    currentPayment: t.field({
      type: PaymentType,
      authScopes: EVERYONE,
      description: 'The payment as it stands now, which may be further on than this operation took it.',
      resolve: ({ payment }) => payment,
    }),
    payment: t.field({
      type: PaymentType,
      nullable: true,
      authScopes: EVERYONE,
      deprecationReason: 'Use `currentPayment`, the same and never null.',
      description: 'The payment as it stands now. Never null in fact.',
      resolve: ({ payment }) => payment,
    }),
    transition: t.field({
      type: TransitionType,
      description: 'What this operation did: the same line each time it is asked for.',
      resolve: ({ transition, kind }) => {
        if (transition === null) throw new Error(`${kind} succeeded without a transition`)
        return transition
      },
    }),
    replayed: t.exposeBoolean('replayed', {
      authScopes: EVERYONE,
      description:
        'This very request was carried out before, and this is its answer. Nothing was done again.',
    }),
  }),
})

const successTypes = {
  AUTHORIZE: successOf('AuthorizePayment', 'The amount is held on the card.'),
  CAPTURE: successOf('CapturePayment', 'The customer is charged.'),
  VOID: successOf('VoidPayment', 'The hold is released; nothing was charged.'),
  REFUND: successOf('RefundPayment', 'The charge is given back in full.'),
} satisfies Record<ClientOperation, unknown>

function successOf(mutation: string, description: string) {
  return builder
    .objectRef<SuccessAnswer>(`${mutation}Success`)
    .implement({ description, interfaces: [PaymentSuccess] })
}

function successType(kind: SuccessAnswer['kind']) {
  if (kind === 'EXPIRE' || kind === 'RELEASE') throw new Error(`${kind} has no mutation to answer`)
  return successTypes[kind]
}

/** What any operation can meet; then what each can besides. */
const ALWAYS = [
  'IDEMPOTENCY_KEY_REUSED',
  'OPERATION_IN_FLIGHT',
  'BANK_UNAVAILABLE',
  'OUTCOME_UNKNOWN',
  'INVALID_INPUT',
] as const satisfies ProblemCode[]
const FOLLOW_UP = [
  ...ALWAYS,
  'PAYMENT_NOT_FOUND',
  'INVALID_TRANSITION',
  'AMOUNT_MISMATCH',
  'BANK_REFERENCE_MISSING',
] as const satisfies ProblemCode[]

/** These answer no operation. */
const FOR_OPERATORS: ReadonlySet<ProblemCode> = new Set([
  'BANK_REFERENCE_REFUSED',
  'NOTHING_TO_SETTLE',
  'WEBHOOK_NOT_FOUND',
])

export const AuthorizePaymentResult = resultOf('AuthorizePayment', 'AUTHORIZE', [
  ...ALWAYS,
  'ORDER_ALREADY_HAS_PAYMENT',
  'CARD_INVALID',
  'CVV_INVALID',
  'CARD_EXPIRED',
  'INSUFFICIENT_FUNDS',
])
export const CapturePaymentResult = resultOf('CapturePayment', 'CAPTURE', [
  ...FOLLOW_UP,
  'AUTHORIZATION_EXPIRED',
])
export const VoidPaymentResult = resultOf('VoidPayment', 'VOID', FOLLOW_UP)
export const RefundPaymentResult = resultOf('RefundPayment', 'REFUND', FOLLOW_UP)

export const OperationResult = builder.unionType('OperationResult', {
  description: 'The answer to whichever mutation asked for the operation.',
  types: [
    ...CLIENT_OPERATIONS.map((kind) => successTypes[kind]),
    ...typesOf(PROBLEM_CODES.filter((code) => !FOR_OPERATORS.has(code))),
  ],
  resolveType: typeOf,
})

function resultOf(mutation: string, kind: ClientOperation, codes: readonly ProblemCode[]) {
  const field = mutation.replace(/^./, (letter) => letter.toLowerCase())
  return builder.unionType(`${mutation}Result`, {
    description: `The answer to \`${field}\`: done, or one of the problems (all of them are PaymentProblems). PaymentOutcomeUnknown alone is no refusal: it may have been done.`,
    types: [successTypes[kind], ...typesOf(codes)],
    resolveType: typeOf,
  })
}

export function typesOf(codes: readonly ProblemCode[]) {
  return [...new Set(codes.map((code) => problemTypes[code]))]
}

function typeOf(answer: Answer): string {
  return answer.is === 'success' ? successType(answer.kind).name : problemTypes[answer.problem.code].name
}
