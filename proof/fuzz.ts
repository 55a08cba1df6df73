import { parseArgs } from 'node:util'
import { connect } from '../src/db/connection.ts'
import { startEmbedded } from '../src/db/embedded.ts'
import { migrate } from '../src/db/migrate.ts'
import { temporaryFolder } from '../test/support/temporary.ts'
import { fuzz } from './fuzz/run.ts'
import { readNumber, readSeed, runProgram } from './support/program.ts'

/** npm run fuzz: claim, claim again, settle, release and operators race over a few payments, and every row is judged. */

const USAGE = `npm run fuzz -- [--seconds N] [--seed N]

  --seconds N   60 by default, in rounds of 5 that begin with an empty database
  --seed N      of the first round, as an earlier run printed it
`
const ROUND_S = 5
const SHOWN_MAX = 20

runProgram(USAGE, async () => {
  const { values } = parseArgs({
    options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' } },
  })
  const seconds = readNumber('--seconds', values.seconds)
  const seed = readSeed(values.seed)
  const server = await startEmbedded({ folder: await temporaryFolder('gateway-fuzz-'), durable: false })
  const answers: Record<string, number> = {}
  let wrongs: string[] = []
  let rounds = 0
  let changes = 0
  try {
    for (; rounds * ROUND_S < seconds && wrongs.length === 0; rounds += 1) {
      const name = `round_${rounds}`
      await server.createDatabase(name)
      const sql = connect(server.url(name), { connectionsMax: 1, statementTimeoutMs: 30_000 })
      await migrate(sql)
      await sql.end({ timeout: 1 })
      const round = await fuzz(server.url(name), {
        seconds: Math.min(ROUND_S, seconds - rounds * ROUND_S),
        seed: seed + rounds,
      })
      changes += round.changes
      for (const [answer, times] of Object.entries(round.answers))
        answers[answer] = (answers[answer] ?? 0) + times
      wrongs = round.wrongs
    }
    const last = seed + rounds - 1
    const told = {
      seed: wrongs.length > 0 ? last : seed,
      rounds,
      changes,
      deadlocks: deadlocksIn(answers),
      answers,
      violations: wrongs.slice(0, SHOWN_MAX),
    }
    process.stdout.write(`${JSON.stringify(told, null, 2)}\n`)
    return wrongs.length === 0
  } finally {
    await server.stop()
  }
})

/** Those of batches as well, which fall apart and go on. */
function deadlocksIn(answers: Record<string, number>): number {
  return Object.entries(answers).reduce((sum, [name, times]) => sum + (name.endsWith('40P01') ? times : 0), 0)
}
