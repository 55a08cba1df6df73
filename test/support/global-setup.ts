import { spawnSync } from 'node:child_process'
import type { TestProject } from 'vitest/node'
import { connect } from '../../src/db/connection.ts'
import type { Database } from '../../src/db/connection.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrate.ts'
import { prepareLedger } from '../../src/simulator/ledger.ts'
import { removeWithUs, temporaryFolder } from './temporary.ts'

/**
 * One Postgres for the whole run, with a template to clone for each kind of database; `dist` for what is spawned. The
 * server ends with the run, or with Vitest's process if that comes first.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // It writes its output whatever the types say; those have a check of their own.
  spawnSync('npm', ['run', '--silent', 'build'])
  const folder = await temporaryFolder('gateway-test-')
  const server = await startEmbedded({ folder, durable: false, connectionsMax: 500 })
  removeWithUs(server.folder)
  const templates = { gateway_template: migrate, bank_template: prepareLedger } satisfies Record<
    string,
    (sql: Database) => Promise<unknown>
  >
  for (const [name, prepare] of Object.entries(templates)) {
    await server.createDatabase(name)
    const sql = connect(server.url(name), { connectionsMax: 1, statementTimeoutMs: 30_000 })
    await prepare(sql)
    await sql.end({ timeout: 5 })
  }
  project.provide('serverUrl', server.url(''))
  return () => server.stop()
}

declare module 'vitest' {
  export interface ProvidedContext {
    /** The run's Postgres; append a database's name. */
    serverUrl: string
  }
}
