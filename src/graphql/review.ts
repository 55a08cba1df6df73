import { z } from 'zod'
import type { ProblemCode } from '../payment/payment.ts'
import { closeReview, enterBankReference, rerunRecovery, REVIEW_OUTCOMES } from '../recovery/review.ts'
import type { Reviewed } from '../recovery/review.ts'
import { OPERATORS } from './audience.ts'
import { builder } from './builder.ts'
import { ReviewOutcomeEnum } from './enums.ts'
import {
  operationIdText,
  paymentIdText,
  REASON_TEXT,
  reasonText,
  STORED_TEXT,
  storedText,
  voidReference,
} from './input-rules.ts'
import { AuditLineType, PaymentType } from './nouns.ts'
import { problemTypes } from './problems.ts'
import type { ProblemAnswer } from './problems.ts'
import { typesOf } from './results.ts'

/** The mutations of the ops desk: what no rule can settle, an operator does, and says why. */

type ReviewedAnswer = Extract<Reviewed, { is: 'reviewed' }>
type ReviewAnswer = ReviewedAnswer | ProblemAnswer

const PaymentReviewed = builder.objectRef<ReviewedAnswer>('PaymentReviewed').implement({
  description: 'It was done, and is in the audit lines of the payment.',
  fields: (t) => ({
    currentPayment: t.field({
      type: PaymentType,
      description: 'The payment as it stands now.',
      resolve: ({ payment }) => payment,
    }),
    payment: t.field({
      type: PaymentType,
      nullable: true,
      deprecationReason: 'Use `currentPayment`, the same and never null.',
      description: 'The payment as it stands now. Never null in fact.',
      resolve: ({ payment }) => payment,
    }),
    auditLine: t.field({
      type: AuditLineType,
      description: 'The line that says who did it and why.',
      resolve: ({ auditLine }) => auditLine,
    }),
  }),
})

const CODES = [
  'PAYMENT_NOT_FOUND',
  'NOTHING_TO_SETTLE',
  'OPERATION_IN_FLIGHT',
  'BANK_REFERENCE_REFUSED',
  'BANK_REFERENCE_MISSING',
  'BANK_UNAVAILABLE',
  'OUTCOME_UNKNOWN',
  'INVALID_INPUT',
] as const satisfies ProblemCode[]

const ReviewResult = builder.unionType('ReviewResult', {
  description: 'The answer to the mutations of the ops desk.',
  types: [PaymentReviewed, ...typesOf(CODES)],
  resolveType: (answer: ReviewAnswer): string =>
    answer.is === 'reviewed' ? PaymentReviewed.name : problemTypes[answer.problem.code].name,
})

const PAYMENT_ID = { description: 'The payment: `pay_...`.' }
const REASON = { description: `Why, for whoever looks at it later. ${REASON_TEXT}` }
const OPERATION_ID = {
  required: false,
  description: 'Which of its operations: `op_...`. Needed only where several wait, and then said so.',
} as const
const input = { paymentId: paymentIdText, reason: reasonText }
const operationId = operationIdText.nullish().transform((id) => id ?? null)

const RerunRecoveryInput = builder
  .inputType('RerunRecoveryInput', {
    description: 'A payment to let recovery try again on.',
    fields: (t) => ({
      paymentId: t.id(PAYMENT_ID),
      operationId: t.id(OPERATION_ID),
      reason: t.string(REASON),
    }),
  })
  .validate(z.object({ ...input, operationId }))

const EnterBankReferenceInput = builder
  .inputType('EnterBankReferenceInput', {
    description: "A reference from the bank's statement.",
    fields: (t) => ({
      paymentId: t.id(PAYMENT_ID),
      bankReference: t.string({
        description: `The bank's id of an authorization (\`auth_...\`), capture (\`cap_...\`) or refund (\`ref_...\`). ${STORED_TEXT}`,
      }),
      reason: t.string(REASON),
    }),
  })
  .validate(z.object({ ...input, bankReference: storedText }))

const CloseReviewInput = builder
  .inputType('CloseReviewInput', {
    description: "A case to close by what the bank's statement shows.",
    fields: (t) => ({
      paymentId: t.id(PAYMENT_ID),
      operationId: t.id(OPERATION_ID),
      outcome: t.field({ type: ReviewOutcomeEnum, description: 'What the statement shows.' }),
      voidReference: t.string({
        required: false,
        description:
          "The bank's id of a void (`void_...`), which cannot be looked up at the bank; for an operation that releases a hold.",
      }),
      reason: t.string(REASON),
    }),
  })
  .validate(
    z.object({
      ...input,
      operationId,
      outcome: z.enum(REVIEW_OUTCOMES),
      voidReference: voidReference.nullish().transform((id) => id ?? null),
    }),
  )

builder.mutationField('rerunRecovery', (t) =>
  t.field({
    type: ReviewResult,
    authScopes: OPERATORS,
    description:
      'For operators. Asks the bank again, now, what became of an operation: one in review, one that was left, or one that failed and may have left a hold. It can only find what the bank says; nothing is guessed.',
    args: { input: t.arg({ type: RerunRecoveryInput, description: 'Which payment, and why.' }) },
    resolve: (_, { input }, { gateway, client }) =>
      answer(rerunRecovery(gateway, { ...input, actor: client })),
  }),
)

builder.mutationField('enterBankReference', (t) =>
  t.field({
    type: ReviewResult,
    authScopes: OPERATORS,
    description:
      "For operators. Enters the bank's own id of an authorization, capture or refund that the gateway lacks. It is looked up at the bank first, and believed only when amount, currency and parent are this payment's. A hold of an authorization that failed is recorded as a stray one and released.",
    args: {
      input: t.arg({ type: EnterBankReferenceInput, description: 'Which payment, which id, and why.' }),
    },
    resolve: (_, { input }, { gateway, client }) =>
      answer(enterBankReference(gateway, { ...input, actor: client })),
  }),
)

builder.mutationField('closeReview', (t) =>
  t.field({
    type: ReviewResult,
    authScopes: OPERATORS,
    description:
      "For operators. Closes a case with the outcome that the bank's statement shows. An operation that recovery still works on cannot be closed.",
    args: {
      input: t.arg({ type: CloseReviewInput, description: 'Which payment, what came of it, and why.' }),
    },
    resolve: (_, { input: { voidReference: bankReference, ...input } }, { gateway, client }) =>
      answer(closeReview(gateway, { ...input, bankReference, actor: client })),
  }),
)

async function answer(reviewed: Promise<Reviewed>): Promise<ReviewAnswer> {
  const result = await reviewed
  return result.is === 'reviewed' ? result : { ...result, replayed: false }
}
