import type { Answer, UsedBy } from '../bank/bank.ts'
import type { OperationKind } from '../payment/payment.ts'

/** What one run has learnt so far about an operation. */
export type Evidence = {
  kind: OperationKind
  /** False once the process shuts down: nothing is sent any more. */
  maySend: boolean
  /** It has its answer, and the bank is asked for what is missing to it: nothing is ever sent, nor concluded from silence. */
  isResolved: boolean
  /** Some attempt, of any run, was claimed to be sent. */
  wasSent: boolean
  /** Of an authorize: the card is at hand. */
  canSend: boolean
  /** The database has lost commits: operations of ours may have been carried out that no receipt has. */
  isHistoryLost: boolean
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
  refusal: Refusal | null
}
type Refusal = { is: 'alreadyUsed'; by: UsedBy | null } | { is: 'holdExpired' | 'other' }

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
    ...before,
    ...claim,
    wasSent: before.wasSent || isSend,
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
    isResolved: false,
    isHistoryLost: false,
    wasSent: true,
    canSend: false,
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

function refusalOf(answer: Answer): Refusal | null {
  switch (answer.is) {
    case 'alreadyUsed':
    case 'holdExpired':
      return answer
    case 'declined':
    case 'doubtful':
    case 'misused':
      return { is: 'other' }
    case 'done':
    case 'mismatch':
    case 'notDone':
    case 'ambiguous':
    case 'notStored':
      return null
  }
}
