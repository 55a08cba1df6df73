import { z } from 'zod'
import { Card } from '../payment/card.ts'
import { builder } from './builder.ts'
import {
  AMOUNT_RANGE,
  amountCents,
  card,
  cardIn,
  paymentIdText,
  STORED_TEXT,
  storedText,
  visibleText,
} from './input-rules.ts'

/**
 * The inputs of the mutations. Each is validated as a whole, nested card included, so that all its bad fields are
 * reported at once (validated one by one, Pothos tells only of the first).
 */

const CardInput = builder.inputType('CardInput', {
  description:
    'A card. Number and CVV go to the bank and nowhere else: they are neither stored nor logged, and a key or id that could hold a number is refused.',
  fields: (t) => ({
    number: t.string({ description: '13 to 19 digits; blanks and dashes between them are ignored.' }),
    cvv: t.string({ description: 'The 3 or 4 digits of the security code.' }),
    expiryMonth: t.int({ description: '1 to 12.' }),
    expiryYear: t.int({ description: 'Four digits. A card is good until the last day of its month.' }),
  }),
})

const IDEMPOTENCY_KEY = `Makes this request safe to repeat: however often it is sent, it is carried out at most once, and every repeat gets the first one's answer. Make a new one (a UUID, say) for each new intention, and keep it until there is an answer. Kept as long as the receipt; each API client has keys of its own. ${STORED_TEXT}`

const HOLDS_THIS_CARD = "must not hold the card's number. Take another id, a UUID for instance"

export const AuthorizePaymentInput = builder
  .inputType('AuthorizePaymentInput', {
    description: 'A payment to authorize.',
    fields: (t) => ({
      idempotencyKey: t.string({ description: IDEMPOTENCY_KEY }),
      orderId: t.string({ description: `FicMart's order. ${STORED_TEXT}` }),
      customerId: t.string({ description: `FicMart's customer. ${STORED_TEXT}` }),
      amountCents: t.field({ type: 'Cents', description: `What to hold: ${AMOUNT_RANGE}` }),
      card: t.field({ type: CardInput, description: 'The card to hold it on.' }),
      allowAnotherForOrder: t.boolean({
        required: false,
        defaultValue: false,
        description:
          'Authorize even if the order has a payment that is pending, authorized or captured. Without it a second checkout of one order is refused, whatever its key.',
      }),
    }),
  })
  .validate(
    z
      .object({
        idempotencyKey: visibleText,
        orderId: visibleText,
        customerId: visibleText,
        amountCents,
        card,
        allowAnotherForOrder: z
          .boolean()
          .nullish()
          .transform((allow) => allow ?? false),
      })
      // What is stored. Of this card it is known what to look for: in a UUID, among other digits, anywhere. One with a
      // fault of its own has not become a card.
      .superRefine((input, context) => {
        for (const name of ['idempotencyKey', 'orderId', 'customerId'] as const) {
          const isThisCard = input.card instanceof Card && input.card.isIn(input[name])
          const message = isThisCard ? HOLDS_THIS_CARD : cardIn(input[name])
          if (message !== null) context.addIssue({ code: 'custom', path: [name], message })
        }
      }),
  )

export const CapturePaymentInput = followUpInput('CapturePaymentInput', 'A payment to capture, in full.')
export const VoidPaymentInput = followUpInput('VoidPaymentInput', 'A payment to void.')
export const RefundPaymentInput = followUpInput('RefundPaymentInput', 'A payment to refund, in full.')

function followUpInput(name: string, description: string) {
  return builder
    .inputType(name, {
      description,
      fields: (t) => ({
        idempotencyKey: t.string({ description: IDEMPOTENCY_KEY }),
        paymentId: t.id({ description: 'The payment: `pay_...`.' }),
        expectedAmountCents: t.field({
          type: 'Cents',
          required: false,
          description: `A guard: when given, nothing is done unless the payment is over exactly this. ${AMOUNT_RANGE}`,
        }),
      }),
    })
    .validate(
      z.object({
        idempotencyKey: storedText,
        paymentId: paymentIdText,
        expectedAmountCents: amountCents.nullish().transform((cents) => cents ?? null),
      }),
    )
}
