import type { Request } from '../../../src/operation/result.ts'
import type { PaymentState, ProblemCode } from '../../../src/payment/payment.ts'
import { CARDS, HOLD_MS } from '../bank.ts'
import type { Told } from '../play.ts'

/** The payment as it would be if nothing ever failed: one request after the other, the bank always well. */
type Plain = {
  answers: Map<string, { asked: string; answer: Answer }>
  payments: Map<string, PlainPayment>
}
type Answer = 'done' | ProblemCode
type PlainPayment = { orderId: string; cents: number; isPoor: boolean; heldMs: number; state: PaymentState }

const CODES: Record<string, ProblemCode> = {
  invalid_card: 'CARD_INVALID',
  invalid_cvv: 'CVV_INVALID',
  card_expired: 'CARD_EXPIRED',
}

/** How the answers differ from those, up to the first failure. */
export function plainAnswers(told: readonly Told[]): string[] {
  const plain: Plain = { answers: new Map(), payments: new Map() }
  for (const { request, result, isPlain, askedMs } of told) {
    if (!isPlain || result === null) return []
    const payment = result.is === 'success' ? result.payment : result.problem.payment
    const given = result.is === 'success' ? 'done' : result.problem.code
    const right = keyed(plain, request, payment?.id ?? '', askedMs)
    const state = plain.payments.get(payment?.id ?? '')?.state
    if (given !== right) return [`${request.kind} was answered ${given}, not ${right}`]
    if (payment?.state !== state) return [`${request.kind} left the payment ${payment?.state}, not ${state}`]
  }
  return []
}

function keyed(plain: Plain, request: Request, newId: string, nowMs: number): Answer {
  const asked = JSON.stringify([request.kind, request.input])
  const known = plain.answers.get(request.idempotencyKey)
  if (known !== undefined) return known.asked === asked ? known.answer : 'IDEMPOTENCY_KEY_REUSED'
  const answer =
    request.kind === 'AUTHORIZE' ? authorize(plain, request, newId, nowMs) : followUp(plain, request, nowMs)
  plain.answers.set(request.idempotencyKey, { asked, answer })
  return answer
}

function authorize(
  plain: Plain,
  request: Request & { kind: 'AUTHORIZE' },
  id: string,
  heldMs: number,
): Answer {
  const { orderId, amountCents: cents, allowAnotherForOrder, cardLast4 } = request.input
  const live = [...plain.payments.values()].filter(
    ({ state }) => state === 'AUTHORIZED' || state === 'CAPTURED',
  )
  if (!allowAnotherForOrder && live.some((payment) => payment.orderId === orderId))
    return 'ORDER_ALREADY_HAS_PAYMENT'
  const card = Object.values(CARDS).find(({ number }) => number.endsWith(cardLast4))
  const isPoor = card === CARDS.poor
  const spent = live.filter((payment) => payment.isPoor).reduce((sum, payment) => sum + payment.cents, 0)
  const isShort = isPoor && spent + cents > CARDS.poor.balanceCents
  const refusal = CODES[card?.trouble ?? ''] ?? (isShort ? 'INSUFFICIENT_FUNDS' : undefined)
  plain.payments.set(id, {
    orderId,
    cents,
    isPoor,
    heldMs,
    state: refusal === undefined ? 'AUTHORIZED' : 'DECLINED',
  })
  return refusal ?? 'done'
}

function followUp(
  plain: Plain,
  request: Request & { kind: Exclude<Request['kind'], 'AUTHORIZE'> },
  nowMs: number,
): Answer {
  const { kind, input } = request
  const payment = plain.payments.get(input.paymentId)
  if (payment === undefined) return 'PAYMENT_NOT_FOUND'
  if ('expectedAmountCents' in input && (input.expectedAmountCents ?? payment.cents) !== payment.cents)
    return 'AMOUNT_MISMATCH'
  const isOver = nowMs >= payment.heldMs + HOLD_MS
  if (kind === 'CAPTURE' && payment.state === 'AUTHORIZED' && isOver) return 'AUTHORIZATION_EXPIRED'
  if (payment.state !== (kind === 'REFUND' ? 'CAPTURED' : 'AUTHORIZED')) return 'INVALID_TRANSITION'
  payment.state = kind === 'REFUND' ? 'REFUNDED' : kind === 'VOID' ? 'VOIDED' : 'CAPTURED'
  return 'done'
}
