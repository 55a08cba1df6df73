import { randomUUID } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { userInfo } from 'node:os'
import { basename } from 'node:path'
import { parseArgs } from 'node:util'
import { createBank } from './bank/client.ts'
import { readConfig, StartRefused } from './config.ts'
import { connect } from './db/connection.ts'
import { examine } from './db/examine.ts'
import { migrate } from './db/migrate.ts'
import { createLive } from './events/live.ts'
import { systemClock } from './gateway.ts'
import type { Gateway } from './gateway.ts'
import { createLogger } from './log.ts'
import { createInFlight } from './operation/lock.ts'
import { reconciliationId } from './payment/ids.ts'
import { stopRequested } from './process.ts'
import { reconcile } from './recovery/reconcile.ts'
import type { Discrepancy } from './recovery/reconcile/discrepancy.ts'
import { mend } from './recovery/reconcile/mend.ts'
import { progressLine, report } from './recovery/reconcile/report.ts'
import { pageOfDiscrepancies, pageOfReconciliations } from './recovery/reconcile/reads.ts'
import { begin, underWay } from './recovery/reconcile/begin.ts'
import type { NewRun } from './recovery/reconcile/begin.ts'
import { EndsEarly, stop, takeUp } from './recovery/reconcile/runs.ts'
import type { Held, Reconciliation } from './recovery/reconcile/runs.ts'
import { DAYS_BY_DEFAULT, DAYS_MAX } from './recovery/reconcile/schedule.ts'
import { StatementRefused } from './recovery/reconcile/statement-file.ts'
import { databaseTrouble, startWhatIsMissing } from './stand-ins.ts'
import type { Stop } from './stand-ins.ts'
import { printable } from './terminal.ts'

/**
 * `npm run reconcile`: compares the receipts with the bank, in the environment of the gateway and beside it, and says
 * what differs. Exit code 0: all agree (or was mended), 1: discrepancies, 2: it could not be done, or not to its end.
 */
const USAGE = `npm run reconcile -- [options]

  by GET (the default): asks the bank for every id that the receipts of the last days have
    --days N           operations asked for in the last N days (${DAYS_BY_DEFAULT})
  by statement: compares the bank's ledger, a CSV file with the columns type, id, reference_id, amount, status, time,
  or its own table, exported as docs/operations.md says
    --statement FILE
    --mend             do what is certain: enter ids that only the receipt lacks (the bank confirms them first)
  --resume             go on with the last run that was stopped, where it was
`

type Options = { days: number; statement: string | null; mend: boolean; resume: boolean }

