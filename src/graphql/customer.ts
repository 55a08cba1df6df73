import type { Payment } from '../payment/payment.ts'
import type { Context } from './context.ts'
import type { FieldProblem } from './errors.ts'

/** What a customer may see and do: their own payments, and the one checkout that their token was signed for. */

export function isVisible({ customer }: Context, payment: Payment): boolean {
  return customer === null || payment.customerId === customer.id
}

/** A payment of somebody else is answered as one that does not exist. */
export function visible(context: Context, payment: Payment | null | undefined): Payment | null {
  return payment && isVisible(context, payment) ? payment : null
}

/** Where an authorize differs from the customer's token: or one could pay a cent for an order and have it shipped. */
export function notInToken(
  { customer }: Context,
  input: { customerId: string; orderId: string; amountCents: number; allowAnotherForOrder: boolean },
): FieldProblem[] {
  if (customer === null) return []
  const { customerId, orderId, amountCents, allowAnotherForOrder } = input
  const rules: [string, boolean, string][] = [
    ['customerId', customerId === customer.id, "must be the token's customer, its claim sub"],
    ['orderId', orderId === customer.orderId, "must be the token's order, its claim order_id"],
    [
      'amountCents',
      amountCents === customer.amountCents,
      "must be the token's amount, its claim amount_cents",
    ],
    ['allowAnotherForOrder', !allowAnotherForOrder, 'is not for customers to say'],
  ]
  return rules.filter(([, holds]) => !holds).map(([name, , reason]) => ({ path: `input.${name}`, reason }))
}
