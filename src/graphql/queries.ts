import { z } from 'zod'
import {
  operationByKey,
  paymentByBankReference,
  paymentByKey,
  paymentsById,
  paymentsForShipment,
  paymentsOfOrder,
} from '../payment/reads.ts'
import { shipmentCheck } from '../payment/shipment.ts'
import { EVERYONE, STAFF } from './audience.ts'
import { builder } from './builder.ts'
import { isVisible, visible } from './customer.ts'
import { ApiError } from './errors.ts'
import { AMOUNT_RANGE, amountCents, paymentIdText, VISIBLE_TEXT, visibleText } from './input-rules.ts'
import { OperationType, PaymentType } from './nouns.ts'
import {
  connectionOf,
  customerFilter,
  CustomerHistoryFilter,
  page,
  PAGE_ARGS,
  PaymentConnection,
  paymentFilter,
  PaymentFilterInput,
} from './pages.ts'
import { ShipmentCheckType } from './shipment.ts'

builder.queryType({ description: 'Reads of the receipts. None of them asks anything of the bank.' })

const PaymentBy = builder.inputType('PaymentBy', {
  isOneOf: true,
  description: 'What is known of the payment: exactly one of these. Null counts as left out.',
  fields: (t) => ({
    id: t.id({ required: false, description: "The payment's own id, `pay_...`." }),
    idempotencyKey: t.string({
      required: false,
      description: 'The key of any operation on it that you asked for, the authorization first of all.',
    }),
    bankReference: t.string({
      required: false,
      description:
        "The bank's id of its authorization, capture, void or refund: `auth_...`, `cap_...` and so on.",
    }),
  }),
})

builder.queryField('payment', (t) =>
  t.field({
    type: PaymentType,
    nullable: true,
    authScopes: EVERYONE,
    description: 'One payment; null when there is none.',
    args: t.validate(
      { by: t.arg({ type: PaymentBy, description: 'What is known of it.' }) },
      z.object({
        by: z.object({
          id: paymentIdText.nullish(),
          idempotencyKey: visibleText.nullish(),
          bankReference: visibleText.nullish(),
        }),
      }),
    ),
    resolve: async (_, { by: { id, idempotencyKey, bankReference } }, context) => {
      const { gateway, client } = context
      if (id != null) return visible(context, (await paymentsById(gateway, [id]))[0])
      if (idempotencyKey != null) return visible(context, await paymentByKey(gateway, client, idempotencyKey))
      if (bankReference != null) return visible(context, await paymentByBankReference(gateway, bankReference))
      return null
    },
  }),
)

builder.queryField('paymentsByOrder', (t) =>
  t.field({
    type: [PaymentType],
    authScopes: EVERYONE,
    description: 'All payments of an order, newest first; at most the newest hundred.',
    args: t.validate(
      { orderId: t.arg.string({ description: `FicMart's order. ${VISIBLE_TEXT}` }) },
      z.object({ orderId: visibleText }),
    ),
    resolve: async (_, { orderId }, context) =>
      (await paymentsOfOrder(context.gateway, orderId)).filter((payment) => isVisible(context, payment)),
  }),
)

builder.queryField('customerHistory', (t) =>
  t.field({
    type: PaymentConnection,
    authScopes: EVERYONE,
    description: "A customer's payments, newest first, each with its whole history in `transitions`.",
    args: t.validate(
      {
        customerId: t.arg.string({ description: `FicMart's customer. ${VISIBLE_TEXT}` }),
        first: t.arg.int(PAGE_ARGS.first),
        after: t.arg.string(PAGE_ARGS.after),
        filter: t.arg({ type: CustomerHistoryFilter, required: false, description: 'Which of them.' }),
      },
      z.object({
        customerId: visibleText,
        ...page,
        filter: customerFilter,
      }),
    ),
    resolve: (_, { customerId, filter, ...page }, context) =>
      connectionOf(context, { ...filter, customerId }, page),
  }),
)

builder.queryField('payments', (t) =>
  t.field({
    type: PaymentConnection,
    authScopes: STAFF,
    description:
      'Payments for operators: what is under review, stuck, about to expire, and so on. Newest first.',
    args: t.validate(
      {
        filter: t.arg({
          type: PaymentFilterInput,
          required: false,
          description: 'Which of them; all when left out.',
        }),
        first: t.arg.int(PAGE_ARGS.first),
        after: t.arg.string(PAGE_ARGS.after),
      },
      z.object({
        ...page,
        filter: paymentFilter,
      }),
    ),
    resolve: (_, { filter, ...page }, context) => connectionOf(context, { ...filter }, page),
  }),
)

builder.queryField('operation', (t) =>
  t.field({
    type: OperationType,
    nullable: true,
    authScopes: STAFF,
    description:
      'What became of a request, by its idempotency key; null when none was recorded under it (refused without being stored, or never received). Its `result` is what a repeat of the mutation would be answered.',
    args: t.validate(
      {
        idempotencyKey: t.arg.string({ description: 'The key of the request.' }),
        client: t.arg.string({
          required: false,
          description: 'For operators: another client whose key it is, or `gateway`. Yourself when left out.',
        }),
      },
      z.object({ idempotencyKey: visibleText, client: visibleText.nullish() }),
    ),
    resolve: (_, { idempotencyKey, client }, context) => {
      if (client != null && client !== context.client && context.role === 'service') {
        throw new ApiError('FORBIDDEN', 'Only operators may name another client.')
      }
      return operationByKey(context.gateway, client ?? context.client, idempotencyKey)
    },
  }),
)

builder.queryField('shipmentCheck', (t) =>
  t.field({
    type: ShipmentCheckType,
    authScopes: STAFF,
    description: 'Whether the goods of an order may leave.',
    args: t.validate(
      {
        orderId: t.arg.string({ description: `FicMart's order. ${VISIBLE_TEXT}` }),
        amountCents: t.arg({ type: 'Cents', description: `What the goods cost: ${AMOUNT_RANGE}` }),
      },
      z.object({ orderId: visibleText, amountCents }),
    ),
    resolve: async (_, { orderId, amountCents }, { gateway }) =>
      shipmentCheck(await paymentsForShipment(gateway, orderId), amountCents),
  }),
)
