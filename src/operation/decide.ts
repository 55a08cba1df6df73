import type { Answer } from '../bank/bank.ts'
import type { OperationSettings } from '../gateway.ts'
import type { OperationKind, PaymentState, StoredProblemCode } from '../payment/payment.ts'

/**
 * What to do after each answer of the bank: send, probe, or settle. Pure, so that every rule by which money could be
 * lost can be read and tested in one place. The rules are those of the bank contract:
 *
 * - A fact ends it, whoever asked.
 * - What was certainly not carried out is sent again, a few times.
 * - After an attempt that may have been carried out we ask by key. An authorize is then never sent again: a second
 *   hold would be placed. Capture, void and refund may be: the bank lets only one win.
 * - A verdict ("it did not happen") is passed only when no attempt was ambiguous, or, for an authorize, when the bank
 *   has said three times, after the quiet period and while it still remembers, that it stored nothing.
 * - Whatever remains unknown stays unresolved and is left to recovery; what no rule can settle goes to review.
 */
export function decide(e: Evidence, settings: OperationSettings, random: () => number): Step {
  const { last } = e
  if (last.is === 'done') return { do: 'SETTLE', conclusion: { is: 'FACT', ...last.fact } }
  if (last.is === 'mismatch')
    return review(`The bank's answer does not fit the request: ${last.reason}`, last.evidence, {
      isFact: true,
    })
  return e.asked === 'SEND' ? afterSend(e, last, settings, random) : afterProbe(e, last, settings, random)
}

/** What one run has learnt so far about an operation. */
export type Evidence = {
  kind: OperationKind
  /** False once the process shuts down: nothing is sent any more. */
  maySend: boolean
  /** Some attempt, of any run, may have been carried out. */
  ambiguous: boolean
  /** Of an operation of the gateway's own: how many before it, for the same, were refused. */
  vainTries: number
  /** No attempt that may have been carried out can still be at work in the bank. */
  quiet: boolean
  /** The bank still remembers its answer to the last send, if it gave one. */
  replayable: boolean
  asked: 'SEND' | 'PROBE'
  last: Answer
  /** Sends and probes of this run; probes since the last send. */
  sends: number
  probes: number
  /** Probes since the last send that said "not stored", and those of them that came after the quiet period. */
  negatives: number
  quietNegatives: number
  /** How often the bank has said no in a way that a fault of its database would look like. */
  doubts: number
  /** What the last send was refused with, while probes look for an earlier attempt of ours. */
  refusal: 'alreadyUsed' | 'holdExpired' | 'other' | null
}

export type Step = Exchange | { do: 'SETTLE'; conclusion: Conclusion }
/** `confirm`: only if the bank says first that it is healthy. */
export type Exchange = { do: 'SEND'; afterMs: number; confirm: boolean } | { do: 'PROBE'; afterMs: number }

export type Conclusion =
  /** The bank's word, or, with nulls, what is certain without it. */
  (
    | { is: 'FACT'; bankId: string | null; bankAt: string | null; expiresAt: string | null }
    | { is: 'VERDICT'; code: StoredProblemCode; to: PaymentState | null; orphan: boolean }
    /** Null: at the next of the late looks. */
    | { is: 'LEAVE'; retryInMs: number | null }
    /** `isFact`: the bank did something else than it was asked. `orphan`: there may be a hold that nobody knows. */
    | { is: 'REVIEW'; isFact: boolean; orphan: boolean }
  ) & { review?: Review }
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
      return probe(e, settings)
    case 'declined':
      if (e.ambiguous) return probe(e, settings)
      if (e.kind !== 'AUTHORIZE')
        return notCarriedOut(e, settings, 'BANK_UNAVAILABLE', 'The bank declined what it cannot decline')
      return verdict(last.code, 'DECLINED')
    case 'holdExpired':
      if (e.ambiguous) return probe(e, settings)
      return e.kind === 'CAPTURE'
        ? verdict('AUTHORIZATION_EXPIRED', null)
        : notCarriedOut(e, settings, 'BANK_UNAVAILABLE', 'The bank says that the authorization has expired')
    case 'doubtful':
      if (e.doubts < DOUBTS_NEEDED) return sendAgain(e, settings, random, settings.confirmAfterMs)
      if (last.about === 'card' && e.kind === 'AUTHORIZE') return verdict('CARD_INVALID', 'DECLINED')
      // Nobody but us asks for these: again after a pause, which grows, and in the end an operator.
      if (!e.ambiguous && (e.kind === 'EXPIRE' || e.kind === 'RELEASE'))
        return e.vainTries < VAIN_TRIES_MAX ? verdict('BANK_REFERENCE_MISSING', null) : review(UNKNOWN_ID, {})
      return notCarriedOut(e, settings, 'BANK_REFERENCE_MISSING', UNKNOWN_ID)
    case 'misused':
      return notCarriedOut(
        e,
        settings,
        'BANK_UNAVAILABLE',
        `The bank refused our request itself: ${last.reason}`,
      )
  }
}

