import { expect, it } from 'vitest'
import { brokenBy, check } from '../../proof/model/check.ts'
import { narrate } from '../../proof/model/narrate.ts'
import { allowEmptying } from '../../proof/model/receipts.ts'
import { connect } from '../../src/db/connection.ts'
import { testDatabase } from '../support/database.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** The short form of `npm run model`. MODEL_SEED repeats the stories of an earlier run; MODEL_RUNS plays more. */

const RUNS = Number(process.env['MODEL_RUNS'] ?? 1_000)
const SEED = Number(process.env['MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31))

const lanes = [await lane(), await lane()] as const

it(
  'whatever happens to clients, processes, bank and database, receipts and books agree in the end',
  async () => {
    const found = await check(lanes, { runs: RUNS, seed: SEED })
    expect(found === null ? '' : await told(found), `MODEL_SEED=${SEED}`).toBe('')
  },
  RUNS * 300,
)

async function told({ story, broken }: NonNullable<Awaited<ReturnType<typeof check>>>): Promise<string> {
  const lines: string[] = []
  await brokenBy(lanes[0], story, (history) => lines.push(narrate(history)))
  return [...broken, ...lines, `npm run model -- --story '${JSON.stringify(story)}'`].join('\n\n')
}

async function lane() {
  const { url } = await testDatabase()
  const sql = connect(url, { connectionsMax: 1, statementTimeoutMs: 30_000 })
  whenFileEnds(() => sql.end({ timeout: 1 }))
  await allowEmptying(sql)
  return sql
}
