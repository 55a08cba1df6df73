import type { Request } from '../operation/result.ts'
import { perform } from '../operation/run.ts'
import { CHECKOUT, SERVICE } from './audience.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { notInToken } from './customer.ts'
import { AuthorizePaymentInput, CapturePaymentInput, RefundPaymentInput, VoidPaymentInput } from './inputs.ts'
import { invalidInput } from './invalid-input.ts'
import {
  AuthorizePaymentResult,
  CapturePaymentResult,
  RefundPaymentResult,
  VoidPaymentResult,
} from './results.ts'

builder.mutationType({
  description:
    'The four things that can be done with money. Each may be repeated with the same idempotency key without being done twice. Problems are members of the result; a top-level error is a malformed request or a fault.',
})

builder.mutationField('authorizePayment', (t) =>
  t.field({
    type: AuthorizePaymentResult,
    authScopes: CHECKOUT,
    description:
      "Holds an amount on a card for an order. Charge it by `capturePayment`, or let it go by `voidPayment`. A customer's token allows it for the order, the amount and the customer that it names, and no other.",
    args: { input: t.arg({ type: AuthorizePaymentInput, description: 'What to hold, and on which card.' }) },
    resolve: async (_, { input: { idempotencyKey, card, ...about } }, context) => {
      const { gateway, client } = context
      const problems = notInToken(context, about)
      if (problems.length > 0) return invalidInput(problems)
      const input = {
        ...about,
        cardBrand: card.brand,
        cardLast4: card.last4,
        cardExpiryMonth: card.expiryMonth,
        cardExpiryYear: card.expiryYear,
      }
      return await perform(gateway, { client, idempotencyKey, kind: 'AUTHORIZE', input, card })
    },
  }),
)

builder.mutationField('capturePayment', (t) =>
  t.field({
    type: CapturePaymentResult,
    authScopes: SERVICE,
    description: 'Charges the whole of an authorized payment: when the goods leave.',
    args: { input: t.arg({ type: CapturePaymentInput, description: 'What to capture.' }) },
    resolve: (_, { input }, context) => followUp('CAPTURE', input, context),
  }),
)

builder.mutationField('voidPayment', (t) =>
  t.field({
    type: VoidPaymentResult,
    authScopes: SERVICE,
    description:
      'Releases the hold of an authorized payment: when the order is cancelled before it was charged.',
    args: { input: t.arg({ type: VoidPaymentInput, description: 'What to void.' }) },
    resolve: (_, { input }, context) => followUp('VOID', input, context),
  }),
)

builder.mutationField('refundPayment', (t) =>
  t.field({
    type: RefundPaymentResult,
    authScopes: SERVICE,
    description: 'Gives the whole of a captured payment back.',
    args: { input: t.arg({ type: RefundPaymentInput, description: 'What to refund.' }) },
    resolve: (_, { input }, context) => followUp('REFUND', input, context),
  }),
)

async function followUp(
  kind: 'CAPTURE' | 'VOID' | 'REFUND',
  {
    idempotencyKey,
    ...input
  }: { idempotencyKey: string; paymentId: string; expectedAmountCents: number | null },
  { gateway, client }: Context,
) {
  const request: Request = { client, idempotencyKey, kind, input, card: null }
  return await perform(gateway, request)
}
