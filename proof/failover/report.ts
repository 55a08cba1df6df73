import { table } from '../support/report.ts'
import type { Outcome } from './run.ts'

/** What the failovers show, and what in it is not as it must be. */

const SERVING_MS_MAX = 5_000

export function troubleOf({ checked, isLossy, lost, servingMs }: Outcome): string[] {
  const broken = checked
    .filter(({ rows }) => rows.length > 0)
    .map(({ says, rows }) => `${says}: ${rows.length} violations`)
  if (servingMs > SERVING_MS_MAX) broken.push(`serving again ${seconds(servingMs)} after the promotion`)
  if (!isLossy && lost.length > 0) broken.push(`${lost.length} answered receipts are lost`)
  if (isLossy && lost.length === 0) broken.push('nothing was lost, so nothing is proven')
  return broken
}

export function evidenceText(outcome: Outcome): string {
  const trouble = troubleOf(outcome)
  if (trouble.length === 0) return ''
  const rows = outcome.checked.flatMap(({ says, rows: broken }) =>
    broken.slice(0, ROWS_SHOWN).map((row) => `    ${says}: ${JSON.stringify(row)}`),
  )
  return [
    `VIOLATION in: ${outcome.scene}`,
    ...trouble.map((line) => `  - ${line}`),
    ...rows,
    `  again: npm run failover -- --rounds 1 --seed ${outcome.seed} --only "${outcome.scene}"`,
    '',
  ].join('\n')
}

const ROWS_SHOWN = 5

export function told(outcomes: readonly Outcome[]): string {
  return table([HEAD, ...outcomes.map(rowOf)])
}

const HEAD = [
  'scene',
  'without writes',
  'after promotion',
  'answered before',
  'lost',
  'bank rows',
  'listed',
  'violations',
  'told meanwhile',
]

function rowOf(outcome: Outcome): (string | number)[] {
  const { scene, withoutWritesMs, servingMs, answered, lost, bankRows, listed, meanwhile } = outcome
  return [
    scene,
    seconds(withoutWritesMs),
    seconds(servingMs),
    answered,
    lost.length,
    bankRows,
    listed.length,
    troubleOf(outcome).length,
    [...meanwhile].map(([code, times]) => `${times} ${code}`).join(', '),
  ]
}

const seconds = (ms: number) => `${(ms / 1_000).toFixed(2)} s`

export function inJson(seed: number, outcomes: readonly Outcome[]): string {
  const figures = outcomes.map((outcome) => ({
    ...outcome,
    log: undefined,
    meanwhile: Object.fromEntries(outcome.meanwhile),
    violations: troubleOf(outcome),
  }))
  return `${JSON.stringify({ seed, outcomes: figures }, null, 2)}\n`
}
