import { EventEmitter } from 'node:events'
import type { Server } from 'node:http'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { openAccess } from './access/access.ts'
import { createBank } from './bank/client.ts'
import { readConfig, StartRefused } from './config.ts'
import type { Config } from './config.ts'
import { connect } from './db/connection.ts'
import { startEmbedded } from './db/embedded.ts'
import { migrate } from './db/migrate.ts'
import { createLive, startLive } from './events/live.ts'
import { startWebhooks } from './events/webhooks.ts'
import { systemClock } from './gateway.ts'
import type { Gateway } from './gateway.ts'
import { httpServer } from './graphql/http.ts'
import { createServer } from './graphql/server.ts'
import { createLogger } from './log.ts'
import { watchProcess } from './observe/metrics.ts'
import { startTracing } from './observe/tracing.ts'
import { createInFlight, drained } from './operation/lock.ts'
import { listen, stopRequested } from './process.ts'
import { startSweeper } from './recovery/sweep.ts'
import { welcome } from './welcome.ts'

/**
 * The composition root: environment, database, bank, server, signals. What the environment does not name is started
 * here, so that a machine with nothing on it has a Postgres and a bank. All of it is stopped in the opposite order.
 */
async function main(): Promise<void> {
  const stops: Stop[] = []
  try {
    const config = readConfig(process.env)
    const log = await createLogger(config.logLevel, process.stdout.isTTY && !config.production)
    watchProcess()
    const tracing = await startTracing(process.env, log)
    stops.push(() => tracing.stop())
    const stopped = stopRequested()
    const startedMs = performance.now()
    const places = await start(config, log, stops)
    if (!config.production)
      process.stdout.write(welcome({ ...places, startedInMs: performance.now() - startedMs }))
    log.info({ url: places.url, bank: places.bankUrl }, 'ready')
    const reason = await stopped
    log.info({ reason }, 'stopping: nothing more is sent to the bank, what is there is settled')
  } catch (error) {
    if (!(error instanceof StartRefused)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  } finally {
    for (const stop of stops.toReversed()) {
      await stop().catch((error: unknown) => process.stderr.write(`while stopping: ${String(error)}\n`))
    }
  }
}

type Stop = () => Promise<unknown>

async function start(config: Config, log: Logger, stops: Stop[]) {
  const { whoAsks, isOpen, close } = await openAccess(config.access, log)
  stops.push(async () => close())
  const { databaseUrl, bankUrl } = await startWhatIsMissing(config, stops)

  const { databaseConnectionsMax: connectionsMax, databaseStatementTimeoutMs: statementTimeoutMs } = config
  const sql = connect(databaseUrl, { connectionsMax, statementTimeoutMs })
  stops.push(() => sql.end({ timeout: 5 }))
  await migrate(sql).catch((error: unknown) => {
    throw new StartRefused(`${databaseTrouble(error)} Check DATABASE_URL. Nothing was started.`)
  })

  const bank = createBank({
    baseUrl: bankUrl,
    attemptTimeoutMs: config.operation.attemptTimeoutMs,
    maxInFlight: config.bankInFlightMax,
    maxQueued: config.bankQueueMax,
    log,
  })
  stops.push(() => bank.close())
  const { healthy } = await bank.healthy()
  if (!healthy) {
    log.warn(
      `The bank at ${bankUrl} does not answer. Payments are refused with BANK_UNAVAILABLE until it does; check BANK_URL.`,
    )
  }

  const gateway: Gateway = {
    sql,
    bank,
    clock: systemClock,
    random: Math.random,
    log,
    settings: config.operation,
    inFlight: createInFlight(),
    changes: new EventEmitter(),
    live: createLive(),
  }
  const { rateLimits, corsOrigins } = config
  const http = httpServer(createServer(gateway, { whoAsks, rateLimits, corsOrigins }))
  // Apart from the payments' connections: they shall not wait for a queue of webhooks.
  const eventsSql = connect(databaseUrl, { connectionsMax: EVENTS_CONNECTIONS, statementTimeoutMs })
  stops.push(() => eventsSql.end({ timeout: 0 }))
  const live = await startLive(gateway, eventsSql)
  stops.push(() => Promise.all([live.stop(), closeHttp(http)]))
  const port = await listen(http, config.host, config.port)
  const sweeper = startSweeper(gateway, config.sweepEveryMs)
  const webhooks = await startWebhooks({ ...gateway, sql: eventsSql }, config.webhook)
  stops.push(async () => {
    gateway.inFlight.draining = true
    await Promise.race([
      Promise.all([drained(gateway.inFlight), sweeper.stop(), webhooks.stop()]),
      systemClock.sleep(DRAIN_MS),
    ])
  })
  const host = config.host.includes(':') ? `[${config.host}]` : config.host
  return {
    url: `http://${host === '0.0.0.0' || host === '127.0.0.1' ? 'localhost' : host}:${port}`,
    bankUrl,
    databaseUrl,
    isSimulated: config.bankUrl === null,
    isEmbedded: config.databaseUrl === null,
    isOpen,
  }
}

/** And one more that only listens. */
const EVENTS_CONNECTIONS = 2
/** One attempt at the bank, and settling it. */
const DRAIN_MS = 23_000

/** Answers that are being written get out; idle keep-alive connections are not waited for. */
async function closeHttp(http: Server): Promise<void> {
  const closed = new Promise((done) => http.close(done))
  http.closeIdleConnections()
  await Promise.race([closed, systemClock.sleep(LAST_ANSWERS_MS)])
  http.closeAllConnections()
}

const LAST_ANSWERS_MS = 1_000

/** An embedded Postgres and the simulator stand in for what has no URL; production has refused to come here without. */
async function startWhatIsMissing(
  config: Config,
  stops: Stop[],
): Promise<{ databaseUrl: string; bankUrl: string }> {
  let { databaseUrl, bankUrl } = config
  if (databaseUrl !== null && bankUrl !== null) return { databaseUrl, bankUrl }
  const server = await startEmbedded({ folder: join(config.dataFolder, 'postgres'), durable: true }).catch(
    (error: unknown) => {
      throw new StartRefused(error instanceof Error ? error.message : String(error))
    },
  )
  stops.push(() => server.stop())
  if (databaseUrl === null) {
    await server.createDatabase('gateway')
    databaseUrl = server.url('gateway')
  }
  if (bankUrl === null) {
    await server.createDatabase('bank')
    const { startSimulator } = await import('./simulator/simulator.ts')
    const { port, ...settings } = config.simulator
    const simulator = await startSimulator({ databaseUrl: server.url('bank'), port, settings }).catch(
      (error: unknown) => {
        throw new StartRefused(
          `The simulated bank cannot listen on port ${port} (${String(Object(error).code)}). Stop what listens there, or choose another with SIMULATOR_PORT.`,
        )
      },
    )
    stops.push(() => simulator.close())
    bankUrl = simulator.url
  }
  return { databaseUrl, bankUrl }
}

/** Never the URL: it holds the password. */
function databaseTrouble(error: unknown): string {
  const { code, message } = Object(error) as { code?: unknown; message?: unknown }
  switch (code) {
    case 'ECONNREFUSED':
    case 'CONNECT_TIMEOUT':
      return 'No Postgres answers at the host and port of DATABASE_URL.'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'The host of DATABASE_URL is not known.'
    case '28P01':
    case '28000':
      return 'Postgres refuses the user or the password of DATABASE_URL.'
    case '3D000':
      return 'The database that DATABASE_URL names does not exist.'
    case '42501':
      return 'The user of DATABASE_URL may not create tables.'
    default:
      return `The database could not be prepared: ${String(message)}.`
  }
}

main().then(
  // An orphaned timer or socket must not keep a stopped gateway alive.
  () => process.exit(),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    process.exit(1)
  },
)
