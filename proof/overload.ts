import { parseArgs } from 'node:util'
import { loadElsewhere } from './overload/load-process.ts'
import { misses, told, violations } from './overload/report.ts'
import { overload } from './overload/run.ts'
import { readNumber, readSeed, runProgram } from './support/program.ts'
import { showProgress } from './support/report.ts'

/** npm run overload: up to ten times the load that the bank can take, and what becomes of it and of the gateway. */

const USAGE = `npm run overload -- [--seconds N] [--places N] [--latency MS] [--times N,N] [--seed N]

  --seconds N    of each load (20)
  --places N     at the bank at one time (16)
  --latency MS   of the bank (200)
  --times N,N    the capacity (1,3,10)
  --seed N       repeats what was random in an earlier run
`

runProgram(USAGE, async () => {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '20' },
      places: { type: 'string', default: '16' },
      latency: { type: 'string', default: '200' },
      times: { type: 'string', default: '1,3,10' },
      seed: { type: 'string' },
    },
  })
  const seed = readSeed(values.seed)
  const progress = showProgress()
  const phases = await overload({
    places: readNumber('--places', values.places),
    latencyMs: readNumber('--latency', values.latency),
    secondsEach: readNumber('--seconds', values.seconds),
    times: values.times.split(',').map((text) => readNumber('--times', text)),
    seed,
    load: loadElsewhere,
    watch: new URL('./overload/watch.js', import.meta.url).href,
    show: (line) => progress.show(line),
  })
  progress.end()
  const wrong = phases.flatMap((phase) => [...violations(phase), ...misses(phase)])
  process.stdout.write(`\n${told(phases)}\n${wrong.map((line) => `${line}\n`).join('')}seed ${seed}\n`)
  return wrong.length === 0
})
