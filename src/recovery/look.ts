import type { BankEndpoint, ExchangeRecord, Looked } from '../bank/bank.ts'
import type { Gateway } from '../gateway.ts'

/**
 * GET of an id for somebody who waits: asked again while the bank says nothing of use, since one answer in twenty is a
 * fault that means nothing. No longer than a request may take.
 */
export async function lookUntilAnswered(
  { bank, clock, random, settings, inFlight }: Gateway,
  endpoint: Exclude<BankEndpoint, 'voids'>,
  id: string,
): Promise<{ found: Looked; calls: ExchangeRecord[] }> {
  const deadlineMs = clock.monotonicMs() + settings.requestDeadlineMs
  const calls: ExchangeRecord[] = []
  for (let tries = 1; ; tries += 1) {
    const looked = await bank.look(endpoint, id)
    calls.push(...looked.calls)
    const waitMs = random() * Math.min(settings.backoffCapMs, settings.backoffBaseMs * 2 ** tries)
    const isLast = tries === TRIES_MAX || clock.monotonicMs() + waitMs > deadlineMs || inFlight.draining
    if (looked.found.is !== 'noAnswer' || isLast) return { found: looked.found, calls }
    await clock.sleep(waitMs)
  }
}

const TRIES_MAX = 4
