import postgres from 'postgres'
import type { Sql } from 'postgres'
import { startSimulator } from '../../src/simulator/simulator.ts'
import { privateServer } from '../../test/support/private-server.ts'
import { seeded, shuffled } from '../support/random.ts'
import type { Cell } from './cells.ts'
import { runGroup } from './group.ts'
import type { Group, Outcome, Place } from './group.ts'

/**
 * Runs cells, those together that may die in one process, and a few such groups at a time. A group that the machine is
 * too busy for is begun anew after the others, and in the end left out.
 */
export async function runCells(
  cells: Cell[],
  options: { seed: number; atOnce: number; show: (stage: string, outcomes: Outcome[]) => void },
): Promise<{ outcomes: Outcome[]; books: string[] }> {
  const random = seeded(options.seed)
  const groups = shuffled(random, groupsOf(cells, random))
  const outcomes: Outcome[] = []
  const { place, sql, close } = await openPlace()
  try {
    const work = async () => {
      for (let group = groups.pop(); group !== undefined; group = groups.pop()) {
        const { name } = group
        const ended = await runGroup(group, place, (stage) => options.show(`${name}: ${stage}`, outcomes))
        if (ended !== null) outcomes.push(...ended)
        else if (group.begun < BEGUN_MAX) groups.unshift(anew(group))
        options.show(`${name}: ${ended === null ? 'the machine is too busy for it' : 'done'}`, outcomes)
      }
    }
    await Promise.all(Array.from({ length: options.atOnce }, work))
    return { outcomes, books: await troubleOfBooks(sql) }
  } finally {
    await close()
  }
}

/** Eight at a time, of the first sends the eight points of one operation. Those that are slow come one after another. */
function groupsOf(cells: Cell[], random: () => number): Group[] {
  const groups = new Map<string, Group>()
  const kinds = new Map<string, number>()
  for (const cell of cells) {
    const { scene, dies, repeats, processes, round } = cell
    const kind =
      `${scene.replaceAll(/\W/g, '_')}_${dies}_${repeats ? 'repeated' : 'once'}_${processes}_${round}`.toLowerCase()
    const index = kinds.get(kind) ?? 0
    kinds.set(kind, index + 1)
    const name = `${kind}_${Math.floor(index / (SLOW.has(scene) ? SLOW_CELLS : GROUP_CELLS))}`
    const group = groups.get(name) ?? {
      name,
      processes,
      cells: [],
      begun: 1,
      random: seeded(random() * 2 ** 32),
    }
    groups.set(name, group)
    group.cells.push(cell)
  }
  return [...groups.values()]
}

const GROUP_CELLS = 8
const SLOW_CELLS = 3
/** A sweep brings them to their point, or a pause. */
const SLOW: ReadonlySet<Cell['scene']> = new Set(['re-send', 'late look', 'release', 'expire'])

const BEGUN_MAX = 10

/** What its first beginning left at the bank has other amounts. */
function anew(group: Group): Group {
  const cells = group.cells.map((cell) => ({ ...cell, amountCents: cell.amountCents + ANEW_CENTS }))
  return { ...group, cells, begun: group.begun + 1 }
}

const ANEW_CENTS = 10_000_000

/** A Postgres with the bank's books and, for each group, the receipts. A bank that never fails by itself. */
async function openPlace(): Promise<{ place: Place; sql: Sql; close: () => Promise<void> }> {
  const server = await privateServer(CONNECTIONS_MAX)
  await server.createDatabase('bank')
  const bank = await startSimulator({
    databaseUrl: server.url('bank'),
    port: 0,
    settings: { minLatencyMs: 0, maxLatencyMs: 0, failureRate: 0, authExpiryHours: 168 },
  })
  await bank.sql`update accounts set balance_cents = ${RICH_CENTS}, available_cents = ${RICH_CENTS}`
  const admin = postgres(server.url('postgres'), { max: 1, onnotice: () => {} })
  return {
    sql: bank.sql,
    place: {
      bank,
      newDatabase: async (name) => {
        await server.createDatabase(name)
        const drop = async () => void (await admin`drop database if exists ${admin(name)} with (force)`)
        return { url: server.url(name), drop }
      },
      newServer: async () => {
        const own = await privateServer()
        await own.createDatabase('receipts')
        return {
          url: own.url('receipts'),
          kill: async () => void process.kill(own.pid, 'SIGKILL'),
          start: () => own.restart(),
          drop: () => own.stop(),
        }
      },
    },
    close: async () => {
      await bank.close()
      await admin.end({ timeout: 1 })
      await server.stop()
    },
  }
}

const CONNECTIONS_MAX = 300
const RICH_CENTS = 1_000_000_000_000

/** All that the bank holds and has taken is in its ledger. */
async function troubleOfBooks(sql: Sql): Promise<string[]> {
  const wrong = await sql<{ card: string }[]>`
    select right(card_number, 4) as card from accounts
    join lateral (
      select coalesce(sum(amount_cents) filter (where type = 'AUTHORIZATION' and status = 'ACTIVE'), 0) as held,
             coalesce(sum(amount_cents) filter (where type = 'CAPTURE'), 0)
               - coalesce(sum(amount_cents) filter (where type = 'REFUND'), 0) as taken
      from transactions t where t.card_number = accounts.card_number) books on true
    where balance_cents <> ${RICH_CENTS} - taken or available_cents <> balance_cents - held`
  return wrong.map(({ card }) => `the balance of the card ending in ${card} is not what its ledger says`)
}
