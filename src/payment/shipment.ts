import type { ShipmentPayment } from './reads.ts'

/** In the order of what to tell first when no payment lets the goods leave. */
export const SHIPMENT_REASONS = [
  'CAPTURED',
  'AUTHORIZED',
  'OPERATION_IN_FLIGHT',
  'UNDER_REVIEW',
  'CAPTURE_UNCONFIRMED',
  'DISCREPANCY',
  'PENDING',
  'AMOUNT_DIFFERS',
  'AUTHORIZATION_EXPIRED',
  'REFUNDED',
  'VOIDED',
  'DECLINED',
  'FAILED',
  'NO_PAYMENT',
] as const
export type ShipmentReason = (typeof SHIPMENT_REASONS)[number]

/** Who has said that the money is there: the bank, with its id, or an operator; null where it is not or nobody has. */
export const CONFIRMERS = ['BANK', 'OPERATOR'] as const
export type Confirmer = (typeof CONFIRMERS)[number]

export type ShipmentVerdict = {
  about: ShipmentPayment
  reason: ShipmentReason
  mayShip: boolean
  confirmedBy: Confirmer | null
}

/**
 * May the goods of an order leave? Yes for a payment of exactly that amount that is captured, as the bank or an operator
 * has confirmed, or authorized, unexpired and with nothing under way; and of which no reconciliation has found otherwise. Several payments are each looked at, never summed.
 */
export function shipmentCheck(payments: readonly ShipmentPayment[], amountCents: number) {
  const verdicts = payments.map((about): ShipmentVerdict => {
    const reason = reasonOf(about, amountCents)
    return {
      about,
      reason,
      mayShip: reason === 'CAPTURED' || reason === 'AUTHORIZED',
      confirmedBy: confirmerOf(about),
    }
  })
  const rank = ({ reason }: ShipmentVerdict) => SHIPMENT_REASONS.indexOf(reason)
  const best = verdicts.toSorted((one, other) => rank(one) - rank(other))[0] ?? null
  return { best, verdicts }
}

function confirmerOf({ payment, isCapturedByWord }: ShipmentPayment): Confirmer | null {
  if (payment.state === 'AUTHORIZED') return 'BANK'
  if (payment.state !== 'CAPTURED') return null
  if (payment.captureId !== null) return 'BANK'
  return isCapturedByWord ? 'OPERATOR' : null
}

function reasonOf(about: ShipmentPayment, amountCents: number): ShipmentReason {
  const { payment, operationInFlight, holdsNow, hasDiscrepancy } = about
  const { state } = payment
  switch (state) {
    case 'PENDING':
      return payment.reviewReason === null ? state : 'UNDER_REVIEW'
    case 'REFUNDED':
    case 'VOIDED':
    case 'DECLINED':
    case 'FAILED':
      return state
    case 'EXPIRED':
      return 'AUTHORIZATION_EXPIRED'
    case 'AUTHORIZED':
    case 'CAPTURED':
      if (payment.amountCents !== amountCents) return 'AMOUNT_DIFFERS'
      // A capture or void may have been carried out already, and so may a refund.
      if (operationInFlight !== null) return 'OPERATION_IN_FLIGHT'
      // The state may not be what the bank has.
      if (payment.reviewReason !== null) return 'UNDER_REVIEW'
      if (hasDiscrepancy) return 'DISCREPANCY'
      if (confirmerOf(about) === null) return 'CAPTURE_UNCONFIRMED'
      return state === 'AUTHORIZED' && !holdsNow ? 'AUTHORIZATION_EXPIRED' : state
  }
}
