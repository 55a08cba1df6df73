import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Simulator } from '../../src/simulator/simulator.ts'
import { temporaryFolder } from '../../test/support/temporary.ts'
import type { Receipts } from './receipts.ts'
import { rowsSoon } from './server.ts'

/** What the bank's statement and the receipts differ in, by `npm run reconcile -- --statement`. */
export async function compareWithStatement(bank: Simulator, receipts: Receipts): Promise<object[]> {
  const file = join(await temporaryFolder('gateway-statement-'), 'bank.csv')
  await writeFile(file, await (await fetch(`${bank.url}/simulator/statement.csv`)).text())
  const child = spawn(process.execPath, ['dist/reconcile.js', '--statement', file], {
    env: { PATH: process.env['PATH'], DATABASE_URL: receipts.databaseUrl, BANK_URL: bank.url },
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0 && code !== 1) throw new Error(`npm run reconcile ended with ${code}: ${said}`)
  return await rowsSoon(
    receipts.url(),
    `select kind, bank_reference from discrepancies where reconciliation_id = (
       select id from reconciliations order by started_at desc limit 1)`,
  )
}
