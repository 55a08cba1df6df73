import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { cellsOf } from './crash/cells.ts'
import type { Outcome } from './crash/group.ts'
import { runCells } from './crash/matrix.ts'
import { evidenceText, rowsOf, summaryOf, troubleOf } from './crash/report.ts'
import { readNumber, readSeed, runProgram } from './support/program.ts'
import { showProgress, table } from './support/report.ts'

/**
 * npm run crash-matrix: the gateway is killed with SIGKILL at each event on its wires, in each operation, whether the
 * client repeats its request or not, and whether it is started again or another process takes over; also while it asks
 * again, recovers, expires and releases holds, obeys an operator or sends a webhook; and its Postgres is killed under it.
 * In the end both ledgers must agree, and FicMart must have been told nothing else.
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
  const bad = new Set<Outcome>()
  const { outcomes, books } = await runCells(cells, {
    seed,
    atOnce: availableParallelism() + 1,
    show: (stage, done) => {
      for (const outcome of done) {
        if (bad.has(outcome) || troubleOf(outcome).length === 0) continue
        bad.add(outcome)
        progress.end()
        process.stdout.write(evidenceText(outcome, seed))
      }
      progress.show(`${done.length} of ${cells.length} cells done, ${bad.size} with violations; ${stage}`)
    },
  })
  progress.end()

  for (const trouble of books) process.stdout.write(`VIOLATION: ${trouble}\n`)
  process.stdout.write(`\n${table(rowsOf(outcomes))}\n`)
  process.stdout.write(`${summaryOf(outcomes, performance.now() - startedMs)}\nseed ${seed}\n`)
  const missing = cells.length - outcomes.length
  if (missing > 0)
    process.stdout.write(
      `NOT RUN: ${missing} cells. This machine is too busy to bring a request to its point in 1.8 s.\n`,
    )
  return bad.size === 0 && books.length === 0 && missing === 0
})
