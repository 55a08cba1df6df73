/**
 * What a payment is: its states, the moves between them, and the rows of its receipt.
 *
 * The table below is the only place in code that says which operation moves a payment from where to where;
 * the CHECKs in sql/ say it again, and a test walks every state x every operation against both.
 */

export const PAYMENT_STATES = [
  'PENDING',
  'AUTHORIZED',
  'CAPTURED',
  'REFUNDED',
  'VOIDED',
  'EXPIRED',
  'DECLINED',
  'FAILED',
] as const
export type PaymentState = (typeof PAYMENT_STATES)[number]

/** What a client asks for. */
export const CLIENT_OPERATIONS = ['AUTHORIZE', 'CAPTURE', 'VOID', 'REFUND'] as const
export type ClientOperation = (typeof CLIENT_OPERATIONS)[number]

/** EXPIRE and RELEASE are the gateway's own: it voids a hold that ran out, or one that no receipt wants. */
export const OPERATION_KINDS = [...CLIENT_OPERATIONS, 'EXPIRE', 'RELEASE'] as const
export type OperationKind = (typeof OPERATION_KINDS)[number]

/** Where an operation that the bank carried out takes a payment. RELEASE moves only a FAILED one. */
export const MOVES: Record<OperationKind, { from: PaymentState; to: PaymentState }> = {
  AUTHORIZE: { from: 'PENDING', to: 'AUTHORIZED' },
  CAPTURE: { from: 'AUTHORIZED', to: 'CAPTURED' },
  VOID: { from: 'AUTHORIZED', to: 'VOIDED' },
  REFUND: { from: 'CAPTURED', to: 'REFUNDED' },
  EXPIRE: { from: 'AUTHORIZED', to: 'EXPIRED' },
  RELEASE: { from: 'FAILED', to: 'VOIDED' },
}

/** An order with a payment in one of these refuses a second one, unless the client allows it. */
export const LIVE_STATES: readonly PaymentState[] = ['PENDING', 'AUTHORIZED', 'CAPTURED']

/** Only an operator can settle it: nobody works on it, and nobody will. */
export function isInReview({ status, leasedUntil }: Operation): boolean {
  return status === 'UNRESOLVED' && leasedUntil === null
}

export function operationsAllowedIn(state: PaymentState): ClientOperation[] {
  return CLIENT_OPERATIONS.filter((operation) => operation !== 'AUTHORIZE' && MOVES[operation].from === state)
}

/** A row of `payments`: the receipt. */
export type Payment = {
  id: string
  orderId: string
  customerId: string
  amountCents: number
  currency: 'USD'
  cardBrand: string
  cardLast4: string
  cardExpiryMonth: number
  cardExpiryYear: number
  allowAnotherForOrder: boolean
  state: PaymentState
  /** The version of the newest transition. */
  version: number
  /** Ids at the bank. CAPTURED without a captureId: certain that it is captured, its id is not known. */
  authorizationId: string | null
  captureId: string | null
  voidId: string | null
  refundId: string | null
  authorizationExpiresAt: Date | null
  /** Set while an operator must look at it. */
  reviewReason: string | null
  reviewEvidence: ReviewEvidence[] | null
  reviewSince: Date | null
  /** Set when an authorize failed after an attempt that may have left a hold at the bank. */
  possibleOrphanHoldSince: Date | null
  createdAt: Date
  updatedAt: Date
}

/** Each thing that an operation brought to a payment's review. */
export type ReviewEvidence = {
  /** `op_...` */
  operation: string
  reason: string
  evidence: Record<string, string | number | null>
}

/** A row of `operations`: what a client asked for, known for ever by (client, idempotencyKey). */
export type Operation = {
  id: string
  client: string
  idempotencyKey: string
  kind: OperationKind
  /** The payment it concerns; null when it was refused before there was one. */
  paymentId: string | null
  /** The normalised input of the first request; never a card number or CVV. */
  input: OperationInput
  status: 'UNRESOLVED' | 'SUCCEEDED' | 'REFUSED'
  /** Why it was refused. */
  code: StoredProblemCode | null
  detail: ProblemDetail | null
  /** The version of the transition that it made, a decline included. */
  transitionVersion: number | null
  /** Claims so far: one for each exchange with the bank. */
  attempt: number
  /** What the last claim was for. */
  attemptPurpose: 'SEND' | 'PROBE' | null
  /** When the last request that can move money was claimed; null when none was. */
  sentAt: Date | null
  /** The send time of the last attempt that the bank may have carried out; null when there was none. */
  ambiguousAt: Date | null
  /** Until then one process has the claim; null when resolved or when only an operator can settle it. */
  leasedUntil: Date | null
  /** When the bank is asked once more; set while it was resolved without the bank's word. */
  lookAgainAt: Date | null
  createdAt: Date
  resolvedAt: Date | null
}

