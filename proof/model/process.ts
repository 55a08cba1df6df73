import { EventEmitter } from 'node:events'
import { pino } from 'pino'
import { createBank } from '../../src/bank/client.ts'
import type { Ask, Exchange, Http, Reply } from '../../src/bank/http.ts'
import { OPERATION_DEFAULTS } from '../../src/config.ts'
import type { Database } from '../../src/db/connection.ts'
import { createLive } from '../../src/events/live.ts'
import type { Gateway, OperationSettings } from '../../src/gateway.ts'
import { createInFlight } from '../../src/operation/lock.ts'
import { endpointOf, ModelBank, REFUSED, START } from './bank.ts'
import type { BankFault, Exchanged } from './bank.ts'
import { Time } from './time.ts'
import type { Life } from './time.ts'

/**
 * Processes of the gateway between a bank and a database that fail. Each process is the real core behind two wires, and
 * it can die at whatever passes over them: then nothing of it goes on, but what has left it still arrives.
 */
export const DATABASE_FAULTS = [
  'lost',
  'answerLost',
  /** A claim that takes this long is too old to send under. */
  'slow',
  /** The driver is taken to have lost it, it is said again, and then it arrives as well. */
  'silent',
] as const
export type DatabaseFault = (typeof DATABASE_FAULTS)[number]
const TRIP_MS = 4
const LOST_MS = 2
const SLOW_MS = 5_500
/** As db/pool.ts gives up. */
const SILENT_MS = 6_000
export const BROKEN = 'the connection broke'

export type World = {
  time: Time
  bank: ModelBank
  /** One connection: statements run one by one, in the order of virtual time. */
  sql: Database
  random: () => number
  databaseFaults: DatabaseFault[]
  /** What is on its way to the database, or held up. */
  trips: Set<Promise<unknown>>
  /** Deaths and pauses of processes, faults of the database: whatever may keep an answer from being written. */
  interruptions: number
  /** Pauses of processes: whoever comes back may find that even the time to say a statement again is over. */
  pauses: number
  /** What was logged as an error. */
  errors: { msg: string; err?: { message: string } }[]
}

type Link = { isCut: boolean }
export type Process = Life & {
  gateway: Gateway
  /** What happens to it when so many more events have passed over its wires. */
  trouble: { at: number; is: 'death' | 'pause' } | null
  /** By how much its machine's clock is wrong. */
  skewMs: number
  /** When it last asked for a claim. */
  claimAskedMs: number
  death: Promise<void>
  die: () => void
  /** Requests under way; the bank may notice the death. */
  links: Set<Link>
}

/** As in production, but for what FicMart waits (to spare polls) and bounds so low that a few payments reach them. */
export const SETTINGS: OperationSettings = {
  ...OPERATION_DEFAULTS,
  requestDeadlineMs: 2_000,
  recoveriesMax: 2,
}
const IN_FLIGHT_MAX = 2
const QUEUED_MAX = 0
const BREAKER = { windowMs: 10_000, callsMin: 4, healthWaitMs: 500, healthWaitMsMax: 10_000 }

export function startProcess(world: World): Process {
  const { time, random } = world
  let die = () => {}
  const death = new Promise<void>((resolve) => (die = resolve))
  const life = {
    time,
    hasEnded: false,
    trouble: null as Process['trouble'],
    skewMs: 0,
    claimAskedMs: 0,
    links: new Set<Link>(),
    death,
    die,
  }
  // The wires need the process, and the process the gateway between them.
  const process: Process = Object.assign(life, { gateway: undefined as unknown as Gateway })
  const log = pino(
    { level: 'error', base: null },
    { write: (line: string) => void world.errors.push(JSON.parse(line) as World['errors'][number]) },
  )
  process.gateway = {
    sql: databaseOf(world, process),
    bank: time.live(process, () =>
      createBank({
        baseUrl: 'http://bank',
        http: httpOf(world, process),
        maxInFlight: IN_FLIGHT_MAX,
        maxQueued: QUEUED_MAX,
        breaker: BREAKER,
        random,
        log,
      }),
    ),
    clock: {
      databaseTime: () => NOW,
      monotonicMs: () => time.nowMs,
      wallMs: () => START + time.nowMs + process.skewMs,
      sleep: (ms) => new Promise((resolve) => void time.after(ms, resolve, process)),
    },
    random,
    log,
    settings: SETTINGS,
    inFlight: createInFlight(),
    changes: new EventEmitter(),
    live: createLive(),
  }
  return process
}

/** kill -9. Whether the bank notices that its client is gone is chance. */
export function kill(world: World, process: Process): void {
  world.interruptions += 1
  process.hasEnded = true
  process.die()
  for (const link of process.links) link.isCut = world.random() < 0.5
}

/** Something passes over a wire of the process, perhaps the last thing. Resolves never when it is dead. */
async function passes(world: World, process: Process): Promise<void> {
  const { trouble } = process
  if (trouble !== null && !process.hasEnded) {
    process.trouble = trouble.at === 0 ? null : { ...trouble, at: trouble.at - 1 }
    if (trouble.at === 0 && trouble.is === 'death') kill(world, process)
    if (trouble.at === 0 && trouble.is === 'pause') {
      world.interruptions += 1
      world.pauses += 1
      await onTheWay(world, world.time.sleep(PAUSE_MS))
    }
  }
  if (process.hasEnded) await new Promise(() => {})
}

