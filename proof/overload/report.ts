import { percentile, table } from '../support/report.ts'
import type { Answered } from './load.ts'
import { REFUSED } from './run.ts'
import type { Phase } from './run.ts'

/** What must hold at ten times the capacity, and what a run has shown. */
const GOODPUT_LEAST = 0.9
const REFUSAL_P99_MS_MAX = 50
const LAG_P99_MS_MAX = 30
/** Of what is alive in the heap, from the beginning of a load to its end. */
const GROWTH_MAX = 0.1
/** At first the places fill. */
const RAMP_MS = 1_000

/** What may never be, however slow the machine is. */
export function violations({ answers, recorded, times }: Phase): string[] {
  const refusals = answers.filter(({ answer }) => answer === REFUSED)
  const doneAt = new Map<string, number>()
  for (const { key, answer, answeredMs } of answers)
    if (answer === 'SUCCESS') doneAt.set(key, Math.min(answeredMs, doneAt.get(key) ?? Infinity))
  const denied = refusals.filter(({ key, sentMs }) => (doneAt.get(key) ?? Infinity) < sentMs)
  const found: [number, string][] = [
    [answers.filter(({ answer }) => answer === 'BROKEN').length, 'requests without an answer of the API'],
    [recorded.length, 'requests that were refused as not recorded, and are recorded'],
    [
      denied.length,
      'repeats of what was carried out, and was told to the client, refused as not carried out',
    ],
    [refusals.filter(({ retryAfterMs }) => retryAfterMs === null).length, 'refusals without retryAfterMs'],
  ]
  return found.filter(([count]) => count > 0).map(([count, what]) => `${times}x: ${count} ${what}`)
}

/** The times and sizes promised, which a machine with other work to do may miss. */
export function misses(phase: Phase): string[] {
  const { times, capacityPerSecond, seen, liveHeapMbBefore } = phase
  const goodput = goodputOf(phase)
  const refusalP99Ms = percentile(tookMs(refusalsOf(phase)), 0.99)
  const found: [boolean, string][] = [
    [
      goodput < GOODPUT_LEAST * capacityPerSecond,
      `goodput ${goodput.toFixed(1)}/s of ${capacityPerSecond}/s`,
    ],
    [refusalP99Ms > REFUSAL_P99_MS_MAX, `refusals p99 ${refusalP99Ms.toFixed(0)} ms`],
    [(seen?.lagP99Ms ?? 0) > LAG_P99_MS_MAX, `event-loop lag p99 ${seen?.lagP99Ms.toFixed(0)} ms`],
    [
      seen !== null && seen.liveHeapMb > liveHeapMbBefore * (1 + GROWTH_MAX),
      `live heap from ${liveHeapMbBefore.toFixed(1)} to ${seen?.liveHeapMb.toFixed(1)} MB`,
    ],
  ]
  return found.filter(([isMissed]) => isMissed).map(([, what]) => `${times}x: ${what}`)
}

export function told(phases: readonly Phase[]): string {
  const ms = (value: number) => (Number.isNaN(value) ? '-' : `${value.toFixed(0)} ms`)
  const rows = phases.map((phase) => {
    const { answers, capacityPerSecond, seconds, seen, liveHeapMbBefore, times } = phase
    const refusals = tookMs(refusalsOf(phase))
    const goodput = goodputOf(phase)
    return [
      `${times}x`,
      (answers.length / seconds).toFixed(0),
      goodput.toFixed(1),
      `${((100 * goodput) / capacityPerSecond).toFixed(1)} %`,
      ms(
        percentile(tookMs(answers.filter(({ answer, replayed }) => answer === 'SUCCESS' && !replayed)), 0.99),
      ),
      refusals.length,
      ms(percentile(refusals, 0.5)),
      ms(percentile(refusals, 0.99)),
      answers.filter(({ replayed }) => replayed).length,
      answers.filter(({ answer }) => answer === 'OUTCOME_UNKNOWN').length,
      seen === null ? '-' : `${(seen.cpuMs / answers.length).toFixed(2)} ms`,
      ms(seen?.lagP99Ms ?? Number.NaN),
      seen === null ? '-' : `${liveHeapMbBefore.toFixed(1)} -> ${seen.liveHeapMb.toFixed(1)} MB`,
      seen === null ? '-' : `${seen.rssMb.toFixed(0)} MB`,
    ]
  })
  return table([HEAD, ...rows])
}

const HEAD = [
  'load',
  'offered/s',
  'goodput/s',
  'of capacity',
  'p99',
  'refused',
  'p50',
  'p99',
  'replayed',
  'unknown',
  'CPU each',
  'lag p99',
  'live heap',
  'RSS',
]

function refusalsOf({ answers }: Phase): Answered[] {
  return answers.filter(({ answer }) => answer === REFUSED)
}

function tookMs(answers: readonly Answered[]): number[] {
  return answers.map(({ sentMs, answeredMs }) => answeredMs - sentMs)
}

/** Payments made in a second: the same key counts once. */
function goodputOf({ answers, seconds }: Phase): number {
  const made = answers.filter(
    ({ answer, replayed, answeredMs }) =>
      answer === 'SUCCESS' && !replayed && answeredMs > RAMP_MS && answeredMs <= seconds * 1_000,
  )
  return made.length / (seconds - RAMP_MS / 1_000)
}
