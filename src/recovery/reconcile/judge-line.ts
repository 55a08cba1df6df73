import { paymentId } from '../../payment/ids.ts'
import type { PaymentState } from '../../payment/payment.ts'
import { MARGIN_MS } from '../candidates.ts'
import type { Candidate } from '../candidates.ts'
import { known, sideOf } from './discrepancy.ts'
import type { DiscrepancyKind, Finding, Judgement, Receipt, Side } from './discrepancy.ts'
import type { Line, LineType } from './statement-file.ts'

/**
 * A line of the bank's statement against the receipts. The statement is older than they are: whatever the bank has and
 * the receipt has not is a discrepancy, unless recovery is still at work on it. What the receipts have and the statement
 * has not is looked for the other way round (statement.ts).
 */
export type Seen = Line & {
  /** The same id was on an earlier line. */
  isRepeated: boolean
  /** A line that refers to it says what became of it. */
  isFollowed: boolean
  /** Of the authorization that it is, or goes back to. */
  receipt: Receipt | null
  /** Recovery is at work on an operation of that payment. */
  isRecovering: boolean
  stray: { paymentId: string; amountCents: number; releasedAt: Date | null } | null
  /** Authorizations of which nobody knows the outcome and which, by amount and time, may have placed this hold. */
  candidates: readonly Candidate[]
  /** The bank gave it to a payment that is in review: an operator looks at it. */
  isEvidence: boolean
}

export function judgeLine(seen: Seen, spanTo: Date): Judgement {
  const { receipt, stray, candidates } = seen
  if (seen.isRepeated) return finding(seen, 'DUPLICATE_LINE', null, null)
  if (receipt !== null) {
    const kind = againstReceipt(seen, receipt)
    if (kind === null) return 'MATCHED'
    return seen.isRecovering ? 'SKIPPED' : finding(seen, kind, receipt.id, sideOf(receipt))
  }
  if (stray !== null) {
    const kind = againstStray(seen, stray, spanTo)
    const { amountCents, releasedAt } = stray
    const ours = known({ strayHoldOfCents: amountCents, releasedAt: releasedAt?.toISOString() ?? null })
    return typeof kind === 'string' && kind !== 'SKIPPED'
      ? finding(seen, kind, stray.paymentId, ours)
      : (kind ?? 'MATCHED')
  }
  if (seen.type !== 'AUTHORIZATION' || seen.status !== 'ACTIVE')
    return finding(seen, 'NOT_IN_RECEIPTS', null, null)
  if (seen.isEvidence || candidates.some(({ isRecovering }) => isRecovering)) return 'SKIPPED'
  // A statement has no keys: however well amount and time agree, whose hold it is remains for a person to say.
  const names = candidates.map((candidate) => paymentId(candidate.paymentId)).join(', ')
  const [only] = candidates.length === 1 ? candidates : []
  return finding(seen, 'ORPHAN_HOLD', only?.paymentId ?? null, names === '' ? null : { candidates: names })
}

/** Where a receipt has the id of such a line, and the states that say that it was done. */
const CLAIMS: Record<
  Exclude<LineType, 'AUTHORIZATION'>,
  { id: 'captureId' | 'voidId' | 'refundId'; states: readonly PaymentState[] }
> = {
  CAPTURE: { id: 'captureId', states: ['CAPTURED', 'REFUNDED'] },
  VOID: { id: 'voidId', states: ['VOIDED', 'EXPIRED'] },
  REFUND: { id: 'refundId', states: ['REFUNDED'] },
}

/** What a line's own status says was done to it, where the statement does not have the line that did it. */
const STATUSES: Record<string, readonly PaymentState[]> = {
  'AUTHORIZATION CAPTURED': ['CAPTURED', 'REFUNDED'],
  'AUTHORIZATION VOIDED': ['VOIDED', 'EXPIRED'],
  'AUTHORIZATION COMPLETED': ['CAPTURED', 'REFUNDED', 'VOIDED', 'EXPIRED'],
  'CAPTURE REFUNDED': ['REFUNDED'],
}

function againstReceipt(line: Seen, receipt: Receipt): DiscrepancyKind | null {
  if (line.type !== 'VOID' && line.amountCents !== receipt.amountCents) return 'AMOUNT_DIFFERS'
  if (line.type !== 'AUTHORIZATION') {
    const { id, states } = CLAIMS[line.type]
    if (receipt[id] === null) return states.includes(receipt.state) ? 'ID_MISSING' : 'STATE_DIFFERS'
    if (receipt[id] !== line.id) return 'ID_DIFFERS'
  }
  const implied = line.isFollowed ? undefined : STATUSES[`${line.type} ${line.status}`]
  return implied === undefined || implied.includes(receipt.state) ? null : 'STATE_DIFFERS'
}

/** A hold that no receipt wants: it shall be voided, and nothing else. */
function againstStray(
  { type, status, amountCents }: Seen,
  stray: { amountCents: number; releasedAt: Date | null },
  spanTo: Date,
): DiscrepancyKind | 'SKIPPED' | null {
  if (type === 'VOID') return null
  if (type !== 'AUTHORIZATION' || status === 'CAPTURED') return 'STATE_DIFFERS'
  if (amountCents !== stray.amountCents) return 'AMOUNT_DIFFERS'
  // COMPLETED: voided, or captured, and then its capture has a line of its own.
  if (status === 'VOIDED' || status === 'COMPLETED') return null
  if (stray.releasedAt === null) return 'SKIPPED'
  return stray.releasedAt.getTime() < spanTo.getTime() - MARGIN_MS ? 'STATE_DIFFERS' : null
}

function finding(line: Line, kind: DiscrepancyKind, payment: string | null, ours: Side | null): Finding {
  const { type, id, referenceId, amountCents, status, at } = line
  const bank = known({ type, id, referenceId, amountCents, status, at: at.toISOString() })
  return { kind, paymentId: payment, bankReference: id, ours, bank }
}
