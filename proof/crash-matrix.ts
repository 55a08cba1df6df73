import { availableParallelism } from 'node:os'
import { inspect, parseArgs } from 'node:util'
import { cellsOf, OPERATIONS, POINTS } from './crash/cells.ts'
import type { Cell, LedgerType } from './crash/cells.ts'
import { CONVERGED_WITHIN_MS } from './crash/group.ts'
import type { Outcome } from './crash/group.ts'
import { runCells } from './crash/matrix.ts'
import { readNumber, readSeed, runProgram } from './support/program.ts'
import { percentile, showProgress, table } from './support/report.ts'

/**
 * npm run crash-matrix: the gateway is killed with SIGKILL at each event on its wires, in each operation, whether the
 * client repeats its request or not, and whether it is started again or another process takes over. In the end both
 * ledgers must agree, and FicMart must have been told nothing else.
 */

const USAGE = `npm run crash-matrix -- [--seed N] [--rounds N] [--only TEXT]

  --seed N     repeats what was random in an earlier run
  --rounds N   the whole matrix, N times
  --only TEXT  the cells whose name holds the text
`

runProgram(USAGE, async () => {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      rounds: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
    },
  })
  const seed = readSeed(values.seed)
  const rounds = readNumber('--rounds', values.rounds)
  const cells = Array.from({ length: rounds }, (_, round) => cellsOf(seed, round))
    .flat()
    .filter(({ name }) => name.includes(values.only))
  if (cells.length === 0) throw new Error(`No cell's name holds "${values.only}".`)
  process.stdout.write(`${cells.length} cells, seed ${seed}\n`)

  const startedMs = performance.now()
  const progress = showProgress()
  const { outcomes, books } = await runCells(cells, {
    seed,
    atOnce: 2 * availableParallelism(),
    show: (stage, done) => {
      const bad = done.filter((outcome) => troubleOf(outcome).length > 0).length
      progress.show(`${done.length} of ${cells.length} cells done, ${bad} with violations; ${stage}`)
    },
  })
  progress.end()

  const bad = outcomes.filter((outcome) => troubleOf(outcome).length > 0)
  for (const outcome of bad) process.stdout.write(evidenceText(outcome, seed))
  for (const trouble of books) process.stdout.write(`VIOLATION: ${trouble}\n`)
  process.stdout.write(`\n${table(rowsOf(outcomes))}\n`)
  process.stdout.write(`${summaryOf(outcomes, performance.now() - startedMs)}\nseed ${seed}\n`)
  return bad.length === 0 && books.length === 0 && outcomes.length === cells.length
})

function troubleOf({ convergedMs, violations }: Outcome): string[] {
  if (convergedMs === null) return ['LOST: it did not converge', ...violations]
  return convergedMs > CONVERGED_WITHIN_MS
    ? [`it converged after ${convergedMs} ms`, ...violations]
    : violations
}

function evidenceText(outcome: Outcome, seed: number): string {
  const { cell, evidence } = outcome
  return [
    '',
    `VIOLATION in: ${cell.name} (${cell.fate})`,
    ...troubleOf(outcome).map((trouble) => `  - ${trouble}`),
    inspect(evidence, { depth: 5, breakLength: 160, maxArrayLength: 200 }),
    `  again: npm run crash-matrix -- --seed ${seed} --only '${cell.name}'`,
    '',
  ].join('\n')
}

const LEDGER: LedgerType[] = ['AUTHORIZATION', 'CAPTURE', 'VOID', 'REFUND']

function rowsOf(outcomes: Outcome[]): (string | number)[][] {
  const head = [
    'killed when',
    'operation',
    'cells',
    'converged',
    'p50 ms',
    'max ms',
    'holds',
    'captures',
    'voids',
  ]
  const rows: (string | number)[][] = [[...head, 'refunds', 'ended', 'marked', 'violations']]
  for (const point of POINTS) {
    for (const operation of OPERATIONS) {
      const ofCell = ({ cell }: { cell: Cell }) => cell.point === point && cell.operation === operation
      const some = outcomes.filter(ofCell)
      const took = some.flatMap(({ convergedMs }) => convergedMs ?? [])
      const counts = LEDGER.map((type) => some.reduce((sum, one) => sum + countOf(one, type), 0))
      rows.push([
        operation === 'authorize' || some.length === 0 ? point : '',
        operation,
        some.length,
        took.length,
        percentile(took, 0.5),
        Math.max(...took),
        ...counts,
        endsOf(some),
        some.filter(({ evidence }) => isMarked(evidence)).length,
        some.reduce((sum, one) => sum + troubleOf(one).length, 0),
      ])
    }
  }
  return rows.filter(([, , count], index) => index === 0 || count !== 0)
}

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

function summaryOf(outcomes: Outcome[], tookMs: number): string {
  const converged = outcomes.filter(
    ({ convergedMs }) => convergedMs !== null && convergedMs <= CONVERGED_WITHIN_MS,
  )
  const took = outcomes.flatMap(({ convergedMs }) => convergedMs ?? [])
  const doubles = (type: LedgerType) => outcomes.filter((outcome) => countOf(outcome, type) > 1).length
  const orphans = outcomes.filter(
    (outcome) =>
      countOf(outcome, 'AUTHORIZATION') > 0 && outcome.evidence.payments[0]?.authorizationId === null,
  )
  return [
    `${converged.length} of ${outcomes.length} cells converged within ${CONVERGED_WITHIN_MS} ms (the lease and 30 s, at a tenth): ` +
      `p50 ${percentile(took, 0.5)} ms, max ${Math.max(...took)} ms`,
    `${doubles('CAPTURE')} double charges, ${doubles('AUTHORIZATION')} double holds, ` +
      `${outcomes.filter((outcome) => outcome.convergedMs === null).length} lost, ` +
      `${orphans.length} orphan holds of which ${orphans.filter(({ evidence }) => isMarked(evidence)).length} are marked`,
    `${outcomes.reduce((sum, one) => sum + troubleOf(one).length, 0)} violations; took ${Math.round(tookMs / 1000)} s`,
  ].join('\n')
}