function afterProbe(e: Evidence, last: SaidNo, settings: OperationSettings, random: () => number): Step {
  const again = probe(e, settings, e.quiet ? settings.confirmAfterMs : backoff(e.probes, settings, random))
  // A probe that was answered with anything else says nothing.
  if (last.is !== 'notStored') return again
  if (e.kind === 'AUTHORIZE') {
    if (!e.replayable)
      return review(
        'The bank has forgotten by now whether it placed this hold; there may be one',
        {},
        { orphan: true },
      )
    if (e.quietNegatives < NEGATIVES_NEEDED) return again
    return verdict('BANK_UNAVAILABLE', 'FAILED', e.ambiguous)
  }
  switch (e.refusal) {
    case 'alreadyUsed':
      if (!e.ambiguous) {
        return e.negatives < DOUBTS_NEEDED
          ? again
          : review('The bank says that this was done already, and no attempt of ours can have done it', {})
      }
      if (e.quietNegatives < DOUBTS_NEEDED) return again
      // Only we touch this authorization, so it was our own attempt; the bank forgot the id.
      return { do: 'SETTLE', conclusion: { is: 'FACT', bankId: null, bankAt: null, expiresAt: null } }
    case 'holdExpired':
    case 'other':
      if (e.quietNegatives < DOUBTS_NEEDED) return again
      return review('An attempt may have been carried out, and the bank now refuses another', {
        refusal: e.refusal,
      })
    case null:
      return sendAgain(e, settings, random)
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
  if (e.ambiguous) return leave(settings)
  return verdict('BANK_UNAVAILABLE', e.kind === 'AUTHORIZE' ? 'FAILED' : null)
}

function probe(e: Evidence, settings: OperationSettings, afterMs = 0): Step {
  return e.maySend && e.probes < PROBES_MAX ? { do: 'PROBE', afterMs } : leave(settings)
}

const UNKNOWN_ID = 'The bank does not know the id that it gave us'

/** Definitely not carried out by this attempt, for a reason that a person should see. */
function notCarriedOut(
  e: Evidence,
  settings: OperationSettings,
  code: StoredProblemCode,
  reason: string,
): Step {
  if (e.ambiguous) return probe(e, settings)
  const step = verdict(code, e.kind === 'AUTHORIZE' ? 'FAILED' : null)
  // A refused authorize leaves nothing at stake; the log has it.
  return e.kind === 'AUTHORIZE'
    ? step
    : { ...step, conclusion: { ...step.conclusion, review: { reason, evidence: {} } } }
}

function verdict(code: StoredProblemCode, to: PaymentState | null, orphan = false) {
  return { do: 'SETTLE', conclusion: { is: 'VERDICT', code, to, orphan } } as const
}

function review(reason: string, evidence: Review['evidence'], { isFact = false, orphan = false } = {}): Step {
  return { do: 'SETTLE', conclusion: { is: 'REVIEW', isFact, orphan, review: { reason, evidence } } }
}

function leave(settings: OperationSettings): Step {
  return { do: 'SETTLE', conclusion: { is: 'LEAVE', retryInMs: settings.recoverAfterMs } }
}

/** Exponential with full jitter. */
function backoff(tries: number, settings: OperationSettings, random: () => number): number {
  return random() * Math.min(settings.backoffCapMs, settings.backoffBaseMs * 2 ** tries)
}

/** The evidence after one more answer; `claim` is the one that it was asked under. */
export function weigh(
  before: Omit<Evidence, 'asked' | 'last'>,
  claim: Pick<Evidence, 'ambiguous' | 'vainTries' | 'quiet' | 'replayable' | 'maySend'>,
  asked: 'SEND' | 'PROBE',
  answer: Answer,
): Evidence {
  const isSend = asked === 'SEND'
  const isNegative = answer.is === 'notStored'
  return {
    kind: before.kind,
    ...claim,
    asked,
    last: answer,
    ambiguous: claim.ambiguous || (isSend && answer.is === 'ambiguous'),
    quiet: claim.quiet && !(isSend && answer.is === 'ambiguous'),
    sends: before.sends + (isSend ? 1 : 0),
    probes: isSend ? 0 : before.probes + 1,
    negatives: isSend ? 0 : before.negatives + (isNegative ? 1 : 0),
    quietNegatives: isSend ? 0 : before.quietNegatives + (isNegative && claim.quiet ? 1 : 0),
    doubts: before.doubts + (answer.is === 'doubtful' ? 1 : 0),
    refusal: isSend ? refusalOf(answer) : before.refusal,
  }
}

export function noEvidence(kind: OperationKind): Omit<Evidence, 'asked' | 'last'> {
  return {
    kind,
    maySend: true,
    ambiguous: false,
    vainTries: 0,
    quiet: true,
    replayable: true,
    sends: 0,
    probes: 0,
    negatives: 0,
    quietNegatives: 0,
    doubts: 0,
    refusal: null,
  }
}

function refusalOf(answer: Answer): Evidence['refusal'] {
  switch (answer.is) {
    case 'alreadyUsed':
    case 'holdExpired':
      return answer.is
    case 'declined':
    case 'doubtful':
    case 'misused':
      return 'other'
    case 'done':
    case 'mismatch':
    case 'notDone':
    case 'ambiguous':
    case 'notStored':
      return null
  }
}
