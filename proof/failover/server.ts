import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { openCluster } from '../../src/db/embedded/cluster.ts'
import type { Cluster } from '../../src/db/embedded/cluster.ts'
import { findPlace } from '../../src/db/embedded/place.ts'
import { launch, runningServer, stopServer } from '../../src/db/embedded/postmaster.ts'
import type { Launched } from '../../src/db/embedded/postmaster.ts'
import { removeWithUs, temporaryFolder } from '../../test/support/temporary.ts'
import { rowsOf } from '../soak/stage.ts'

/** A Postgres server of a pair. The package has initdb and postgres only, so a copy is one of the stopped server's files. */
export type Server = {
  /** Only once it has been started. */
  url(database: string): string
  /** As a standby where it was made one. On the port of the last time, a copy on that of its original, if it is free. */
  start(): Promise<void>
  stop(): Promise<void>
  /** SIGKILL to all of its processes at once, as when its machine is gone. */
  kill(): Promise<void>
  /** Of the stopped server, as a server of its own. */
  copy(): Promise<Server>
  /** Makes these data a standby's, which follows `primary` under this name. */
  follow(primary: Server, name: string): Promise<void>
  output(): Promise<string>
}

export async function newServer(durable: boolean): Promise<Server> {
  const place = await findPlace(await temporaryFolder('gateway-failover-'))
  removeWithUs(place.folder)
  return serverOn(await openCluster(place, durable), durable)
}

function serverOn(cluster: Cluster, durable: boolean): Server {
  let port = 0
  const url = (database: string) =>
    `postgres://${cluster.role}:${cluster.password}@127.0.0.1:${port}/${database}`
  return {
    url,
    start: async () => {
      let launched: Launched | null = null
      for (const untilMs = performance.now() + START_TIMEOUT_MS; performance.now() < untilMs;) {
        const running = await runningServer(cluster.data)
        if (running !== null) {
          port = running.port
          if ((await rowsOf(url('postgres'), 'select')) !== null) return
        } else if (launched === null || launched.isOver()) {
          launched = await launch(cluster, { durable, connectionsMax: CONNECTIONS_MAX })
        }
        await pause(POLL_MS)
      }
      throw new Error(`A Postgres server did not start: ${await launched?.lastWords()}`)
    },
    stop: () => stopServer(cluster.data),
    kill: async () => {
      const running = await runningServer(cluster.data)
      if (running === null) return
      await killAll(running.pid)
      while ((await runningServer(cluster.data)) !== null) await pause(POLL_MS)
    },
    copy: async () => {
      const folder = await temporaryFolder('gateway-failover-')
      const data = join(folder, 'data')
      await promisify(execFile)('cp', ['-a', cluster.data, data])
      return serverOn({ ...cluster, data, log: join(folder, 'postgres.log') }, durable)
    },
    output: () => readFile(cluster.log, 'utf8'),
    follow: async (primary, name) => {
      const { username, password, port: primaryPort } = new URL(primary.url('postgres'))
      const conninfo = `host=127.0.0.1 port=${primaryPort} user=${username} password=${password} application_name=${name}`
      const file = join(cluster.data, 'postgresql.auto.conf')
      const settings = await readFile(file, 'utf8')
      await writeFile(file, `${settings}primary_conninfo = '${conninfo}'\nprimary_slot_name = '${name}'\n`)
      await writeFile(join(cluster.data, 'standby.signal'), '')
    },
  }
}

const START_TIMEOUT_MS = 30_000
const POLL_MS = 10
const CONNECTIONS_MAX = 200

/** The postmaster first, so that it starts none again. */
async function killAll(postmaster: number): Promise<void> {
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'pid=,ppid='])
  const children = stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, parent]) => parent === postmaster)
    .map(([pid = 0]) => pid)
  for (const pid of [postmaster, ...children]) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** Where a busy machine is late the statement is said again; one that is refused over and over is an error. */
export async function rowsSoon(url: string, statement: string): Promise<Record<string, unknown>[]> {
  for (const untilMs = performance.now() + START_TIMEOUT_MS; ; await pause(POLL_MS)) {
    const rows = await rowsOf(url, statement)
    if (rows !== null) return rows
    if (performance.now() > untilMs) throw new Error(`A Postgres server refuses: ${statement}`)
  }
}