/** A row of `authorizations` that is a stray one: an authorization at the bank that no receipt wants; the gateway voids it. */
export type StrayHold = {
  authorizationId: string
  operationId: string
  paymentId: string
  amountCents: number
  expiresAt: Date
  foundAt: Date
  releasedAt: Date | null
}

/** What an operator did, as it goes into `audit_lines` with the statement that does it. */
export type Audit = {
  /** Made by the caller, so that a statement that is repeated writes one line. */
  id: string
  action: AuditAction
  actor: string
  reason: string
  /** What was entered: an outcome, a reference. */
  detail: Record<string, string | null>
}
export const AUDIT_ACTIONS = [
  'RERUN_RECOVERY',
  'ENTER_BANK_REFERENCE',
  'CLOSE_REVIEW',
  'RESEND_WEBHOOK',
  'END_REVIEW',
] as const
export type AuditAction = (typeof AUDIT_ACTIONS)[number]
/** A row of `audit_lines`. */
export type AuditLine = Omit<Audit, 'detail'> & {
  paymentId: string
  operationId: string | null
  detail: Audit['detail'] & { reviewReason?: string; reviewEvidence?: ReviewEvidence[] }
  at: Date
}

export type AuthorizeInput = {
  orderId: string
  customerId: string
  amountCents: number
  allowAnotherForOrder: boolean
  cardBrand: string
  cardLast4: string
  cardExpiryMonth: number
  cardExpiryYear: number
}
export type FollowUpInput = { paymentId: string; expectedAmountCents: number | null }
export type ReleaseInput = { paymentId: string; authorizationId: string }
export type OperationInput = AuthorizeInput | FollowUpInput | ReleaseInput

/** A row of `transitions`: one line of a payment's history. */
export type Transition = {
  paymentId: string
  version: number
  fromState: PaymentState | null
  toState: PaymentState
  /** When it was recorded here. */
  at: Date
  /** When it happened at the bank, by the bank's clock. */
  bankAt: Date | null
  operationId: string
  cause: OperationKind
  actor: string
}

/** A row of `bank_calls`: one HTTP exchange with the bank. */
export type BankCall = {
  id: string
  operationId: string
  attempt: number
  purpose: BankCallPurpose
  /** Method and path, for instance `POST /api/v1/captures`. */
  endpoint: string
  startedAt: Date
  durationMs: number
  /** Null when no complete answer came. */
  httpStatus: number | null
  /** The bank's error code, or the transport's. */
  errorCode: string | null
  /** Answered from the bank's stored answers. */
  replayed: boolean
  /** What was concluded: the `is` of the classified answer. */
  conclusion: string
}
/** SEND may move money; PROBE asks by key with an empty body; HEALTH and LOOKUP are GETs. */
export type BankCallPurpose = 'SEND' | 'PROBE' | 'HEALTH' | 'LOOKUP'

/** The refusals of the API, see operation/problems.ts for what each one means and advises. */
export const PROBLEM_CODES = [
  'IDEMPOTENCY_KEY_REUSED',
  'OPERATION_IN_FLIGHT',
  'PAYMENT_NOT_FOUND',
  'INVALID_TRANSITION',
  'AUTHORIZATION_EXPIRED',
  'AMOUNT_MISMATCH',
  'ORDER_ALREADY_HAS_PAYMENT',
  'CARD_INVALID',
  'CVV_INVALID',
  'CARD_EXPIRED',
  'INSUFFICIENT_FUNDS',
  'BANK_UNAVAILABLE',
  'OUTCOME_UNKNOWN',
  'BANK_REFERENCE_MISSING',
  'BANK_REFERENCE_REFUSED',
  'NOTHING_TO_SETTLE',
  'WEBHOOK_NOT_FOUND',
  'INVALID_INPUT',
] as const
export type ProblemCode = (typeof PROBLEM_CODES)[number]

/** The codes that can be an operation's final answer, and so are kept with it. */
export type StoredProblemCode = Exclude<
  ProblemCode,
  | 'IDEMPOTENCY_KEY_REUSED'
  | 'OPERATION_IN_FLIGHT'
  | 'OUTCOME_UNKNOWN'
  | 'BANK_REFERENCE_REFUSED'
  | 'NOTHING_TO_SETTLE'
  | 'WEBHOOK_NOT_FOUND'
  | 'INVALID_INPUT'
>

/** What a problem says beyond its code. */
export type ProblemDetail = {
  /** INVALID_TRANSITION: the state the payment was in, and where the operation would have taken it. */
  from?: PaymentState
  to?: PaymentState
  /** IDEMPOTENCY_KEY_REUSED: the input field that differs from the first request's. */
  field?: string
  /** AMOUNT_MISMATCH */
  expectedAmountCents?: number
  actualAmountCents?: number
  /** BANK_REFERENCE_REFUSED: why. */
  why?: string
}
