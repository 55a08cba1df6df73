import { setTimeout as pause } from 'node:timers/promises'
import { isPassing } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { inSpan } from '../observe/span.ts'
import { AGENDA, setLeasesRight } from './agenda.ts'
import { lookAtHistory } from './history.ts'
import type { Entry, Find } from './agenda.ts'

/**
 * Every process looks, every few seconds, for what nobody is working on (agenda.ts says what). Each is entered by the
 * same door as a client's request, under the same claim, so that two processes that sweep at once, or a client, cannot
 * do it twice. Nothing is locked while looking, and a round waits for nobody: one that hangs at the bank keeps its
 * place, the next round goes on with the others.
 */
export function startSweeper(gateway: Gateway, everyMs: number): { stop(): Promise<void> } {
  const stopped = new AbortController()
  const running: Running = new Map()
  let wake = () => {}
  const done = (async () => {
    while (!stopped.signal.aborted) {
      // Half to one and a half: processes that started together do not sweep together.
      await pause(everyMs * (0.5 + gateway.random()), null, { signal: stopped.signal, ref: false }).catch(
        () => null,
      )
      // There may be more than places: as soon as one is free, the next.
      while (!stopped.signal.aborted && (await startRound(gateway, running))) {
        // Not a race: what outlives it would keep each loser.
        await new Promise<void>((resolve) => {
          wake = resolve
          for (const work of worksOf(running)) void work.then(resolve)
          if (running.size === 0 || stopped.signal.aborted) resolve()
        })
        await gateway.clock.sleep(ROUND_LEAST_MS)
        // No exchange is that quick: they found no place at the bank.
        if (running.size === 0) await gateway.clock.sleep(NO_PLACE_MS)
      }
    }
  })()
  return {
    stop: async () => {
      stopped.abort()
      wake()
      await done
      await Promise.all(worksOf(running))
    },
  }
}

/** The database is not asked without pause. */
const ROUND_LEAST_MS = 20
const NO_PLACE_MS = 100

/** One round; resolves when what it entered has been settled or left again. Never rejects. */
export async function sweep(gateway: Gateway): Promise<void> {
  const running: Running = new Map()
  await startRound(gateway, running)
  await Promise.all(worksOf(running))
}

/** What is being worked on, by the name of its entry. */
type Running = Map<string, { find: Find; done: Promise<void> }>
const worksOf = (running: Running) => [...running.values()].map(({ done }) => done)

/** Enters what is due and not entered yet, as far as there are places; true when they ran out. Never rejects. */
async function startRound(gateway: Gateway, running: Running): Promise<boolean> {
  if (gateway.inFlight.draining) return false
  const isBankOpen = gateway.bank.state().circuit === 'closed'
  let ranOut = false
  try {
    const { recoveriesMax } = gateway.settings
    await lookAtHistory(gateway)
    await setLeasesRight(gateway)
    for (const { find, share, needsBank } of AGENDA) {
      if (needsBank && !isBankOpen) continue
      const taken = [...running.values()].filter((entry) => entry.find === find).length
      const places = Math.min(
        recoveriesMax - running.size,
        Math.max(1, Math.floor(recoveriesMax * share)) - taken,
      )
      const due = places > 0 ? await find(gateway, places, [...running.keys()]) : []
      for (const entry of due) running.set(entry.name, { find, done: enter(gateway, entry, running) })
      ranOut ||= due.length >= places
    }
  } catch (error) {
    report(gateway, error, 'sweeping again later')
    return false
  }
  return ranOut
}

async function enter(gateway: Gateway, entry: Entry, running: Running): Promise<void> {
  try {
    gateway.log.info({ due: entry.name }, 'recovery enters what is due')
    await inSpan('recovery', {}, async (span) => {
      span.setAttribute('gateway.due', entry.name)
      await entry.enter()
    })
  } catch (error) {
    report(gateway, error, `recovery of ${entry.name} goes on later`)
  } finally {
    running.delete(entry.name)
  }
}

function report(gateway: Gateway, error: unknown, then: string): void {
  if (isPassing(error)) gateway.log.warn({ err: error }, `the database does not answer; ${then}`)
  else gateway.log.error({ err: error }, `the sweep failed; ${then}`)
}
