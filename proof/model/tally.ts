import type { History } from './play.ts'

/** How often what happened, so that a run shows what it has tried. */
export type Tally = Map<string, number>

export function count(tally: Tally, h: History): void {
  const add = (what: string, times = 1) => tally.set(what, (tally.get(what) ?? 0) + times)
  add('run: in all')
  if (h.interruptions > 0) add('run: a process died or paused, or the database failed')
  for (const { result } of h.told) {
    if (result === null) add('told: nothing, for the process died')
    else if (result.is === 'success') add(`told: ${result.kind} done`)
    else add(`told: ${result.problem.code} (${result.problem.retry})`)
  }
  for (const { fault, hasBody } of h.bank.exchanges)
    add(`bank, ${hasBody ? 'asked to act' : 'probed'}: ${fault ?? 'as it should'}`)
  for (const { state } of h.settled.payments) add(`payment at the end: ${state}`)
  for (const payment of h.recovered.payments) {
    if (payment.reviewReason !== null) add(`left to an operator: ${payment.reviewReason}`)
    if (payment.possibleOrphanHoldSince !== null) add('after recovery: a possible orphan hold')
    if (payment.state === 'CAPTURED' && payment.captureId === null)
      add('after recovery: captured, id unknown')
  }
  add('at the end: stray holds released', h.settled.strays.length)
  add(
    'operation: by the gateway itself',
    h.settled.operations.filter(({ client }) => client === 'gateway').length,
  )
  add(
    'operation: with an attempt that may have been carried out',
    h.settled.operations.filter(({ ambiguousAt }) => ambiguousAt !== null).length,
  )
}
