import { uuidv7 as timeOrderedId } from 'uuidv7'
import type { Request } from '../../src/operation/result.ts'
import { Card } from '../../src/payment/card.ts'
import { CARDS } from './bank.ts'
import type { Wish } from './deeds.ts'
import type { Told } from './play.ts'

const NO_PAYMENT = timeOrderedId()

/** What a wish asks for, as the clients know by then; null when there is nothing yet that it could be about. */
export function requestOf(wish: Wish, told: readonly Told[]): Request | null {
  const asked = told.map(({ request }) => request).toReversed()
  if (wish.what === 'REPEAT') return asked[wish.back] ?? null
  const earlier = wish.key === 'new' ? undefined : asked[wish.key]?.idempotencyKey
  const common = { client: 'ficmart', idempotencyKey: earlier ?? `key-${asked.length}` }
  if (wish.what === 'AUTHORIZE') {
    const card = new Card({ ...CARDS[wish.card], brand: 'visa', expiryMonth: 12, expiryYear: 2030 })
    const input = {
      orderId: `order-${wish.order}`,
      customerId: 'customer',
      amountCents: wish.cents,
      allowAnotherForOrder: wish.another,
      cardBrand: card.brand,
      cardLast4: card.last4,
      cardExpiryMonth: card.expiryMonth,
      cardExpiryYear: card.expiryYear,
    }
    return { ...common, kind: 'AUTHORIZE', input, card }
  }
  const paymentId = knownPayments(told)[wish.payment] ?? (wish.payment > 1 ? NO_PAYMENT : null)
  if (paymentId === null) return null
  return {
    ...common,
    kind: wish.what,
    input: { paymentId, expectedAmountCents: wish.isExpected ? null : 99 },
    card: null,
  }
}

/** Those that a client was told of, the newest first. */
function knownPayments(told: readonly Told[]): string[] {
  const ids = told.flatMap(({ result }) => {
    const payment = result?.is === 'problem' ? result.problem.payment : result?.payment
    return payment?.id ?? []
  })
  return [...new Set(ids)].toReversed()
}
