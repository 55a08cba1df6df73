import { execFile, execFileSync } from 'node:child_process'
import { appendFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { openCluster } from '../../src/db/embedded/cluster.ts'
import { findPlace } from '../../src/db/embedded/place.ts'
import { launch, stopServer } from '../../src/db/embedded/postmaster.ts'
import { privateServer } from './private-server.ts'
import { temporaryFolder } from './temporary.ts'

export type Server = {
  host: string
  url: string
  /** Ends the server as a crash does. */
  kill(): Promise<void>
  /** Stops all of its processes where they are; connections stay open and are made, and nothing answers. */
  freeze(): void
  thaw(): void
  /** Starts it again on the same port, as what it was. */
  start(): Promise<void>
  /** As a standby that follows nobody. */
  startAsStandby(): Promise<void>
  promote(): Promise<void>
}

/** Two servers, the second of which follows the first (asynchronously), with one empty database. */
export async function replicatedServers(): Promise<{ primary: Server; standby: Server; database: string }> {
  const server = await privateServer()
  await server.createDatabase('gateway')
  const folder = await temporaryFolder('gateway-standby-')
  const copy = join(folder, 'data')
  await server.restart(async () => {
    await promisify(execFile)('cp', ['-a', join(server.folder, 'data'), copy])
    await Promise.all(
      ['postmaster.pid', 'postmaster.opts'].map((file) => rm(join(copy, file), { force: true })),
    )
    const { username, password, hostname, port } = new URL(server.url(''))
    await follow(copy, `host=${hostname} port=${port} user=${username} password=${password}`)
  })
  return {
    primary: await handle(server.folder, server.url('gateway'), false),
    standby: await handle(folder, server.url('gateway'), true),
    database: 'gateway',
  }
}

async function follow(data: string, conninfo: string): Promise<void> {
  await writeFile(join(data, 'standby.signal'), '')
  await appendFile(join(data, 'postgresql.auto.conf'), `\nprimary_conninfo = '${conninfo}'\n`)
}

async function handle(folder: string, someUrl: string, isToStart: boolean): Promise<Server> {
  const cluster = await openCluster(await findPlace(folder), false)
  const start = async () => void (await launch(cluster, { durable: false, connectionsMax: 100 }))
  if (isToStart) await start()
  const [pid, port] = await pidAndPort(cluster.data)
  const url = new URL(someUrl)
  url.port = port
  await answering(url.href)
  const signal = (name: NodeJS.Signals) => {
    const pids = execFileSync('ps', ['-o', 'pid=', '--ppid', pid, '-p', pid]).toString().trim().split(/\s+/)
    for (const each of pids) process.kill(Number(each), name)
  }
  return {
    host: `127.0.0.1:${port}`,
    url: url.href,
    kill: () => stopServer(cluster.data, 'SIGQUIT'),
    freeze: () => signal('SIGSTOP'),
    thaw: () => signal('SIGCONT'),
    start: async () => {
      await start()
      await answering(url.href)
    },
    startAsStandby: async () => {
      await follow(cluster.data, '')
      await start()
      await answering(url.href)
    },
    promote: async () => {
      const sql = postgres(url.href, { max: 1 })
      await sql`select pg_promote()`
      await sql.end()
    },
  }
}

async function pidAndPort(data: string): Promise<[string, string]> {
  for (;;) {
    const opened = await promisify(execFile)('head', ['-n', '4', join(data, 'postmaster.pid')]).catch(
      () => null,
    )
    const [pid, , , port] = opened?.stdout.split('\n') ?? []
    if (pid !== undefined && port !== undefined) return [pid, port]
    await pause(20)
  }
}

async function answering(url: string): Promise<void> {
  for (;;) {
    const sql = postgres(url, { max: 1, onnotice: () => {} })
    const answer = await sql`select 1`.catch(() => null)
    await sql.end({ timeout: 1 })
    if (answer !== null) return
    await pause(50)
  }
}
