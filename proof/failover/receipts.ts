import { setTimeout as pause } from 'node:timers/promises'
import { newServer, rowsSoon } from './server.ts'
import type { Server } from './server.ts'

/** Where the receipts are kept in a scene, and how their server fails and another has them. */
export type Receipts = {
  /** For the gateways: it names every server there will be. */
  databaseUrl: string
  /** Of the server that has the receipts now. */
  url(): string
  /** What is committed from now on will be lost. */
  beginToLose(): Promise<void>
  failOver(): Promise<FailedOver>
  /** The server that failed is there again, and the gateways' connections to the other one break. */
  bringBack(): Promise<void>
  /** What the server that failed holds of later than that. To be called when all is over. */
  writtenToOld(): Promise<object[]>
  /** What its servers have logged. */
  output(): Promise<string>
  end(): Promise<void>
}

/**
 * On the monotonic clock: when the server was struck, when another was told to take its place, and when it had. Answers
 * before that are to what was settled before.
 */
export type FailedOver = { struckMs: number; promotedMs: number; takenOverMs: number }

/** What was logged, when a scene does not come to its end. */
export const LOG_OF_FAILURE = 'build/failover-broke-off.log'

const DATABASE = 'gateway'
const STANDBY = 'standby'

/** A primary and its standby: what is answered is on both, or, where that is not synchronous, the last of it is lost. */
export async function openPair({
  isSynchronous,
  durable,
}: {
  isSynchronous: boolean
  durable: boolean
}): Promise<Receipts> {
  const primary = await newServer(durable)
  const standby = await primary.copy()
  await primary.start()
  await said(primary, `create database ${DATABASE}`)
  await said(primary, `select pg_create_physical_replication_slot('${STANDBY}')`)
  await standby.follow(primary, STANDBY)
  await standby.start()
  if (isSynchronous) await set(primary, 'synchronous_standby_names', STANDBY)
  await until(
    primary,
    `select from pg_stat_replication where sync_state = '${isSynchronous ? 'sync' : 'async'}'`,
  )
  const { host } = new URL(standby.url(DATABASE))
  const databaseUrl = `${primary.url(DATABASE).replace(/\/[^/]*$/, '')},${host}/${DATABASE}?target_session_attrs=read-write`
  let diedAt = new Date()
  let current = primary

  return {
    databaseUrl,
    url: () => current.url(DATABASE),
    beginToLose: async () => await set(standby, 'primary_conninfo', ''),
    failOver: async () => {
      const struckMs = performance.now()
      await primary.kill()
      diedAt = new Date()
      const promotedMs = performance.now()
      await said(standby, 'select pg_promote()')
      current = standby
      return { struckMs, promotedMs, takenOverMs: performance.now() }
    },
    bringBack: async () => {
      // Nobody has told it that it is no longer the primary.
      await primary.start()
      await said(
        standby,
        `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${DATABASE}'`,
      )
    },
    writtenToOld: async () => {
      // What it has committed and no standby has confirmed is hidden until it starts again.
      await set(primary, 'synchronous_standby_names', '')
      await primary.kill()
      await primary.start()
      return await said(primary, laterThan(diedAt), DATABASE)
    },
    output: async () => `${await primary.output()}\n${await standby.output()}`,
    end: async () => void (await Promise.all([primary.kill(), standby.kill()])),
  }
}

/** One server, and a backup of it from before: its files, in the place of those that are lost. */
export async function openWithBackup({ durable }: { durable: boolean }): Promise<Receipts> {
  const server = await newServer(durable)
  await server.start()
  await said(server, `create database ${DATABASE}`)
  let backup: Server | null = null
  return {
    databaseUrl: server.url(DATABASE),
    url: () => server.url(DATABASE),
    beginToLose: async () => {
      await server.stop()
      backup = await server.copy()
      await server.start()
    },
    failOver: async () => {
      const struckMs = performance.now()
      await server.kill()
      await backup?.start()
      const promotedMs = performance.now()
      return { struckMs, promotedMs, takenOverMs: promotedMs }
    },
    bringBack: async () => {},
    writtenToOld: async () => [],
    output: async () => `${await server.output()}\n${await backup?.output()}`,
    end: async () => void (await Promise.all([server.kill(), backup?.kill()])),
  }
}

/** A row for each thing written since. */
const laterThan = (at: Date) => `
  select 'operation' as what, id::text, created_at as at from operations where created_at > '${at.toISOString()}'
  union all
  select 'transition', payment_id || ' ' || version, at from transitions where at > '${at.toISOString()}'
  union all
  select 'bank call', operation_id::text, started_at from bank_calls where started_at > '${at.toISOString()}'`

const said = (server: Server, statement: string, database = 'postgres') =>
  rowsSoon(server.url(database), statement)

async function set(server: Server, name: string, value: string): Promise<void> {
  await said(server, `alter system set ${name} = '${value}'`)
  await said(server, 'select pg_reload_conf()')
}

const POLL_MS = 10

async function until(server: Server, statement: string): Promise<void> {
  while ((await said(server, statement)).length === 0) await pause(POLL_MS)
}
