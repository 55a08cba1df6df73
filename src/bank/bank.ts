import type { BankCall } from '../payment/payment.ts'

/** The bank as the rest of the gateway sees it: requests that may move money, and the answers they can get. */

export type BankEndpoint = 'authorizations' | 'captures' | 'voids' | 'refunds'

/** One request that may move money. */
export type BankRequest = {
  endpoint: BankEndpoint
  /** A function, so that no log line or error that is handed the request can show the card in it. */
  body: () => Record<string, string | number>
  /** What the answer must echo; an answer that does not is a `mismatch`. Null where the endpoint echoes none. */
  expect: { amountCents: number | null; parentId: string | null }
  /** The operation that it is for, `op_...`, as logs and traces name it; else they name the key. */
  operation?: string
}

/** A validated 200: what the bank says it has done. */
export type Fact = {
  /** authorization_id, capture_id, void_id or refund_id. */
  bankId: string
  /** When, by the bank's clock: RFC 3339 as it came, nanoseconds and offset included. */
  bankAt: string
  /** Authorizations only: until when the hold can be captured; RFC 3339 as it came. */
  expiresAt: string | null
}

export type UsedBy = 'CAPTURE' | 'VOID' | 'REFUND'
export type DeclineCode = 'CARD_INVALID' | 'CVV_INVALID' | 'CARD_EXPIRED' | 'INSUFFICIENT_FUNDS'

/**
 * Every answer of the bank, classified by what may be concluded from it (bank-contract, "Answers, and what to
 * conclude"). `reason` is ours, for logs and operators; it never holds the bank's text or anything of the body.
 */
export type Answer =
  /** Carried out, and the echo is what we asked for. */
  | { is: 'done'; fact: Fact; replayed: boolean }
  /** Carried out, but with another amount, currency or parent: recorded and looked at, never a state. */
  | { is: 'mismatch'; reason: string; evidence: Record<string, string | number | null> }
  /** The bank said no, and will say so again. */
  | { is: 'declined'; code: DeclineCode }
  /** Certainly not carried out by this attempt: the same request may be sent again. */
  | { is: 'notDone'; reason: string }
  /** Perhaps carried out. */
  | { is: 'ambiguous'; reason: string }
  /** To a probe: the bank has no stored answer under this key (the plain-text decode error, and health was 200). */
  | { is: 'notStored' }
  /**
   * The authorization was captured or voided, the capture refunded; not by this attempt. `by`: which of them, where the
   * bank says it.
   */
  | { is: 'alreadyUsed'; by: UsedBy | null }
  /** A capture after the hold's expiry. */
  | { is: 'holdExpired' }
  /** Says no, but a fault of the bank's database looks the same: `card` ("card not found") or `parent` (an id we hold). */
  | { is: 'doubtful'; about: 'card' | 'parent' }
  /** The request itself was refused as malformed or disagreeing: our fault, not carried out, never re-sent. */
  | { is: 'misused'; reason: string }

/** One exchange as it goes into `bank_calls`, without what only the operation knows. */
export type ExchangeRecord = Omit<BankCall, 'operationId' | 'attempt'>

export type Asked = {
  answer: Answer
  /** The exchanges that were made, oldest first. Empty when nothing was sent (the circuit is open). */
  calls: ExchangeRecord[]
}

export type Looked =
  | { is: 'found'; fact: Fact; amountCents: number | null; currency: string | null; parentId: string | null }
  | { is: 'notFound' }
  | { is: 'noAnswer'; reason: string }

export type Bank = {
  baseUrl: string
  /** Sends one request, once. Resolves always; the attempt's timeout bounds the whole exchange. */
  send(key: string, request: BankRequest): Promise<Asked>
  /**
   * Asks by key with an empty body what became of a request, after /health said 200. Moves no money. Only `done`,
   * `mismatch` and `notStored` say something about the request; `ambiguous` (the bank said nothing of use) and
   * `notDone` (the circuit is open, so the probe was not sent) say nothing about it.
   */
  probe(key: string, request: BankRequest): Promise<Asked>
  /** GET of an authorization, capture or refund by its id. */
  look(
    endpoint: Exclude<BankEndpoint, 'voids'>,
    id: string,
  ): Promise<{ found: Looked; calls: ExchangeRecord[] }>
  /** True when GET /health answers 200 and healthy. While the circuit is open: false, and nothing is sent. */
  healthy(): Promise<{ healthy: boolean; calls: ExchangeRecord[] }>
  /**
   * Runs `work` in one of the bounded slots, and says in `refused` that it must not send anything:
   * the circuit is open or slots and queue are full. Work that sends nothing (a replay) is run all the same.
   */
  admit<T>(work: (refused: Refused | null) => Promise<T>): Promise<T>
  /** `inFlight` (of at most `inFlightMax`) and `queued` count admitted work. */
  state(): { circuit: CircuitPosition; inFlight: number; inFlightMax: number; queued: number }
  /** Stops the circuit's timer, waits for exchanges under way (the operations have ended before), then ends connections. */
  close(): Promise<void>
}
/** Open: nothing is sent. Half open: GET /health is being asked. */
export type CircuitPosition = 'closed' | 'open' | 'halfOpen'

export type Refused = { retryAfterMs: number; reason: string }
