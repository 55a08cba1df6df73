import postgres from 'postgres'
import { percentile, table } from '../support/report.ts'
import { openPair } from './receipts.ts'

/** What it costs that a commit waits for the standby, on one machine: there the network is to be added, once each way. */
const COMMITS = 300

export async function commitCost(): Promise<string> {
  const pair = await openPair({ isSynchronous: true, durable: true })
  const sql = postgres(pair.url(), { max: 1, fetch_types: false, onnotice: () => {} })
  const tookMs = { local: [] as number[], on: [] as number[] }
  try {
    await sql`create table written (number int)`
    // In turns: whatever else the machine does meanwhile is done to both.
    for (let number = 0; number < COMMITS; number += 1) {
      for (const how of ['local', 'on'] as const) {
        await sql`select set_config('synchronous_commit', ${how}, false)`
        const startedMs = performance.now()
        await sql`insert into written values (${number})`
        tookMs[how].push(performance.now() - startedMs)
      }
    }
  } finally {
    await sql.end({ timeout: 1 })
    await pair.end()
  }
  const row = (name: string, ms: number[]) => [
    name,
    `${percentile(ms, 0.5).toFixed(2)} ms`,
    `${percentile(ms, 0.99).toFixed(2)} ms`,
  ]
  return table([
    [`a commit, of ${COMMITS}`, 'p50', 'p99'],
    row('on the primary', tookMs.local),
    row('on both', tookMs.on),
  ])
}
