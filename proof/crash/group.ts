import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import type { Sql } from 'postgres'
import type { Simulator } from '../../src/simulator/simulator.ts'
import type { Answered, Client } from '../../test/support/client.ts'
import { startGatewayProcess } from '../../test/support/gateway-process.ts'
import { startPostgresWire } from '../support/postgres-wire.ts'
import { startReceiver } from '../support/receiver.ts'
import type { Receiver } from '../support/receiver.ts'
import type { Cell } from './cells.ts'
import { prepare, sendOff } from './course.ts'
import type { Course, Setting } from './course.ts'
import { evidenceOf, isConverged, isFinal, standings, violationsOf } from './judge.ts'
import type { Evidence } from './judge.ts'

/** Cells that die together. */
export type Group = { name: string; processes: 1 | 2; cells: Cell[]; begun: number; random: () => number }

export type Place = {
  bank: Simulator
  newDatabase: (name: string) => Promise<Receipts>
  /** On a server of its own. */
  newServer: () => Promise<Receipts & { kill: () => Promise<void>; start: () => Promise<void> }>
}
type Receipts = { url: string; drop: () => Promise<void> }

export type Outcome = {
  cell: Cell
  /** From when the process was there again, or with two processes from the death. Null: it never did. */
  convergedMs: number | null
  violations: string[]
  evidence: Evidence
}

/** A tenth of the defaults: the lease is 5 s. */
const SCALE = 10
const SETTINGS = {
  BANK_ATTEMPT_TIMEOUT_MS: '2000',
  BANK_QUIET_PERIOD_MS: '3000',
  BANK_CONFIRM_AFTER_MS: '100',
  RECOVER_AFTER_MS: '500',
  REQUEST_DEADLINE_MS: '1000',
  SWEEP_EVERY_MS: '300',
}
/** The lease and 30 s, scaled. */
export const CONVERGED_WITHIN_MS = (50_000 + 30_000) / SCALE
/** Past the attempt's timeout it is no longer the crash that is seen. */
const ARRIVE_MS = 1_800
const DOWN_MS_MAX = 500
/** A few sweeps. */
const AFTERMATH_MS = 1_000
const POLL_MS = 50
/** What does not converge in time is watched a while longer: was it late, or lost? */
const PATIENCE_MS = 30_000

/**
 * One gateway process is brought to each cell's point on the wires, every request held there, and killed with SIGKILL.
 * What was under way is let go: the bank sees the connection end, a statement is lost or comes late. Then the process
 * is started again, or the other one takes over, and those clients repeat that do. All must converge by themselves.
 * Where Postgres dies instead, the gateway lives on, and the server is started again.
 *
 * Null when the machine was too busy to bring them there before a timeout of the gateway's own came first.
 */
