import type { Asked, ExchangeRecord } from '../bank/bank.ts'
import type { Gateway } from '../gateway.ts'
import type { Card } from '../payment/card.ts'
import { operationId } from '../payment/ids.ts'
import { isStale } from './claim-again.ts'
import type { Claim } from './claim-again.ts'
import type { Exchange } from './decide.ts'
import { bankKey } from './bank-key.ts'
import { BANK_REQUESTS } from './kinds.ts'

/**
 * One exchange with the bank under a claim. Nothing cuts it short but its own timeout: giving up early is how money
 * moves without anyone knowing. `confirm`: a definite "no" is only believed from a healthy bank, and that a card is not
 * known only from one that knows a hold that it has told us: a fault of its database denies both, and is healthy.
 */
export async function ask(
  gateway: Gateway,
  claim: Claim,
  exchange: Exchange,
  card: Card | null,
): Promise<Asked> {
  const { operation, payment } = claim
  const { bank } = gateway
  if (gateway.inFlight.draining) return unsent('the gateway is stopping')
  const key = bankKey(operation, payment)
  const request = {
    ...BANK_REQUESTS[operation.kind]({ operation, payment, card }),
    operation: operationId(operation.id),
  }
  if (exchange.do === 'PROBE') return await bank.probe(key, request)
  if (!exchange.confirm) return await bank.send(key, request)

  const { healthy, calls } = await bank.healthy()
  if (!healthy) return unsent('the bank is not healthy', calls)
  const { knownHold } = gateway.inFlight
  if (operation.kind === 'AUTHORIZE' && knownHold !== null) {
    const looked = await bank.look('authorizations', knownHold)
    calls.push(...looked.calls)
    if (looked.found.is !== 'found') return unsent('the bank does not know what it has told us', calls)
  }
  // Asking took a while, and the claim may be about to pass to another process.
  if (isStale(gateway, claim)) return unsent('the claim is too old', calls)
  const sent = await bank.send(key, request)
  return { answer: sent.answer, calls: [...calls, ...sent.calls] }
}

function unsent(why: string, calls: ExchangeRecord[] = []): Asked {
  return { answer: { is: 'notDone', reason: `${why}, nothing was sent` }, calls }
}
