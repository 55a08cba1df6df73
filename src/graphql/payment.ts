import { allowedOperations } from '../payment/allowed.ts'
import type { AllowedOperation } from '../payment/allowed.ts'
import type { Payment, PaymentState, Transition } from '../payment/payment.ts'
import { EVERYONE } from './audience.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { isVisible } from './customer.ts'
import { PaymentOperationEnum, PaymentStateEnum, ProblemCodeEnum } from './enums.ts'
import { loaders } from './loaders.ts'
import { MoneyType } from './money.ts'
import { AuditLineType, OperationType, PaymentType, StrayHoldType, TransitionType } from './nouns.ts'
import { ReviewType } from './review-types.ts'

PaymentType.implement({
  description: 'The receipt of one payment for an order, from the authorization on.',
  // Once for each payment that goes into an answer, by whatever road: none of somebody else's reaches a customer.
  authScopes: (payment, context) => isVisible(context, payment),
  runScopesOnType: true,
  fields: (t) => ({
    orderId: t.exposeString('orderId', { authScopes: EVERYONE, description: "FicMart's order." }),
    customerId: t.exposeString('customerId', { authScopes: EVERYONE, description: "FicMart's customer." }),
    amount: t.field({
      type: MoneyType,
      authScopes: EVERYONE,
      description: 'What is held, charged or given back; always the whole of it.',
      resolve: ({ amountCents, currency }) => ({ cents: amountCents, currency }),
    }),
    card: t.field({
      type: CardType,
      authScopes: EVERYONE,
      description: 'What is kept of the card. Its number and CVV never are.',
      resolve: (payment) => payment,
    }),
    state: t.expose('state', {
      type: PaymentStateEnum,
      authScopes: EVERYONE,
      description: 'Where it is in its life.',
    }),
    version: t.exposeInt('version', {
      authScopes: EVERYONE,
      description: 'Grows by one with each transition.',
    }),
    transitions: t.field({
      type: [TransitionType],
      description: 'Its whole history, oldest first.',
      resolve: history,
    }),
    operationInFlight: t.field({
      type: OperationType,
      nullable: true,
      description:
        'The operation that is under way, or whose outcome is not known yet. While there is one, `state` says what was before it.',
      resolve: ({ id }, _, context) => loaders(context).operationInFlight.load(id),
    }),
    allowedOperations: t.field({
      type: [AllowedOperationType],
      description:
        'What could be asked of it now, and what stands in the way. Only the answer of the mutation counts.',
      resolve: async (payment, _, context) => {
        const busy = await loaders(context).operationInFlight.load(payment.id)
        return allowedOperations(payment, busy !== null)
      },
    }),
    operations: t.field({
      type: [OperationType],
      description:
        'Everything that was asked of it, refusals included, oldest first; at most the newest hundred. With `bankCalls` it tells operators the whole story.',
      resolve: ({ id }, _, context) => loaders(context).operations.load(id),
    }),

    createdAt: t.expose('createdAt', {
      type: 'DateTime',
      authScopes: EVERYONE,
      description: 'When it was first asked for.',
    }),
    authorizedAt: t.field(momentOf('AUTHORIZED', 'When the authorization was recorded.')),
    capturedAt: t.field(momentOf('CAPTURED', 'When the capture was recorded.')),
    refundedAt: t.field(momentOf('REFUNDED', 'When the refund was recorded.')),
    voidedAt: t.field(momentOf('VOIDED', 'When the release of the hold was recorded.')),
    expiredAt: t.field(momentOf('EXPIRED', 'When the gateway had released the expired hold.')),
    declinedAt: t.field(momentOf('DECLINED', 'When the bank said no.')),
    failedAt: t.field(
      momentOf(
        'FAILED',
        'When the authorization was given up. It is never charged; for a hold that may remain see `possibleOrphanHoldSince`.',
      ),
    ),

    authorizationExpiresAt: t.expose('authorizationExpiresAt', {
      type: 'DateTime',
      authScopes: EVERYONE,
      nullable: true,
      description: 'Until when the hold can be captured, as the bank said; null when there never was one.',
    }),
    authorizationId: t.exposeString('authorizationId', {
      nullable: true,
      description: "The bank's id of the hold.",
    }),
    captureId: t.exposeString('captureId', {
      nullable: true,
      description:
        "The bank's id of the charge. A captured payment without one cannot be refunded until an operator enters it.",
    }),
    voidId: t.exposeString('voidId', { nullable: true, description: "The bank's id of the hold's release." }),
    refundId: t.exposeString('refundId', { nullable: true, description: "The bank's id of the refund." }),

    review: t.field({
      type: ReviewType,
      nullable: true,
      description: 'Set while no rule can settle something about it, so that an operator must.',
      resolve: ({ reviewReason: reason, reviewSince: since, reviewEvidence: evidence }) =>
        reason === null || since === null ? null : { reason, since, evidence: evidence ?? [] },
    }),
    possibleOrphanHoldSince: t.expose('possibleOrphanHoldSince', {
      type: 'DateTime',
      nullable: true,
      description:
        'Set when the authorization failed after an attempt that may have left a hold at the bank. Never a charge; the gateway looks for it again and releases it.',
    }),
    strayHolds: t.field({
      type: [StrayHoldType],
      description:
        'Holds at the bank that turned up after its authorization had failed, or beside it. The gateway releases them.',
      resolve: ({ id }, _, context) => loaders(context).strayHolds.load(id),
    }),
    auditLines: t.field({
      type: [AuditLineType],
      description: 'What operators did about it, oldest first.',
      resolve: ({ id }, _, context) => loaders(context).auditLines.load(id),
    }),
  }),
})

/** Never newer than the payment that it is shown with: the two are read one after the other. */
async function history({ id, version }: Payment, _: object, context: Context): Promise<Transition[]> {
  const transitions = await loaders(context).transitions.load(id)
  return transitions.filter((transition) => transition.version <= version)
}

function momentOf(state: PaymentState, description: string) {
  return {
    type: 'DateTime' as const,
    nullable: true as const,
    authScopes: EVERYONE,
    description: `${description} Null as long as that has not happened.`,
    resolve: async (payment: Payment, args: object, context: Context): Promise<Date | null> => {
      const transitions = await history(payment, args, context)
      return transitions.find(({ toState }) => toState === state)?.at ?? null
    },
  }
}

const CardType = builder.objectRef<Payment>('Card').implement({
  description: 'What is kept of a card: enough to recognise it, not to use it.',
  fields: (t) => ({
    brand: t.exposeString('cardBrand', {
      authScopes: EVERYONE,
      description: 'By its number: `visa`, `mastercard`, `american-express` and so on, or `unknown`.',
    }),
    last4: t.exposeString('cardLast4', {
      authScopes: EVERYONE,
      description: 'The last four digits of its number.',
    }),
    expiryMonth: t.exposeInt('cardExpiryMonth', { description: '1 to 12.' }),
    expiryYear: t.exposeInt('cardExpiryYear', { description: 'Four digits.' }),
  }),
})

const AllowedOperationType = builder.objectRef<AllowedOperation>('AllowedOperation').implement({
  description: 'Whether an operation could be asked of a payment now.',
  fields: (t) => ({
    operation: t.expose('operation', { type: PaymentOperationEnum, description: 'The operation.' }),
    allowed: t.boolean({
      description: 'Nothing that is known here stands in its way.',
      resolve: ({ blockedBy }) => blockedBy === null,
    }),
    blockedBy: t.expose('blockedBy', {
      type: ProblemCodeEnum,
      nullable: true,
      description: 'What it would be refused with; null when it is allowed.',
    }),
  }),
})
