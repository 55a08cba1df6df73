import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { told } from './soak/report.ts'
import { soak } from './soak/run.ts'
import { readNumber, readSeed, runProgram } from './support/program.ts'
import { showProgress } from './support/report.ts'

/**
 * npm run soak: thousands of payments live through everything that can fail, with duplicates, conflicting requests and
 * late clients; in the end both ledgers are laid side by side.
 */

const USAGE = `npm run soak -- [--payments N] [--scale S] [--seed N] [--log FILE]

  --payments N  how many (10000)
  --scale S     of all durations, intervals between faults included: 0.05 to 1 (1)
  --seed N      repeats what was random in an earlier run
  --log FILE    keeps what the gateways logged
`

/** Below, the machine's own pauses are as long as the timeouts. */
const SCALE_MIN = 0.05

runProgram(USAGE, async () => {
  const { values } = parseArgs({
    options: {
      payments: { type: 'string', default: '10000' },
      scale: { type: 'string', default: '1' },
      seed: { type: 'string' },
      log: { type: 'string' },
    },
  })
  const payments = readNumber('--payments', values.payments)
  const scale = Number(values.scale)
  if (!(scale >= SCALE_MIN && scale <= 1)) throw new Error(`--scale must be ${SCALE_MIN} to 1`)
  const seed = readSeed(values.seed)
  process.stdout.write(`${payments} payments, all durations x ${scale}, seed ${seed}\n`)
  const progress = showProgress()
  const report = await soak({ payments, scale, seed, show: (line) => progress.show(line) })
  progress.end()
  if (values.log !== undefined) await writeFile(values.log, report.log)
  process.stdout.write(`\n${told(report)}seed ${seed}\n`)
  return report.checked.every(({ rows }) => rows.length === 0)
})