export async function runGroup(
  { name, processes, cells, random }: Group,
  { bank, newDatabase, newServer }: Place,
  show: (stage: string) => void,
): Promise<Outcome[] | null> {
  const server = cells.some(({ dies }) => dies === 'Postgres') ? await newServer() : null
  const database = server ?? (await newDatabase(name))
  const receiver = cells.some(({ scene }) => scene === 'webhook') ? await startReceiver() : null
  const openSql = () => postgres(database.url, { max: 2, onnotice: () => {}, transform: postgres.camel })
  let sql = openSql()
  const wire = await startPostgresWire(database.url)
  const ends: (() => Promise<unknown>)[] = [
    () => wire.close(),
    async () => await receiver?.close(),
    () => sql.end({ timeout: 1 }),
    () => database.drop(),
  ]
  const start = async (url: string, settings = SETTINGS) => {
    const env = { ...settings, ...receiver?.env, DATABASE_URL: url, BANK_URL: bank.url }
    const gateway = await startGatewayProcess(env)
    ends.unshift(() => gateway.end('SIGKILL'))
    return gateway
  }
  try {
    show('starting')
    const [victim, other] = await Promise.all([
      // Its clients are still waiting when it dies.
      start(wire.url, { ...SETTINGS, REQUEST_DEADLINE_MS: '10000', SWEEP_EVERY_MS: '60' }),
      processes === 2 ? start(database.url) : null,
    ])
    show('bringing each request to its point')
    const { url: gatewayUrl, client: by } = victim
    const courses = await bringToPoints(cells, { gatewayUrl, by, wire, bank, sql, receiver })
    await (server === null ? victim.end('SIGKILL') : server.kill())
    if (courses === null) return null
    const diedMs = performance.now()
    await Promise.all(courses.map(async ({ trap }) => await trap.letGo()))

    show('recovering')
    if (other === null) await pause(random() * DOWN_MS_MAX)
    if (server !== null) {
      await server.start()
      await sql.end({ timeout: 0 }).catch(() => null)
      sql = openSql()
    }
    const successor = server === null ? (other ?? (await start(database.url))) : victim
    const sinceMs = other === null ? performance.now() : diedMs
    const [convergedAtMs, answers] = await Promise.all([
      converge(cells, sql),
      Promise.all(courses.map(async (course) => await repeat(course, successor.client))),
    ])
    await Promise.all(courses.map(async ({ trap }) => await trap.last?.()))
    if (receiver !== null) await allTold(receiver, sql)
    // Nothing may move any more.
    await pause(AFTERMATH_MS)
    return await Promise.all(
      courses.map(async ({ cell, first }, index) => {
        const told = { first: await first, answers: answers[index] ?? [] }
        const evidence = { ...(await evidenceOf(cell, sql, bank)), ...told, events: receiver?.events ?? null }
        const atMs = convergedAtMs.get(cell)
        const convergedMs = atMs === undefined ? null : Math.max(0, Math.round(atMs - sinceMs))
        return { cell, evidence, convergedMs, violations: violationsOf(cell, evidence) }
      }),
    )
  } finally {
    for (const end of ends) await end()
  }
}

/** What a gateway was sending when it died is sent again when its lease of half a minute is over. */
async function allTold({ events }: Receiver, sql: Sql): Promise<void> {
  for (const untilMs = performance.now() + TOLD_MS; performance.now() < untilMs; await pause(POLL_MS)) {
    const [row] = await sql<{ count: number }[]>`select count(*)::int from transitions`
    if (new Set(events.map(({ id }) => id)).size >= (row?.count ?? 0)) return
  }
}

const TOLD_MS = 50_000

async function bringToPoints(cells: Cell[], setting: Setting): Promise<Course[] | null> {
  const courses: Course[] = []
  const all = await Promise.all(cells.map(async (cell) => ({ cell, prepared: await prepare(cell, setting) })))
  const sentMs = performance.now()
  const leftMs = () => Math.max(0, ARRIVE_MS - (performance.now() - sentMs))
  // One after another: statements of requests that come together go together, and are held together.
  for (const { cell, prepared } of all) {
    if (prepared === null) return null
    const course = await sendOff(cell, prepared, setting)
    courses.push(course)
    await Promise.race([course.trap.arrived, pause(leftMs())])
  }
  return leftMs() > 0 ? courses : null
}

/** When each cell was first seen where it must be; those missing never were. */
async function converge(cells: Cell[], sql: Sql): Promise<Map<Cell, number>> {
  const seen = new Map<Cell, number>()
  const untilMs = performance.now() + PATIENCE_MS
  while (seen.size < cells.length && performance.now() < untilMs) {
    const found = await standings(cells, sql)
    for (const cell of cells) {
      if (!seen.has(cell) && isConverged(cell, found.get(cell.name))) seen.set(cell, performance.now())
    }
    await pause(POLL_MS)
  }
  return seen
}

/** As FicMart does: the same request until there is an answer that is none of "not yet"; and all of that once more. */
async function repeat({ cell, ask }: Course, by: Client): Promise<Answered[]> {
  const answers: Answered[] = []
  const untilMs = performance.now() + PATIENCE_MS
  const isOver = () => answers.filter((answer) => isFinal(cell, answer)).length === 2
  if (ask === null || !cell.repeats) return answers
  while (!isOver() && performance.now() < untilMs) {
    // Postgres may be on its way back.
    const answer = await ask(by).catch(() => null)
    if (answer === null) await pause(POLL_MS)
    else answers.push(answer)
    if (answer?.code !== undefined && !isFinal(cell, answer)) await pause((answer.retryAfterMs ?? 0) / SCALE)
  }
  return answers
}