/** Until then the faults of a story have not ended. */
async function onTheWay<T>(world: World, trip: Promise<T>): Promise<T> {
  world.trips.add(trip)
  try {
    return await trip
  } finally {
    world.trips.delete(trip)
  }
}

/** Whoever comes back after this has lost its claim. */
const PAUSE_MS = 55_000

/** Stands for the time at which the statement runs, which is later than when it was written. */
const NOW = new Date(0)

/** Written, but not yet said; also a part of another statement, which is never said by itself. */
class Statement {
  readonly #text: TemplateStringsArray
  readonly #parameters: unknown[]
  readonly #say: (statement: Statement) => Promise<unknown>

  constructor(
    text: TemplateStringsArray,
    parameters: unknown[],
    say: (statement: Statement) => Promise<unknown>,
  ) {
    this.#text = text
    this.#parameters = parameters
    this.#say = say
  }

  get isClaim(): boolean {
    return this.#text.some((part) => /from claim/.test(part))
  }

  // oxlint-disable-next-line unicorn/no-thenable -- as the driver's own are.
  then(...callbacks: Parameters<Promise<unknown>['then']>): Promise<unknown> {
    return this.#say(this).then(...callbacks)
  }

  /** The driver's, of this moment. */
  at(sql: Database, now: Date): PromiseLike<unknown> {
    const parameters = this.#parameters.map((parameter) =>
      parameter instanceof Statement ? parameter.at(sql, now) : parameter === NOW ? now : parameter,
    )
    return sql(this.#text, ...(parameters as never[]))
  }
}

function databaseOf(world: World, process: Process): Database {
  const { time, sql, random } = world

  async function say(statement: Statement): Promise<unknown> {
    if (statement.isClaim) process.claimAskedMs = time.nowMs
    await passes(world, process)
    const fault = world.databaseFaults.shift()
    if (fault !== undefined) world.interruptions += 1
    const trip = fault === 'lost' ? time.sleep(LOST_MS) : onTheWay(world, run(statement, fault))
    // Whatever it is answered, nobody hears it.
    if (fault === 'silent') trip.catch(() => {})
    const rows = await (fault === 'silent' ? time.sleep(SILENT_MS) : trip)
    await passes(world, process)
    if (fault === undefined || fault === 'slow') return rows
    throw Object.assign(new Error(BROKEN), { code: 'CONNECTION_CLOSED' })
  }

  async function run(statement: Statement, fault: DatabaseFault | undefined): Promise<unknown> {
    await time.sleep(fault === 'slow' ? SLOW_MS : fault === 'silent' ? SILENT_MS + 500 : random() * TRIP_MS)
    return await time.real(() => statement.at(sql, new Date(START + time.nowMs)))
  }

  const tag = (text: TemplateStringsArray, ...parameters: unknown[]) => new Statement(text, parameters, say)
  return Object.assign(tag, { json: (value: never) => sql.json(value) }) as unknown as Database
}

function httpOf(world: World, process: Process): Http {
  const { time, bank } = world

  async function exchange(ask: Ask): Promise<Exchange> {
    const look = { claimAgeMs: time.nowMs - process.claimAskedMs, atMs: time.nowMs }
    await passes(world, process)
    const startedMs = time.nowMs
    const reply = await (ask.path === '/health'
      ? health()
      : ask.method === 'GET'
        ? bank.look(ask.path, nextFault())
        : post(ask, look))
    await passes(world, process)
    return { startedAt: new Date(START + startedMs), durationMs: Math.round(time.nowMs - startedMs), reply }
  }

  const outage = () => (time.nowMs < bank.outage.untilMs ? bank.outage.fault : null)

  async function health(): Promise<Reply> {
    if (outage() === 'refused') return REFUSED
    const isWell = bank.faults[0] !== 'unhealthy'
    if (!isWell) bank.faults.shift()
    return await bank.health(isWell)
  }

  function nextFault(): BankFault | null {
    if (outage() !== null) return outage()
    const next = bank.faults.findIndex((fault) => fault !== 'unhealthy')
    return next === -1 ? null : (bank.faults.splice(next, 1)[0] ?? null)
  }

  async function post(ask: Ask, look: { claimAgeMs: number; atMs: number }): Promise<Reply> {
    const endpoint = endpointOf(ask.path)
    if (endpoint === null) throw new Error(`the bank has no ${ask.path}`)
    const fault = nextFault()
    const exchanged: Exchanged = {
      key: ask.key ?? '',
      endpoint,
      hasBody: ask.body !== '',
      claimAgeMs: look.claimAgeMs,
      wasHeld: time.nowMs > look.atMs,
      fault,
      sentMs: time.nowMs,
      endedMs: null,
      allows: null,
      made: null,
    }
    bank.exchanges.push(exchanged)
    const link = { isCut: false }
    process.links.add(link)
    const givenUp = new Promise<Awaited<ReturnType<ModelBank['answer']>>>((resolve) => {
      const reply: Reply = { arrived: false, perhapsSent: true, code: 'TIMEOUT' }
      time.after(SETTINGS.attemptTimeoutMs, () => resolve({ allows: 'PROBE', reply }), null)
    })
    const said = await Promise.race([bank.answer(ask, exchanged, link), givenUp])
    process.links.delete(link)
    if (!process.hasEnded) Object.assign(exchanged, { endedMs: time.nowMs, allows: said.allows })
    return said.reply
  }

  return { exchange, close: () => Promise.resolve() }
}
