import { inspect } from 'node:util'
import { percentile } from '../support/report.ts'
import { OPERATIONS, POINTS } from './cells.ts'
import type { LedgerType } from './cells.ts'
import { CONVERGED_WITHIN_MS } from './group.ts'
import type { Outcome } from './group.ts'

/** What the matrix shows of its outcomes. */

export function troubleOf({ convergedMs, violations }: Outcome): string[] {
  if (convergedMs === null) return ['LOST: it did not converge', ...violations]
  return convergedMs > CONVERGED_WITHIN_MS
    ? [`it converged after ${convergedMs} ms`, ...violations]
    : violations
}

export function evidenceText(outcome: Outcome, seed: number): string {
  const { cell, evidence } = outcome
  return [
    '',
    `VIOLATION in: ${cell.name} (${cell.fate})`,
    ...troubleOf(outcome).map((trouble) => `  - ${trouble}`),
    inspect(evidence, { depth: 5, breakLength: 160, maxArrayLength: 200 }),
    `  again: npm run crash-matrix -- --seed ${seed} --only "${cell.name}"`,
    '',
  ].join('\n')
}

/** A row for each scene, point and operation. */
export function rowsOf(outcomes: Outcome[]): (string | number)[][] {
  const rows: (string | number)[][] = [HEAD]
  const sceneOf = ({ cell }: Outcome) => (cell.dies === 'Postgres' ? 'Postgres dies' : cell.scene)
  const places = [...new Set(outcomes.map(sceneOf))].flatMap((scene) =>
    POINTS.map((point) => ({ scene, point })),
  )
  for (const { scene, point } of places) {
    let label = scene === 'first send' ? point : `${scene}: ${point}`
    for (const operation of OPERATIONS) {
      const some = outcomes.filter(
        (one) => sceneOf(one) === scene && one.cell.point === point && one.cell.operation === operation,
      )
      if (some.length === 0) continue
      const took = some.flatMap(({ convergedMs }) => convergedMs ?? [])
      rows.push([
        label,
        operation,
        some.length,
        took.length,
        percentile(took, 0.5),
        percentile(took, 1),
        ...LEDGER.map((type) => some.reduce((sum, one) => sum + countOf(one, type), 0)),
        some.filter(({ evidence }) => isMarked(evidence)).length,
        some.reduce((sum, one) => sum + troubleOf(one).length, 0),
        endsOf(some),
      ])
      label = ''
    }
  }
  return rows
}

const HEAD =
  'killed when/operation/cells/converged/p50 ms/max ms/holds/captures/voids/refunds/marked/violations/ended'.split(
    '/',
  )
const LEDGER: LedgerType[] = ['AUTHORIZATION', 'CAPTURE', 'VOID', 'REFUND']

function countOf({ evidence }: Outcome, type: LedgerType): number {
  return evidence.ledger.filter((row) => row.type === type).length
}

const isMarked = ({ payments }: Outcome['evidence']) =>
  payments.some(({ possibleOrphanHoldSince }) => possibleOrphanHoldSince !== null)

/** `3 CAPTURED, 1 AUTHORIZED` */
function endsOf(outcomes: Outcome[]): string {
  const counts = new Map<string, number>()
  for (const { evidence } of outcomes) {
    const state = evidence.payments[0]?.state ?? 'no payment'
    counts.set(state, (counts.get(state) ?? 0) + 1)
  }
  return [...counts].map(([state, count]) => `${count} ${state}`).join(', ')
}

export function summaryOf(outcomes: Outcome[], tookMs: number): string {
  const converged = outcomes.filter(
    ({ convergedMs }) => convergedMs !== null && convergedMs <= CONVERGED_WITHIN_MS,
  )
  const took = outcomes.flatMap(({ convergedMs }) => convergedMs ?? [])
  const doubles = (type: LedgerType) => outcomes.filter((outcome) => countOf(outcome, type) > 1).length
  const orphaned = outcomes.filter(({ evidence: { ledger, payments } }) =>
    ledger.some(({ id, type }) => type === 'AUTHORIZATION' && id !== payments[0]?.authorizationId),
  )
  return [
    `${converged.length} of ${outcomes.length} cells converged within ${CONVERGED_WITHIN_MS} ms (the lease and 30 s, at a tenth): ` +
      `p50 ${percentile(took, 0.5)} ms, max ${percentile(took, 1)} ms`,
    `${doubles('CAPTURE')} double charges, ${doubles('AUTHORIZATION')} double holds, ` +
      `${outcomes.filter((outcome) => outcome.convergedMs === null).length} lost, ` +
      `${orphaned.length} cells with an orphan hold, ${orphaned.filter(({ evidence }) => isMarked(evidence)).length} of them marked`,
    `${outcomes.reduce((sum, one) => sum + troubleOf(one).length, 0)} violations; took ${Math.round(tookMs / 1000)} s`,
  ].join('\n')
}
