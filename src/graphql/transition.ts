import { OperationKindEnum, PaymentStateEnum } from './enums.ts'
import { loaders } from './loaders.ts'
import { OperationType, TransitionType, WebhookDeliveryType } from './nouns.ts'

TransitionType.implement({
  description: "One line of a payment's history. Written once, never changed.",
  fields: (t) => ({
    version: t.exposeInt('version', {
      description: "The payment's version from then on: 1, 2, 3 and so on.",
    }),
    fromState: t.expose('fromState', {
      type: PaymentStateEnum,
      nullable: true,
      description: 'The state before; null for the first line.',
    }),
    toState: t.expose('toState', { type: PaymentStateEnum, description: 'The state from then on.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When it was recorded here.' }),
    bankAt: t.expose('bankAt', {
      type: 'DateTime',
      nullable: true,
      description:
        "When it happened at the bank, by the bank's clock; null when the bank had no part or gave no time.",
    }),
    cause: t.expose('cause', {
      type: OperationKindEnum,
      description: 'The kind of operation that caused it.',
    }),
    actor: t.exposeString('actor', {
      description: 'Who asked for it: the name of an API client, or `gateway` for the gateway itself.',
    }),
    delivery: t.field({
      type: WebhookDeliveryType,
      nullable: true,
      description:
        'For operators: the webhook that tells of it; null when webhooks were off when it was made.',
      resolve: async ({ paymentId, version }, _, context) => {
        const deliveries = await loaders(context).deliveries.load(paymentId)
        return deliveries.find((delivery) => delivery.version === version)
      },
    }),
    operation: t.field({
      type: OperationType,
      nullable: true,
      description: 'The operation that caused it.',
      resolve: ({ operationId }, _, context) => loaders(context).operation.load(operationId),
    }),
  }),
})
