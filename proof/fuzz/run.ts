import { setTimeout as pause } from 'node:timers/promises'
import { connect } from '../../src/db/connection.ts'
import { seeded } from '../support/random.ts'
import { FuzzBank } from './bank.ts'
import { work } from './hands.ts'
import type { World } from './hands.ts'
import { keepJournal, readJournal, spreadOut } from './journal.ts'
import { judge } from './judge.ts'
import { createSession } from './session.ts'
import type { Said } from './session.ts'
import { createTime } from './time.ts'

export type Fuzzed = { seed: number; wrongs: string[]; answers: Record<string, number>; changes: number }

const PROCESSES = 4
const HANDS_EACH = 4

/**
 * Several processes race each other over a few payments, in the empty database at `url`, for `seconds` or until
 * something is found; then each row is judged.
 */
export async function fuzz(
  url: string,
  { seconds, seed }: { seconds: number; seed: number },
): Promise<Fuzzed> {
  const random = seeded(seed)
  const said: Said = { statements: [], failures: [], answers: new Map() }
  const time = createTime(random)
  const world: World = {
    bank: new FuzzBank(),
    random,
    time,
    orders: ['order-1', 'order-2'],
    payments: [],
    operations: new Map(),
    requests: [],
    sessions: [],
    claims: [],
    pending: new Map(),
    words: new Set(),
    doubled: new Set(),
    said: [],
    wrongs: [],
  }
  const pools = Array.from({ length: PROCESSES }, () =>
    connect(url, { connectionsMax: 2, statementTimeoutMs: 30_000 }),
  )
  const [first] = pools
  if (first === undefined) throw new Error('there are no processes')
  try {
    await keepJournal(first)
    await spreadOut(first)
    let isOver = false
    const hands = pools.flatMap((sql) => {
      const session = createSession(sql, time, said)
      world.sessions.push(session)
      return Array.from({ length: HANDS_EACH }, () =>
        work(world, session, () => isOver || world.wrongs.length > 0),
      )
    })
    const end = (async () => {
      await pause((seconds * 1_000) / 2)
      // From now on an authorize is probed before it is sent.
      await first`select note_history('RESTORED', null, ${time()})`
      await pause((seconds * 1_000) / 2)
      isOver = true
    })()
    await Promise.all([...hands, end])
    const journal = await readJournal(first)
    return {
      seed,
      wrongs: [...world.wrongs, ...judge(journal, said, world.bank, world.doubled)],
      answers: Object.fromEntries([...said.answers].toSorted(([one], [other]) => one.localeCompare(other))),
      changes: journal.length,
    }
  } finally {
    await Promise.all(pools.map((sql) => sql.end({ timeout: 1 })))
  }
}
