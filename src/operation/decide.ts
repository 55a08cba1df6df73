import type { Answer, UsedBy } from '../bank/bank.ts'
import type { OperationSettings } from '../gateway.ts'
import type { PaymentState, StoredProblemCode } from '../payment/payment.ts'
import type { Evidence } from './evidence.ts'

/**
 * What to do after each answer of the bank: send, probe, or settle. Pure, so that every rule by which money could be
 * lost can be read and tested in one place. The rules are those of the bank contract:
 *
 * - A fact ends it, whoever asked.
 * - What was certainly not carried out is sent again, a few times.
 * - After an attempt that may have been carried out we ask by key. An authorize is then never sent again: a second
 *   hold would be placed. Capture, void and refund may be: the bank lets only one win.
 * - A verdict ("it did not happen") is passed only when no attempt was ambiguous, or, for an authorize, when the bank
 *   has said three times, after the quiet period, that it stored nothing, or has forgotten by now: then with the mark
 *   of a possible orphan hold.
 * - Where the bank says that somebody has done it and not who, nothing is taken for our own doing that would harm if it
 *   were not (`isOwnDoing`).
 * - Whatever remains unknown stays unresolved and is left to recovery; what no rule can settle goes to review.
 */
export function decide(e: Evidence, settings: OperationSettings, random: () => number): Step {
  const { last } = e
  if (last.is === 'done') return { do: 'SETTLE', conclusion: { is: 'FACT', ...last.fact } }
  if (last.is === 'mismatch')
    return review(`The bank's answer does not fit the request: ${last.reason}`, last.evidence)
  if (e.isResolved) return leave()
  // Whatever it says now: it answers by key for as long as it remembers, and an authorize is never sent again.
  if (e.kind === 'AUTHORIZE' && !e.replayable) return verdict('BANK_UNAVAILABLE', 'FAILED', true)
  return e.asked === 'SEND' ? afterSend(e, last, settings, random) : afterProbe(e, last, settings, random)
}

export type Step = Exchange | { do: 'SETTLE'; conclusion: Conclusion }
/** `confirm`: only if the bank says first that it is healthy. */
export type Exchange = { do: 'SEND'; afterMs: number; confirm: boolean } | { do: 'PROBE'; afterMs: number }

export type Conclusion =
  /** The bank's word, or, with nulls, what is certain without it. */
  (
    | { is: 'FACT'; bankId: string | null; bankAt: string | null; expiresAt: string | null }
    | { is: 'VERDICT'; code: StoredProblemCode; to: PaymentState | null; orphan: boolean }
    /** Not known yet. With a review only an operator can settle it. */
    | { is: 'LEAVE' }
  ) & { review?: Review }
/** A `bankId` in the evidence: the bank has done that, whatever else is in doubt. */
export type Review = { reason: string; evidence: Record<string, string | number | null> }

type SaidNo = Exclude<Answer, { is: 'done' | 'mismatch' }>

/** "Not stored" counts after three agreeing probes; in one run no more than this many are made for it. */
const NEGATIVES_NEEDED = 3
const PROBES_MAX = 6
/** A definite answer that is repeated by a healthy bank is believed. */
const DOUBTS_NEEDED = 2
/** With the pauses between them (recovery/agenda.ts) more than two hours: no fault of the bank's database that passes. */
const VAIN_TRIES_MAX = 10

function afterSend(e: Evidence, last: SaidNo, settings: OperationSettings, random: () => number): Step {
  switch (last.is) {
    case 'notDone':
      return sendAgain(e, settings, random)
    case 'ambiguous':
    case 'notStored':
    case 'alreadyUsed':
      return probe(e)
    case 'declined':
      if (e.ambiguous) return probe(e)
      if (e.kind !== 'AUTHORIZE')
        return notCarriedOut(e, 'BANK_UNAVAILABLE', 'The bank declined what it cannot decline')
      return verdict(last.code, 'DECLINED')
    case 'holdExpired':
      if (e.ambiguous) return probe(e)
      return e.kind === 'CAPTURE'
        ? verdict('AUTHORIZATION_EXPIRED', null)
        : notCarriedOut(e, 'BANK_UNAVAILABLE', 'The bank says that the authorization has expired')
    case 'doubtful':
      if (e.doubts < DOUBTS_NEEDED) return sendAgain(e, settings, random, settings.confirmAfterMs)
      if (last.about === 'card' && e.kind === 'AUTHORIZE') return verdict('CARD_INVALID', 'DECLINED')
      // Nobody but us asks for these: again after a pause, which grows, and in the end an operator.
      if (!e.ambiguous && (e.kind === 'EXPIRE' || e.kind === 'RELEASE'))
        return e.vainTries < VAIN_TRIES_MAX ? verdict('BANK_REFERENCE_MISSING', null) : review(UNKNOWN_ID, {})
      return notCarriedOut(e, 'BANK_REFERENCE_MISSING', UNKNOWN_ID)
    case 'misused':
      return notCarriedOut(e, 'BANK_UNAVAILABLE', `The bank refused our request itself: ${last.reason}`)
  }
}

