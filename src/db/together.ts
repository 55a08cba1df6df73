import type { Clock } from '../gateway.ts'
import { isOfConnection } from './persist.ts'
import { DatabaseSilent } from './pool.ts'

/**
 * Many items in one statement, with one round trip and one commit for all of them. An item that finds no statement under
 * way goes at once and alone; what comes meanwhile waits in the line of its kind. Lines take turns, and one statement at
 * a time makes the most of each; but those who fill one of their own wait for none. (docs/performance.md)
 */
export type Line<Item, Row> = { turns: Turns; waiting: Place<Item, Row>[] }
type Place<Item, Row> = { item: Item; resolve: (row: Row) => void; reject: (error: unknown) => void }

export type Turns = {
  /** By the line of those who wait for it, the first to wait first. */
  next: Map<unknown, SayNext>
  /** Since when (monotonic) the statement that all wait for is under way. */
  underWay: { sinceMs: number } | null
  /** Full ones that go at the same time. */
  besides: number
  /** One at a time whatever happens, for all who wait: each ends soon by itself. */
  isPatient: boolean
  isWatched: boolean
}
type SayNext = () => Promise<Tell>
/** Gives those who waited for a statement their rows. */
type Tell = () => void

export function createTurns(isPatient = false): Turns {
  return { next: new Map(), underWay: null, besides: 0, isPatient, isWatched: false }
}

export function createLine<Item, Row>(turns: Turns): Line<Item, Row> {
  return { turns, waiting: [] }
}

/** `say`: answers with one row for each item, which tells its place as `item`, or comes in their order. */
export async function together<Item, Row>(
  { clock }: { clock: Clock },
  { turns, waiting }: Line<Item, Row>,
  item: Item,
  say: Say<Item, Row>,
): Promise<Row> {
  const row = new Promise<Row>((resolve, reject) => {
    waiting.push({ item, resolve, reject })
  })
  const sayNext = async (): Promise<Tell> => {
    const places = waiting.splice(0, turns.isPatient ? waiting.length : ITEMS_MAX)
    turns.next.delete(waiting)
    if (waiting.length > 0) turns.next.set(waiting, sayNext)
    return await sayFor(places, say)
  }
  if (waiting.length === 1) turns.next.set(waiting, sayNext)
  if (turns.underWay === null) void takeTurns(clock, turns)
  else if (!turns.isPatient) {
    if (waiting.length >= ITEMS_MAX && turns.besides < BESIDES_MAX) void sayBesides(turns, waiting, sayNext)
    if (!turns.isWatched) void watch(clock, turns)
  }
  return await row
}

type Say<Item, Row> = (items: readonly Item[]) => PromiseLike<readonly Row[]>

/** Of a statement. While these are at the bank the next are claimed; a hundred came and went as one crowd, an eighth slower. */
const ITEMS_MAX = 32
/** Of full ones. A commit that takes 40 ms then costs time and no throughput, and two connections are left for the rest. */
const BESIDES_MAX = 7
/** One under way hangs: on a lock that another process holds, or on a connection that is dying. */
const HANGS_MS = 100

async function takeTurns(clock: Clock, turns: Turns): Promise<void> {
  const mine = { sinceMs: clock.monotonicMs() }
  turns.underWay = mine
  let tell: Tell = () => {}
  for (;;) {
    const [sayNext] = turns.next.values()
    // Nobody waits, or others have gone on because this one hung.
    if (sayNext === undefined || turns.underWay !== mine) break
    mine.sinceMs = clock.monotonicMs()
    const said = sayNext()
    // The next statement is on its way before those of the last go on: the database works while they do.
    process.nextTick(tell)
    tell = await said
  }
  if (turns.underWay === mine) turns.underWay = null
  tell()
}

async function sayBesides(turns: Turns, waiting: readonly unknown[], sayNext: SayNext): Promise<void> {
  turns.besides += 1
  while (waiting.length >= ITEMS_MAX) (await sayNext())()
  turns.besides -= 1
}

/** Nobody fails for a neighbour: where an item may be to blame, they are said again one by one. */
async function sayFor<Item, Row>(places: readonly Place<Item, Row>[], say: Say<Item, Row>): Promise<Tell> {
  try {
    const rows = new Map(
      (await say(places.map(({ item }) => item))).map((row, index) => [itemOf(row) ?? index, row]),
    )
    // The driver can resolve with no rows when the backend was terminated.
    if (!places.every((_, index) => rows.has(index)))
      throw new DatabaseSilent('a statement did not answer for each of its items')
    return () => places.forEach(({ resolve }, index) => resolve(rows.get(index) as Row))
  } catch (error) {
    if (places.length === 1 || isOfConnection(error))
      return () => places.forEach(({ reject }) => reject(error))
    await Promise.all(places.map(async (place) => (await sayFor([place], say))()))
    return () => {}
  }
}

/** The functions of sql/ say which item each row answers, whatever order they come in. */
function itemOf(row: unknown): number | undefined {
  return typeof row === 'object' && row !== null && 'item' in row && typeof row.item === 'number'
    ? row.item
    : undefined
}

/** Nobody waits for a statement that hangs either: others go on, and it ends when it can. */
async function watch(clock: Clock, turns: Turns): Promise<void> {
  turns.isWatched = true
  while (turns.next.size > 0) {
    await clock.sleep(HANGS_MS)
    const { underWay, next } = turns
    if (next.size > 0 && underWay !== null && clock.monotonicMs() - underWay.sinceMs >= HANGS_MS)
      void takeTurns(clock, turns)
  }
  turns.isWatched = false
}
