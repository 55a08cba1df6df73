import { fork, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { makeKey, writeKey } from '../../src/access/api-keys.ts'
import { connect } from '../../src/db/connection.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import type { EmbeddedServer } from '../../src/db/embedded.ts'
import { stopServer } from '../../src/db/embedded/postmaster.ts'
import { removeWithUs, temporaryFolder } from '../../test/support/temporary.ts'
import type { FromBank, ToBank } from './bank.ts'
import { cpuMs, residentMb } from './cpu.ts'
import type { Done, Job } from './load.ts'

/**
 * What every section needs: a Postgres of its own (fsync on), the bank and the load in processes of their own, and
 * gateways as production runs them: `dist/main.js`, NODE_ENV=production, an API key, its log into a file.
 */
export type Stage = {
  server: EmbeddedServer
  /** The receipts. */
  sql: Sql<{ bigint: number }>
  postgresCpuMs(): number
  /** Of the load and the bank. */
  besideCpuMs(): number
  bank: {
    answerAfter(ms: number, lookMs?: number): void
    count(): Promise<{ carriedOut: number; atOnceMax: number }>
  }
  /** `program`: another build of it, to be compared. */
  startGateway(env?: Record<string, string>, program?: string): Promise<RunningGateway>
  load(job: Omit<Job, 'urls' | 'apiKey'> & { gateways: readonly RunningGateway[] }): Promise<Done>
}

export type RunningGateway = {
  url: string
  startedInMs: number
  cpuMs(): number
  residentMb(): number
  end(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

export async function withStage<T>(
  work: (stage: Stage) => Promise<T>,
  { countStatements = false } = {},
): Promise<T> {
  const ends: (() => Promise<unknown>)[] = []
  try {
    return await work(await setStage(ends, countStatements))
  } finally {
    for (const end of ends.toReversed()) await end()
  }
}

const CONNECTIONS_MAX = 200

async function setStage(ends: (() => Promise<unknown>)[], countStatements: boolean): Promise<Stage> {
  const folder = await temporaryFolder('gateway-bench-')
  const options = { folder, durable: true, connectionsMax: CONNECTIONS_MAX }
  let server = await startEmbedded(options)
  removeWithUs(server.folder)
  if (countStatements) {
    const admin = connect(server.url('postgres'), ADMIN)
    await admin`alter system set shared_preload_libraries = 'pg_stat_statements'`
    await admin.end({ timeout: 5 })
    await stopServer(join(server.folder, 'data'))
    server = await startEmbedded(options)
  }
  ends.push(() => server.stop())
  await server.createDatabase('gateway')
  const sql = connect(server.url('gateway'), ADMIN)
  ends.push(() => sql.end({ timeout: 5 }))

  const bank = child('bank', ends)
  const { url: bankUrl } = await message<{ url: string }>(bank)
  const load = child('load', ends)
  await message(load)
  const { secret, key } = makeKey('bench', 'service')

  return {
    server,
    sql,
    postgresCpuMs: () => cpuMs(server.pid),
    besideCpuMs: () => [bank, load].reduce((sum, { pid }) => sum + (pid === undefined ? 0 : cpuMs(pid)), 0),
    bank: {
      answerAfter: (answerAfterMs, lookMs = 0) => void bank.send({ answerAfterMs, lookMs } satisfies ToBank),
      count: async () => {
        const counted = message<Extract<FromBank, { carriedOut: number }>>(bank)
        bank.send('count' satisfies ToBank)
        return await counted
      },
    },
    startGateway: async (env = {}, program = 'dist/main.js') => {
      const gateway = await startGateway(program, join(folder, `gateway-${ends.length}.log`), {
        DATABASE_URL: server.url('gateway'),
        BANK_URL: bankUrl,
        API_KEYS: writeKey(key),
        // One client stands for all of FicMart here.
        CLIENT_REQUESTS_PER_SECOND_MAX: '1000000',
        DATA_FOLDER: folder,
        ...env,
      })
      ends.push(() => gateway.end())
      return gateway
    },
    load: async ({ gateways, ...job }) => {
      const answer = message<{ done?: Done; error?: string }>(load)
      load.send({ ...job, urls: gateways.map(({ url }) => url), apiKey: secret } satisfies Job)
      const { done, error } = await answer
      if (done === undefined) throw new Error(`the load failed: ${error}`)
      return done
    },
  }
}

const ADMIN = { connectionsMax: 2, statementTimeoutMs: 3_600_000 }

/** Throws when something was refused: a figure with failures in it is none. */
export function allWell(done: Done): Done {
  if (done.failed > 0)
    throw new Error(`${done.failed} of ${done.count + done.failed} failed: ${done.failure}`)
  return done
}

function child(name: 'bank' | 'load', ends: (() => Promise<unknown>)[]): ChildProcess {
  const started = fork(new URL(`./${name}.js`, import.meta.url), [], { execArgv: [] })
  ends.push(async () => {
    const gone = once(started, 'exit')
    started.kill('SIGKILL')
    await gone
  })
  return started
}

async function message<T>(from: ChildProcess): Promise<T> {
  const over = new AbortController()
  try {
    const gone = once(from, 'exit', { signal: over.signal }).then(() => {
      throw new Error('a process of the benchmark has ended by itself')
    })
    const told = once(from, 'message', { signal: over.signal })
    const [answer] = (await Promise.race([told, gone])) as [T]
    return answer
  } finally {
    over.abort()
  }
}

const READY_WITHIN_MS = 60_000
const LOOK_EVERY_MS = 5

/** Its log goes into a file: what reads it would take of the CPU that is measured. */
async function startGateway(
  program: string,
  log: string,
  env: Record<string, string>,
): Promise<RunningGateway> {
  const startedMs = performance.now()
  const file = openSync(log, 'w')
  const flags = [...flagsOfStart(), ...(process.env['BENCH_NODE_FLAGS']?.split(' ') ?? [])]
  const started = spawn(process.execPath, [...flags, program], {
    env: {
      PATH: process.env['PATH'],
      NODE_ENV: 'production',
      PORT: '0',
      npm_lifecycle_event: 'bench',
      ...env,
    },
    stdio: ['ignore', file, file],
  })
  closeSync(file)
  running.add(started)
  const exited = once(started, 'exit').then(() => running.delete(started))
  for (;;) {
    const [, url] = /"url":"([^"]+)".*"msg":"ready"/.exec(readFileSync(log, 'utf8')) ?? []
    const { pid } = started
    if (url !== undefined && pid !== undefined) {
      return {
        url,
        startedInMs: performance.now() - startedMs,
        cpuMs: () => cpuMs(pid),
        residentMb: () => residentMb(pid),
        end: async (signal = 'SIGTERM') => {
          started.kill(signal)
          await exited
        },
      }
    }
    if (started.exitCode !== null || performance.now() - startedMs > READY_WITHIN_MS)
      throw new Error(`the gateway does not start: ${readFileSync(log, 'utf8')}`)
    await pause(LOOK_EVERY_MS)
  }
}

/** Node's, as `npm start` has them. */
function flagsOfStart(): string[] {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: { start: string } }
  const [, flags] = /^exec node (.*) dist\/main\.js$/.exec(scripts.start) ?? []
  if (flags === undefined) throw new Error(`what is "${scripts.start}"?`)
  return flags.split(' ')
}

const running = new Set<ChildProcess>()
process.once('exit', () => running.forEach((gateway) => gateway.kill('SIGKILL')))
