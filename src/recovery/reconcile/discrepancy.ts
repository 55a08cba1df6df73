import type { Gateway } from '../../gateway.ts'
import type { Payment } from '../../payment/payment.ts'
import { paymentId } from '../../payment/ids.ts'

/** What a reconciliation can find, and what is to be done about it. */
export const DISCREPANCY_KINDS = [
  'ORPHAN_HOLD',
  'NOT_IN_RECEIPTS',
  'NOT_AT_BANK',
  'STATE_DIFFERS',
  'ID_MISSING',
  'ID_DIFFERS',
  'AMOUNT_DIFFERS',
  'CURRENCY_DIFFERS',
  'PARENT_DIFFERS',
  'UNCLEAR_ANSWER',
  'DUPLICATE_LINE',
] as const
export type DiscrepancyKind = (typeof DISCREPANCY_KINDS)[number]

/** What one side says, by name. Never card data. */
export type Side = Record<string, string | number>

export type Finding = {
  kind: DiscrepancyKind
  paymentId: string | null
  bankReference: string | null
  ours: Side | null
  bank: Side | null
}
/** A row of `discrepancies`. */
export type Discrepancy = Finding & {
  id: string
  reconciliationId: string
  foundAt: Date
  mendedAt: Date | null
}

/** Of one thing that was compared. */
export type Judgement = 'MATCHED' | 'SKIPPED' | Finding

/** What of a receipt can be compared with the bank. */
export type Receipt = Pick<
  Payment,
  'id' | 'state' | 'amountCents' | 'currency' | 'authorizationId' | 'captureId' | 'voidId' | 'refundId'
>

/** SQL for the receipt of payment `p`. What was voided as a stray hold may have been over another amount. */
export function receiptJson({ sql }: Gateway) {
  return sql`jsonb_build_object('id', p.id, 'state', p.state, 'amountCents', coalesce(
      (select h.amount_cents from stray_holds h where h.authorization_id = p.authorization_id), p.amount_cents),
    'currency', p.currency,
    'authorizationId', p.authorization_id, 'captureId', p.capture_id, 'voidId', p.void_id, 'refundId', p.refund_id)`
}

export function sideOf(receipt: Receipt): Side {
  const { id: _, ...rest } = receipt
  return known(rest)
}

/** Without what is not known. */
export function known(facts: Record<string, string | number | null>): Side {
  return Object.fromEntries(
    Object.entries(facts).filter((fact): fact is [string, string | number] => fact[1] !== null),
  )
}

/** The gateway can do it by itself, and it is certain: `npm run reconcile -- --statement FILE --mend` does. */
export function isMendable({ kind, bankReference }: Discrepancy): boolean {
  return kind === 'ID_MISSING' && bankReference !== null
}

export function adviceOn(discrepancy: Discrepancy): string {
  return ADVICE[discrepancy.kind](discrepancy)
}

/** A kind without advice does not compile. */
const ADVICE: Record<DiscrepancyKind, (about: Discrepancy) => string> = {
  ORPHAN_HOLD: ({ ours }) =>
    ours === null
      ? 'Nobody here asked for this hold, and it is no charge. Ask the bank whose it is; the gateway releases nothing that it does not know.'
      : "Perhaps left by one of its candidates, of which nobody here knows whether the bank carried them out. If the bank's records agree, enter it for the right one with enterBankReference: of a payment that has failed the gateway then releases the hold.",
  NOT_IN_RECEIPTS: () =>
    'The bank did this and no receipt has it: either something else uses this account, or receipts were lost (a database restored to an earlier moment). Compare with the orders before anything is charged or given back.',
  NOT_AT_BANK: () =>
    'The receipt has an id that the bank does not know: the bank was reset, BANK_URL names another bank, or its ledger lost it. A later operation on this payment will be refused by the bank. Ask the bank; do not ship or refund by this receipt.',
  STATE_DIFFERS: ({ bankReference }) =>
    `The bank is further than the receipt. If an operation of the payment is in review, settle it with enterBankReference (or, for a void, closeReview with its reference) and ${bankReference}; otherwise somebody else did it: ask the bank.`,
  ID_MISSING: () =>
    "Certain: only the bank's id is missing. `--mend` fills it (a capture or refund once the bank has confirmed it by GET), or enter it with enterBankReference. Until then a captured payment cannot be refunded.",
  ID_DIFFERS: () =>
    'The bank did it under another id than the receipt has, perhaps twice. Ask the bank which one stands before anything more is done with this payment.',
  AMOUNT_DIFFERS: () => 'The amounts differ. Ask the bank, and do not capture or refund before it is clear.',
  CURRENCY_DIFFERS: () =>
    'The currencies differ. Ask the bank, and do not capture or refund before it is clear.',
  PARENT_DIFFERS: () =>
    'At the bank it belongs to another authorization or capture. Ask the bank, and do not capture or refund before it is clear.',
  UNCLEAR_ANSWER: () =>
    'A healthy bank answers about this id in a way that cannot be understood. Ask the bank.',
  DUPLICATE_LINE: () =>
    'The statement has this id more than once; only its first line was compared. Ask the bank for a statement with one line for each transaction.',
}

/** For people. */
export function paymentOf({ paymentId: uuid }: Finding): string {
  return uuid === null ? '' : paymentId(uuid)
}
