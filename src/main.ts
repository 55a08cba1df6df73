import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { openAccess } from './access/access.ts'
import { createBank } from './bank/client.ts'
import { readConfig, StartRefused } from './config.ts'
import type { Config } from './config.ts'
import { connect } from './db/connection.ts'
import { examine } from './db/examine.ts'
import { migrate } from './db/migrate.ts'
import { createLive, startLive } from './events/live.ts'
import { recordAsConfigured, startWebhooks } from './events/webhooks.ts'
import { systemClock } from './gateway.ts'
import type { Gateway } from './gateway.ts'
import { httpServer } from './graphql/http.ts'
import { createServer } from './graphql/server.ts'
import { createLogger } from './log.ts'
import { commitsAtRisk, watchProcess } from './observe/metrics.ts'
import { startTracing } from './observe/tracing.ts'
import { createInFlight, drained } from './operation/lock.ts'
import { listen, stopRequested } from './process.ts'
import { startHistory } from './recovery/history.ts'
import { startReconciler } from './recovery/reconcile/schedule.ts'
import { startSweeper } from './recovery/sweep.ts'
import { leaver } from './shutdown.ts'
import { databaseTrouble, startWhatIsMissing } from './stand-ins.ts'
import type { Stop } from './stand-ins.ts'
import { printable } from './terminal.ts'
import { welcome } from './welcome.ts'

/**
 * The composition root: environment, database, bank, server, signals. What the environment does not name is started
 * here, so that a machine with nothing on it has a Postgres and a bank. All of it is stopped in the opposite order.
 */
async function main(): Promise<void> {
  const stops: Stop[] = []
  let reason = 'the start failed'
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
      process.stdout.write(printable(welcome({ ...places, startedInMs: performance.now() - startedMs })))
    log.info({ url: places.url, bank: places.bankUrl }, 'ready')
    reason = await stopped
    log.info({ reason }, 'stopping: nothing more is sent to the bank, what is there is settled')
  } catch (error) {
    if (!(error instanceof StartRefused)) throw error
    process.stderr.write(`${printable(error.message)}\n`)
    process.exitCode = 1
  } finally {
    for (const stop of stops.toReversed()) {
      await stop(reason).catch((error: unknown) =>
        process.stderr.write(`while stopping: ${printable(String(error))}\n`),
      )
    }
  }
}

async function start(config: Config, log: Logger, stops: Stop[]) {
  const { whoAsks, isOpen, close } = await openAccess(config.access, log)
  stops.push(async () => close())
  const { databaseUrl, bankUrl } = await startWhatIsMissing(config, stops)

  const { databaseConnectionsMax: connectionsMax, databaseStatementTimeoutMs: statementTimeoutMs } = config
  await examine(databaseUrl, statementTimeoutMs).catch(refuseStart)
  const sql = connect(databaseUrl, { connectionsMax, statementTimeoutMs })
  stops.push(() => sql.end({ timeout: 1 }))
  const newer = await migrate(sql, config.production).catch(refuseStart)
  if (newer.length > 0) log.error({ files: newer }, NEWER_FUNCTIONS)

  const bank = createBank({
    baseUrl: bankUrl,
    attemptTimeoutMs: config.operation.attemptTimeoutMs,
    maxInFlight: config.bankInFlightMax,
    maxQueued: config.bankQueueMax,
    log,
  })
  // What had to be waited for has been; an attempt may last longer than we may.
  stops.push(() => Promise.race([bank.close(), systemClock.sleep(LAST_EXCHANGES_MS)]))
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
  const history = await startHistory(gateway, join(config.dataFolder, 'history.json')).catch(refuseStart)
  stops.push(() => history.stop())
  if (config.production) await warnOfCommitsAtRisk(log)
  const { rateLimits, corsOrigins } = config
  const http = httpServer(createServer(gateway, { whoAsks, rateLimits, corsOrigins }))
  // Apart from the payments' connections: they shall not wait for a queue of webhooks.
  const eventsSql = connect(databaseUrl, { connectionsMax: EVENTS_CONNECTIONS, statementTimeoutMs })
  stops.push(() => eventsSql.end({ timeout: 0 }))
  await recordAsConfigured({ ...gateway, sql: eventsSql }, config.webhook).catch(refuseStart)
  const live = await startLive(gateway, eventsSql)
  const leave = leaver(http)
  const port = await listen(http, config.host, config.port)
  const sweeper = startSweeper(gateway, config.sweepEveryMs)
  const webhooks = startWebhooks({ ...gateway, sql: eventsSql }, config.webhook)
  const reconciler = startReconciler(gateway, { everyHours: config.reconcileEveryHours })
  const stopRecovery = async () => {
    await Promise.all([sweeper.stop(), webhooks.stop(), reconciler.stop(), drained(gateway.inFlight)])
  }
  // A person at a terminal has no load balancer to wait for.
  const delayMs = (reason: string) => (reason === 'SIGTERM' ? config.shutdownDelayMs : 0)
  const endStreams = () => live.stop()
  stops.push((reason) => leave(gateway, { delayMs: delayMs(reason), stopRecovery, endStreams }))
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

function refuseStart(error: unknown): never {
  throw new StartRefused(`${databaseTrouble(error)} Nothing was started.`)
}

async function warnOfCommitsAtRisk(log: Logger): Promise<void> {
  const { values } = await commitsAtRisk.get()
  const risks = values.filter(({ value }) => value === 1).map(({ labels }) => labels['risk'])
  if (risks.length > 0) log.warn({ risks }, COMMITS_AT_RISK)
}

const COMMITS_AT_RISK =
  'the database can lose commits that it has confirmed: after a crash or a failover the bank may know payments that no receipt knows (docs/scaling.md, docs/operations.md)'
const NEWER_FUNCTIONS =
  'the database has functions of a later release, and they are left as they are; to go back for good, see docs/operations.md'
/** And one more that only listens. */
const EVENTS_CONNECTIONS = 2
const LAST_EXCHANGES_MS = 500

main().then(
  // An orphaned timer or socket must not keep a stopped gateway alive.
  () => process.exit(),
  (error: unknown) => {
    const said = error instanceof Error ? (error.stack ?? error.message) : String(error)
    process.stderr.write(`${printable(said)}\n`)
    process.exit(1)
  },
)
