import type { Confirmer, ShipmentReason, ShipmentVerdict, shipmentCheck } from '../payment/shipment.ts'
import { builder } from './builder.ts'
import { describedEnum } from './described-enum.ts'
import { PaymentType } from './nouns.ts'

const EXPLANATIONS: Record<ShipmentReason, string> = {
  CAPTURED: 'The amount is charged.',
  AUTHORIZED: 'The amount is held. Capture it before the hold expires.',
  OPERATION_IN_FLIGHT:
    'An operation on the payment is under way, or its outcome is not known yet. Ask again soon.',
  UNDER_REVIEW:
    'An operator must look at the payment first: what the bank has may differ from what is recorded.',
  CAPTURE_UNCONFIRMED:
    "The bank has used the hold, and has lost its answer: it is not certain that our capture did it. An operator enters the capture's reference.",
  DISCREPANCY:
    'A reconciliation found that the bank has this payment otherwise. An operator must look at it (`reconciliations`).',
  PENDING: 'The bank has not answered the authorization yet. Ask again soon.',
  AMOUNT_DIFFERS: 'The payment is not over this amount. Several payments are never summed.',
  AUTHORIZATION_EXPIRED: 'The hold has run out. The customer has to pay anew.',
  REFUNDED: 'The charge was given back.',
  VOIDED: 'The hold was released.',
  DECLINED: 'The bank refused the card.',
  FAILED: 'The authorization failed: it is never charged.',
  NO_PAYMENT: 'The order has no payment.',
}

const ShipmentReasonEnum = describedEnum<ShipmentReason>(
  'ShipmentReason',
  'Why the goods may leave (CAPTURED, AUTHORIZED) or may not (the rest).',
  EXPLANATIONS,
)

const ConfirmerEnum = describedEnum<Confirmer>(
  'Confirmer',
  'Who has said that the money is held or charged.',
  {
    BANK: 'The bank, by its own id.',
    OPERATOR: "An operator, by the bank's statement.",
  },
)

const ShipmentPaymentType = builder.objectRef<ShipmentVerdict>('ShipmentPayment').implement({
  description: 'Whether one payment of the order lets its goods leave.',
  fields: (t) => ({
    payment: t.field({
      type: PaymentType,
      description: 'The payment.',
      resolve: ({ about }) => about.payment,
    }),
    mayShip: t.exposeBoolean('mayShip', { description: 'It does.' }),
    reason: t.expose('reason', { type: ShipmentReasonEnum, description: 'Why, or why not.' }),
    confirmedBy: t.expose('confirmedBy', {
      type: ConfirmerEnum,
      nullable: true,
      description:
        'Who has said that the amount is held or charged; null when it is not, or nobody has said so.',
    }),
    holdExpiresAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Until when its hold can be captured; null when nothing is held.',
      resolve: ({ about }) => holdExpiryOf(about.payment),
    }),
  }),
})

export const ShipmentCheckType = builder
  .objectRef<ReturnType<typeof shipmentCheck>>('ShipmentCheck')
  .implement({
    description:
      'Whether the goods of an order may leave: yes if one payment of exactly that amount is captured, or is authorized, unexpired and has nothing under way; and if no reconciliation has found otherwise.',
    fields: (t) => ({
      mayShip: t.boolean({
        description: 'The goods may leave.',
        resolve: ({ best }) => best?.mayShip ?? false,
      }),
      reason: t.field({
        type: ShipmentReasonEnum,
        description: 'Why, or why not: of the payment that is nearest to a yes.',
        resolve: ({ best }) => best?.reason ?? 'NO_PAYMENT',
      }),
      explanation: t.string({
        description: 'The reason for people. Its wording may change.',
        resolve: ({ best }) => EXPLANATIONS[best?.reason ?? 'NO_PAYMENT'],
      }),
      confirmedBy: t.field({
        type: ConfirmerEnum,
        nullable: true,
        description: 'When they may leave: who has said that the amount is held or charged.',
        resolve: ({ best }) => (best?.mayShip === true ? best.confirmedBy : null),
      }),
      holdExpiresAt: t.field({
        type: 'DateTime',
        nullable: true,
        description: 'When they may leave on a hold: until when it can be captured.',
        resolve: ({ best }) => (best?.reason === 'AUTHORIZED' ? holdExpiryOf(best.about.payment) : null),
      }),
      payments: t.field({
        type: [ShipmentPaymentType],
        description:
          'Each payment of the order by itself, those that hold money first; never summed. At most a hundred.',
        resolve: ({ verdicts }) => verdicts,
      }),
    }),
  })

function holdExpiryOf(payment: ShipmentVerdict['about']['payment']): Date | null {
  return payment.state === 'AUTHORIZED' ? payment.authorizationExpiresAt : null
}
