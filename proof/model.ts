import { parseArgs } from 'node:util'
import { connect } from '../src/db/connection.ts'
import { startEmbedded } from '../src/db/embedded.ts'
import { migrate } from '../src/db/migrate.ts'
import { temporaryFolder } from '../test/support/temporary.ts'
import { brokenBy, check } from './model/check.ts'
import type { Story } from './model/deeds.ts'
import { narrate } from './model/narrate.ts'
import { allowEmptying } from './model/receipts.ts'
import { count } from './model/tally.ts'
import type { Tally } from './model/tally.ts'
import { readNumber, readSeed, runProgram } from './support/program.ts'
import { showProgress, table } from './support/report.ts'

/**
 * npm run model: random stories of clients, operators, crashes and everything that the bank and the database can do,
 * played on the operation core with a virtual clock, and judged by a pure model.
 */

const USAGE = `npm run model -- [--runs N] [--seed N] [--story JSON]

  --runs N      how many stories, 10000 by default
  --seed N      repeats the stories of an earlier run
  --story JSON  plays one story, as an earlier run printed it, and tells it
`
/** One uses the database while the other thinks. */
const LANES = 2

runProgram(USAGE, async () => {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '10000' },
      seed: { type: 'string' },
      story: { type: 'string' },
    },
  })
  const runs = readNumber('--runs', values.runs)
  const seed = readSeed(values.seed)
  const server = await startEmbedded({ folder: await temporaryFolder('gateway-model-'), durable: false })
  const databases = await Promise.all(
    Array.from({ length: LANES }, async (_, lane) => {
      await server.createDatabase(`lane_${lane}`)
      const sql = connect(server.url(`lane_${lane}`), { connectionsMax: 1, statementTimeoutMs: 30_000 })
      await migrate(sql)
      await allowEmptying(sql)
      return sql
    }),
  )
  const [sql] = databases
  if (sql === undefined) throw new Error('there is no database')
  const tell = async (story: Story) => {
    process.stdout.write(`--story '${JSON.stringify(story)}'\n\n`)
    const broken = await brokenBy(sql, story, (history) => process.stdout.write(`${narrate(history)}\n\n`))
    process.stdout.write(broken.length === 0 ? 'no rule is broken\n' : `BROKEN\n  ${broken.join('\n  ')}\n`)
    return broken.length === 0
  }

  try {
    if (values.story !== undefined) return await tell(JSON.parse(values.story) as Story)
    process.stdout.write(`${runs} stories, seed ${seed}\n`)
    const startedMs = performance.now()
    const tally: Tally = new Map()
    const progress = showProgress()
    let played = 0
    const found = await check(databases, {
      runs,
      seed,
      onRun: (history) => {
        count(tally, history)
        progress.show(`${(played += 1)} stories played`)
      },
    })
    progress.end()
    const rows = [...tally].toSorted(([one], [other]) => one.localeCompare(other))
    process.stdout.write(`\n${table([['what happened', 'times'], ...rows])}\n`)
    if (found !== null) {
      process.stdout.write(`VIOLATION after ${found.runs} stories. The shortest that was found:\n\n`)
      await tell(found.story)
    }
    const tookS = Math.round((performance.now() - startedMs) / 1_000)
    process.stdout.write(
      `${found === null ? 'no rule was broken' : '1 violation'}; took ${tookS} s; seed ${seed}\n`,
    )
    return found === null
  } finally {
    await Promise.all(databases.map((database) => database.end({ timeout: 1 })))
    await server.stop()
  }
})
