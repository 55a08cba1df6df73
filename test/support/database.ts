import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, inject } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import type { Database } from '../../src/db/connection.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import type { EmbeddedServer } from '../../src/db/embedded.ts'

export type TestDatabase = { url: string; sql: Database }

/** An empty gateway or bank of this test file's own; dropped when the file has ended. */
export async function testDatabase(kind: 'gateway' | 'bank' = 'gateway'): Promise<TestDatabase> {
  const server = inject('serverUrl')
  const name = `${kind}_${randomUUID().replaceAll('-', '')}`
  await asAdmin(
    server,
    (admin) => admin`create database ${admin(name)} template ${admin(`${kind}_template`)}`,
  )
  const url = server + name
  const sql = connect(url, { connectionsMax: 5, statementTimeoutMs: 30_000 })
  afterAll(async () => {
    await sql.end({ timeout: 1 })
    await asAdmin(server, (admin) => admin`drop database if exists ${admin(name)} with (force)`)
  })
  return { url, sql }
}

/** A server of the test's own, for what stops and kills it. `restart` comes back on the same port. */
export async function privateServer(): Promise<
  EmbeddedServer & { restart(whileDown?: () => Promise<void>): Promise<void> }
> {
  const folder = await mkdtemp(join(tmpdir(), 'gateway-private-'))
  let server = await startEmbedded({ folder, durable: false })
  afterAll(async () => {
    kill(server.pid)
    await gone(server.pid)
    await rm(server.folder, { recursive: true, force: true })
    await rm(folder, { recursive: true, force: true })
  })
  return {
    ...server,
    restart: async (whileDown) => {
      kill(server.pid)
      await gone(server.pid)
      await whileDown?.()
      server = await startEmbedded({ folder, durable: false, port: server.port })
    },
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGQUIT')
  } catch {
    // Gone already.
  }
}

async function gone(pid: number): Promise<void> {
  try {
    for (;;) {
      process.kill(pid, 0)
      await pause(10)
    }
  } catch {
    // That is what was waited for.
  }
}

async function asAdmin(server: string, work: (admin: postgres.Sql) => Promise<unknown>): Promise<void> {
  const admin = postgres(`${server}postgres`, { max: 1, onnotice: () => {} })
  try {
    await work(admin)
  } finally {
    await admin.end({ timeout: 5 })
  }
}
