import { parseArgs } from 'node:util'
import { told } from './soak/report.ts'
import { soak } from './soak/run.ts'
import { readSeed } from './support/random.ts'
import { showProgress } from './support/report.ts'

/** `npm run soak`: thousands of payments through everything that can fail, and both ledgers compared at the end. */
async function main(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      payments: { type: 'string', default: '10000' },
      scale: { type: 'string', default: '1' },
      seed: { type: 'string' },
    },
  })
  const [payments, scale] = [Number(values.payments), Number(values.scale)]
  if (!Number.isSafeInteger(payments) || payments < 1) throw new Error('--payments must be a whole number')
  if (!(scale >= SCALE_MIN && scale <= 1)) throw new Error(`--scale must be ${SCALE_MIN} to 1`)
  const seed = readSeed(values.seed)
  process.stdout.write(`soak of ${payments} payments, all durations x ${scale}, --seed ${seed}\n`)
  const progress = showProgress()
  const report = await soak({ payments, scale, seed, show: (line) => progress.show(line) })
  progress.end()
  process.stdout.write(`\n${told(report)}\n`)
  return report.checked.every(({ rows }) => rows.length === 0)
}

/** Below, the machine's own pauses are as long as the timeouts. */
const SCALE_MIN = 0.05

main().then(
  (isProven) => process.exit(isProven ? 0 : 1),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    process.exit(1)
  },
)
