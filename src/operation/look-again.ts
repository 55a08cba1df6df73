import type { Answer } from '../bank/bank.ts'
import type { Gateway, OperationSettings } from '../gateway.ts'
import type { Audit, Operation } from '../payment/payment.ts'
import { ask } from './ask.ts'
import { claimAgain, TAKEOVER } from './claim-again.ts'
import type { Conclusion } from './decide.ts'
import { resultOf } from './result.ts'
import type { Result } from './result.ts'
import { settle } from './settle.ts'

/**
 * Asks the bank once more about an operation that was resolved without its word: an authorize that failed after an
 * attempt that may have left a hold, or one that was carried out and whose id is missing. A hold that turns up is a
 * stray one, an id is kept. Nothing is ever sent here, and nothing is concluded from silence.
 */
export async function lookAgain(
  gateway: Gateway,
  operation: Operation,
  audit: Audit | null = null,
): Promise<Result> {
  const turn = await claimAgain(gateway, operation, { ...TAKEOVER, late: true, audit })
  if ('lost' in turn) return resultOf(turn.lost, true)
  const { answer, calls } = await ask(gateway, turn.claim, { do: 'PROBE', afterMs: 0 }, null)
  const conclusion = conclude(answer, gateway.settings)
  return resultOf(await settle(gateway, turn.claim, { conclusion, ambiguous: false, calls }), true)
}

function conclude(answer: Answer, settings: OperationSettings): Conclusion {
  switch (answer.is) {
    case 'done':
      return { is: 'FACT', ...answer.fact }
    case 'mismatch': {
      const reason = `The bank's answer does not fit the request: ${answer.reason}`
      return { is: 'REVIEW', isFact: true, orphan: false, review: { reason, evidence: answer.evidence } }
    }
    case 'notStored':
      return { is: 'LEAVE', retryInMs: null }
    case 'declined':
    case 'notDone':
    case 'ambiguous':
    case 'alreadyUsed':
    case 'holdExpired':
    case 'doubtful':
    case 'misused':
      // The bank said nothing of use.
      return { is: 'LEAVE', retryInMs: settings.recoverAfterMs }
  }
}