/** Null: the usage was asked for. */
function readOptions(): Options | null {
  const { values } = parseArgs({
    options: {
      days: { type: 'string', default: String(DAYS_BY_DEFAULT) },
      statement: { type: 'string' },
      mend: { type: 'boolean', default: false },
      resume: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const { statement = null, mend, resume, help } = values
  const days = Number(values.days)
  if (!(days > 0 && days <= DAYS_MAX))
    throw new StartRefused(`--days must be a number of days, up to ${DAYS_MAX}.`)
  if (mend && statement === null)
    throw new StartRefused('--mend needs --statement FILE: only a statement has ids to enter.')
  return help ? null : { days, statement, mend, resume }
}

async function main(): Promise<number> {
  const stops: Stop[] = []
  try {
    const options = readOptions()
    if (options === null) {
      process.stdout.write(USAGE)
      return 0
    }
    // Heard from the start: what was begun by then is ended in order.
    const stopping = new AbortController()
    void stopRequested().then(() => stopping.abort())
    return await reconcileHere(await gatewayBeside(stops), options, stopping.signal)
  } finally {
    for (const stop of stops.toReversed()) await stop('done').catch(() => undefined)
  }
}

/** All of a gateway but its server and its sweep. Its places at the bank are its own, so that they are few. */
async function gatewayBeside(stops: Stop[]): Promise<Gateway> {
  const config = readConfig(process.env)
  const beside = { ...config, simulator: { ...config.simulator, port: 0 } }
  const places = await startWhatIsMissing(beside, stops, { joins: true })
  const log = await createLogger('silent', false)
  const { databaseStatementTimeoutMs: statementTimeoutMs } = config
  const refuse = (error: unknown): never => {
    throw new StartRefused(`${databaseTrouble(error)} Nothing was compared.`)
  }
  await examine(places.databaseUrl, statementTimeoutMs).catch(refuse)
  const sql = connect(places.databaseUrl, { connectionsMax: CONNECTIONS_MAX, statementTimeoutMs })
  stops.push(() => sql.end({ timeout: 5 }))
  await migrate(sql, config.production).catch(refuse)
  const bank = createBank({
    baseUrl: places.bankUrl,
    attemptTimeoutMs: config.operation.attemptTimeoutMs,
    maxInFlight: BANK_IN_FLIGHT_MAX,
    log,
  })
  stops.push(() => bank.close())
  const { operation: settings } = config
  return {
    sql,
    bank,
    clock: systemClock,
    random: Math.random,
    log,
    settings,
    inFlight: createInFlight(),
    // Nobody follows anything here; the gateways see what is mended when they look.
    changes: new EventEmitter(),
    live: createLive(),
  }
}

/** The batches, and beside them the lease. */
const CONNECTIONS_MAX = 2
const BANK_IN_FLIGHT_MAX = 32

async function reconcileHere(gateway: Gateway, options: Options, signal: AbortSignal): Promise<number> {
  const actor = `cli:${userInfo().username}`
  if (options.statement === null && !options.resume && !(await gateway.bank.healthy()).healthy)
    throw new StartRefused(
      'The bank does not answer, or says that it is not well. Check BANK_URL. Nothing was compared.',
    )
  const held = options.resume ? await lastStopped(gateway) : await beginHere(gateway, options, actor)
  const progress = progressOn(process.stderr)
  const { run, code } = await reconcile(gateway, held, options.statement, {
    signal,
    onProgress: (run, lines) => progress.show(progressLine(run, lines)),
  })
    .then(
      (run) => ({ run, code: run.found > 0 ? 1 : 0 }),
      (error: unknown) => endEarly(gateway, held, error),
    )
    .finally(() => progress.clear())

  const notMended = options.mend && run.finishedAt !== null ? await mendAll(gateway, run, actor) : null
  const shown = (await pageOfDiscrepancies(gateway, run.id, { first: SHOWN_MAX, after: null })).slice(
    0,
    SHOWN_MAX,
  )
  process.stdout.write(printable(report(run, shown, notMended ?? new Map<string, string>())))
  if (run.finishedAt === null)
    process.stdout.write('\nTo go on where it was: npm run reconcile -- --resume\n')
  return notMended?.size === 0 ? 0 : code
}

/** More fill no screen; the API has them all. */
const SHOWN_MAX = 200
const PAGE = 100

async function beginHere(gateway: Gateway, { days, statement }: Options, actor: string): Promise<Held> {
  const about: NewRun =
    statement === null
      ? { kind: 'GET', actor, days }
      : { kind: 'STATEMENT', actor, source: basename(statement) }
  const token = randomUUID()
  const answer = await begin(gateway, about, token)
  const run = 'begun' in answer ? await takeUp(gateway, answer.begun.id, token) : null
  if (run !== null) return run
  throw new StartRefused(underWayAlready('begun' in answer ? answer.begun : answer.underWay))
}

function underWayAlready({ id, actor, startedAt }: Reconciliation): string {
  return `A reconciliation is under way: ${reconciliationId(id)}, begun by ${actor} at ${startedAt.toISOString()}. One at a time; nothing was begun.`
}

async function lastStopped(gateway: Gateway): Promise<Held> {
  const [last] = await pageOfReconciliations(gateway, { first: 1, after: null })
  if (last === undefined || last.finishedAt !== null)
    throw new StartRefused('There is no reconciliation that was stopped. Begin one without --resume.')
  const run = await takeUp(gateway, last.id)
  if (run === null) throw new StartRefused(underWayAlready((await underWay(gateway)) ?? last))
  return run
}

/** What it had found is shown all the same. */
async function endEarly(
  gateway: Gateway,
  held: Held,
  error: unknown,
): Promise<{ run: Reconciliation; code: number }> {
  const note = error instanceof Error ? error.message : String(error)
  const isExpected = error instanceof EndsEarly || error instanceof StatementRefused
  const stopped = await stop(gateway, held.id, isExpected ? note : 'It met a fault.', held.holder)
  if (error instanceof StatementRefused) throw new StartRefused(note)
  if (!(error instanceof EndsEarly)) throw error
  return { run: stopped ?? { ...held, note }, code: error.because === 'BANK_RESET' ? 1 : 2 }
}

/** Resolves with those that remain, and why. */
async function mendAll(
  gateway: Gateway,
  { id }: Reconciliation,
  actor: string,
): Promise<Map<string, string>> {
  const remain = new Map<string, string>()
  for (let after: string | null = null; ;) {
    const page: Discrepancy[] = await pageOfDiscrepancies(gateway, id, { first: PAGE, after })
    for (const one of page.slice(0, PAGE)) {
      const why = await mend(gateway, one, actor)
      if (why !== null) remain.set(one.id, why)
    }
    if (page.length <= PAGE) return remain
    after = page[PAGE - 1]?.id ?? null
  }
}

/** In place on a terminal; elsewhere now and then a line. */
function progressOn(stream: NodeJS.WriteStream): { show(text: string): void; clear(): void } {
  let nextMs = 0
  return {
    show: (said) => {
      const text = printable(said)
      const nowMs = performance.now()
      if (nowMs < nextMs) return
      nextMs = nowMs + (stream.isTTY ? PROGRESS_TTY_MS : PROGRESS_MS)
      stream.write(stream.isTTY ? `${LINE_START}${text.slice(0, stream.columns - 1)}` : `${text}\n`)
    },
    clear: () => {
      if (stream.isTTY) stream.write(LINE_START)
    },
  }
}

const PROGRESS_TTY_MS = 100
const PROGRESS_MS = 5_000
/** Back to the first column, and the line cleared. */
const LINE_START = '\r\u001B[2K'

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    const isOurs = error instanceof StartRefused || isOfParseArgs(error)
    const said = isOurs ? (error as Error).message : error instanceof Error ? error.stack : String(error)
    process.stderr.write(`${printable(said ?? '')}\n`)
    process.exit(2)
  },
)

function isOfParseArgs(error: unknown): boolean {
  return String(Object(error).code).startsWith('ERR_PARSE_ARGS')
}