function afterProbe(e: Evidence, last: SaidNo, settings: OperationSettings, random: () => number): Step {
  const again = probe(e, e.quiet ? settings.confirmAfterMs : backoff(e.probes, settings, random))
  // A probe that was answered with anything else says nothing.
  if (last.is !== 'notStored') return again
  if (e.kind === 'AUTHORIZE') {
    // Claimed while receipts were lost: the bank does not know it, so it is no repeat of a request that was lost.
    if (!e.wasSent && e.canSend) return sendAgain(e, settings, random)
    if (e.quietNegatives < NEGATIVES_NEEDED) return again
    return verdict('BANK_UNAVAILABLE', 'FAILED', e.ambiguous)
  }
  switch (e.refusal?.is) {
    case 'alreadyUsed':
      if ((e.ambiguous ? e.quietNegatives : e.negatives) < DOUBTS_NEEDED) return again
      return e.ambiguous && isOwnDoing(e, e.refusal.by)
        ? { do: 'SETTLE', conclusion: { is: 'FACT', bankId: null, bankAt: null, expiresAt: null } }
        : review(e.ambiguous && e.refusal.by === null ? PERHAPS_LOST : NOT_OURS, { doneAtBank: e.refusal.by })
    case 'holdExpired':
    case 'other':
      if (e.quietNegatives < DOUBTS_NEEDED) return again
      return review('An attempt may have been carried out, and the bank now refuses another', {
        refusal: e.refusal.is,
      })
    case undefined:
      return sendAgain(e, settings, random)
  }
}

const NOT_OURS = 'The bank says that this was done already, and no attempt of ours can have done it'
const PERHAPS_LOST =
  'The bank says that this was done already; it may have been by an operation whose receipt is lost'

/**
 * After an attempt that may have been carried out and whose answer the bank has lost: is what was done what we asked for?
 * Where the bank says what was done, by that. Where it says only "used", it was our own attempt, since nobody else touches
 * this authorization, but without an id: nothing is shipped on it. Unless receipts were lost, and with them perhaps
 * another operation of ours.
 */
function isOwnDoing({ kind, isHistoryLost }: Evidence, by: UsedBy | null): boolean {
  if (by === null) return !isHistoryLost
  switch (kind) {
    case 'CAPTURE':
    case 'REFUND':
      return by === kind
    case 'VOID':
    case 'EXPIRE':
    case 'RELEASE':
      return by === 'VOID'
    case 'AUTHORIZE':
      return false
  }
}

/**
 * Not reached by an authorize after an ambiguous attempt: a second request would place a second hold. The others may
 * meet an earlier attempt of their own that still runs: the bank's row lock lets one of the two win, and the probes
 * that follow "already used" find its answer. Waiting out the quiet period first would cost a minute for nothing.
 */
function sendAgain(e: Evidence, settings: OperationSettings, random: () => number, atLeastMs = 0): Step {
  if (e.maySend && e.sends <= settings.resendsMax) {
    return { do: 'SEND', afterMs: atLeastMs + backoff(e.sends, settings, random), confirm: e.doubts > 0 }
  }
  if (e.ambiguous) return leave()
  return verdict('BANK_UNAVAILABLE', e.kind === 'AUTHORIZE' ? 'FAILED' : null)
}

function probe(e: Evidence, afterMs = 0): Step {
  return e.maySend && e.probes < PROBES_MAX ? { do: 'PROBE', afterMs } : leave()
}

const UNKNOWN_ID = 'The bank does not know the id that it gave us'

/** Definitely not carried out by this attempt, for a reason that a person should see. */
function notCarriedOut(e: Evidence, code: StoredProblemCode, reason: string): Step {
  if (e.ambiguous) return probe(e)
  const step = verdict(code, e.kind === 'AUTHORIZE' ? 'FAILED' : null)
  // A refused authorize leaves nothing at stake; the log has it.
  return e.kind === 'AUTHORIZE'
    ? step
    : { ...step, conclusion: { ...step.conclusion, review: { reason, evidence: {} } } }
}

function verdict(code: StoredProblemCode, to: PaymentState | null, orphan = false) {
  return { do: 'SETTLE', conclusion: { is: 'VERDICT', code, to, orphan } } as const
}

function review(reason: string, evidence: Review['evidence']): Step {
  return { do: 'SETTLE', conclusion: { is: 'LEAVE', review: { reason, evidence } } }
}

function leave(): Step {
  return { do: 'SETTLE', conclusion: { is: 'LEAVE' } }
}

/** Exponential with full jitter. */
function backoff(tries: number, settings: OperationSettings, random: () => number): number {
  return random() * Math.min(settings.backoffCapMs, settings.backoffBaseMs * 2 ** tries)
}
