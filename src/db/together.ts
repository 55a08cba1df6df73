import type { Clock } from '../gateway.ts'
import { isOfConnection } from './persist.ts'
import { DatabaseSilent } from './pool.ts'

/**
 * Many items in one statement, with one round trip and one commit for all of them. An item that finds none under way
 * goes at once and alone; what comes meanwhile goes together in the next. (Two at a time carried a fifth less.)
 */
export type Line<Item, Row> = {
  waiting: Place<Item, Row>[]
  underWay: number
  /** One at a time whatever happens: `say` ends soon by itself. */
  isPatient: boolean
  isWatched: boolean
}
type Place<Item, Row> = {
  item: Item
  sinceMs: number
  resolve: (row: Row) => void
  reject: (error: unknown) => void
}

export function createLine<Item, Row>(isPatient = false): Line<Item, Row> {
  return { waiting: [], underWay: 0, isPatient, isWatched: false }
}

/** `say`: answers with one row for each item, in their order. */
export async function together<Item, Row>(
  { clock }: { clock: Clock },
  line: Line<Item, Row>,
  item: Item,
  say: Say<Item, Row>,
): Promise<Row> {
  const sinceMs = clock.monotonicMs()
  const row = new Promise<Row>((resolve, reject) => {
    line.waiting.push({ item, sinceMs, resolve, reject })
  })
  if (line.underWay === 0) void sayWhileAsked(line, say)
  else if (!line.isPatient && !line.isWatched) void watch(clock, line, say)
  return await row
}

type Say<Item, Row> = (items: readonly Item[]) => PromiseLike<readonly Row[]>

/** Of a statement. While these are at the bank the next are claimed; a hundred came and went as one crowd, an eighth slower. */
const ITEMS_MAX = 32
/** One under way hangs: on a lock that another process holds, or on a connection that is dying. */
const HANGS_MS = 100

async function sayWhileAsked<Item, Row>(line: Line<Item, Row>, say: Say<Item, Row>): Promise<void> {
  line.underWay += 1
  while (line.waiting.length > 0) await sayFor(line.waiting.splice(0, ITEMS_MAX), say)
  line.underWay -= 1
}

/** Nobody fails for a neighbour: where an item may be to blame, they are said again one by one. */
async function sayFor<Item, Row>(places: readonly Place<Item, Row>[], say: Say<Item, Row>): Promise<void> {
  try {
    const rows = await say(places.map(({ item }) => item))
    // The driver can resolve with no rows when the backend was terminated.
    if (rows.length !== places.length)
      throw new DatabaseSilent('a statement did not answer for each of its items')
    rows.forEach((row, index) => places[index]?.resolve(row))
  } catch (error) {
    if (places.length === 1 || isOfConnection(error)) for (const place of places) place.reject(error)
    else await Promise.all(places.map(async (place) => await sayFor([place], say)))
  }
}

/** Nobody waits for a statement that hangs either: whoever has waited too long goes in one more. */
async function watch<Item, Row>(clock: Clock, line: Line<Item, Row>, say: Say<Item, Row>): Promise<void> {
  line.isWatched = true
  while (line.waiting.length > 0) {
    await clock.sleep(HANGS_MS)
    const [first] = line.waiting
    if (first !== undefined && clock.monotonicMs() - first.sinceMs >= HANGS_MS) void sayWhileAsked(line, say)
  }
  line.isWatched = false
}
