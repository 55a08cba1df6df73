import { Semaphore, withTimeout } from 'async-mutex'
import type { Sql } from 'postgres'
import { inStatement } from '../observe/database-span.ts'
import { isOfConnection } from './persist.ts'

/**
 * postgres.js with what it lacks on a bad day. Each statement waits for a connection of its own, but not for ever;
 * one that the server does not answer is given up, and its pool with it; an answer that is not one is refused. So every
 * statement ends in bounded time and with its own rows, or is rejected; what was rejected may or may not have run.
 * What the driver does without this: docs/reliability.md, and test/storm/connection.test.ts.
 */
export function guarded<Pool extends Sql<{ bigint: number }>>(
  open: { statements: () => Pool; besides: () => Pool },
  limits: {
    connections: number
    answerMs: number
    onAnswer: () => void
    onBroken?: () => void
    onSlow?: () => void
  },
): Pool {
  let pool = open.statements()
  /** For LISTEN, which must outlive a pool, and for `begin`, which only tests use: it is not safe (TRADEOFFS.md). */
  let besides: Pool | undefined
  let openedMs = performance.now()
  const places = withTimeout(new Semaphore(limits.connections), PLACE_MS, new DatabaseSilent(BUSY))

  /** Sessions that hang, or that began while the server was read-only, are not mended by waiting. */
  function renew(spent: Pool): void {
    const nowMs = performance.now()
    if (spent !== pool || nowMs - openedMs < RENEWED_LEAST_MS) return
    pool = open.statements()
    openedMs = nowMs
    // What still runs there is cut off then; the driver never rejects here, but waits for ever without a timeout.
    void spent.end({ timeout: LAST_WORDS_S })
  }

  async function run<Rows>(from: Pool, send: () => Promise<Rows>): Promise<Rows> {
    const [, release] = await places.acquire()
    let timer: NodeJS.Timeout | undefined
    const slow = limits.onSlow && setInterval(limits.onSlow, SLOW_MS)
    try {
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          renew(from)
          reject(new DatabaseSilent())
        }, limits.answerMs)
      })
      const rows = whole(await Promise.race([send(), silence]))
      limits.onAnswer()
      return rows
    } catch (error) {
      if (Object(error).code === READ_ONLY) renew(from)
      if (isOfConnection(error)) limits.onBroken?.()
      throw error
    } finally {
      clearTimeout(timer)
      clearInterval(slow)
      release()
    }
  }

  const end: Pool['end'] = async (options) => {
    await Promise.all([pool.end(options), besides?.end(options)])
  }

  return new Proxy(pool, {
    get: (_, name) => {
      if (name === 'end') return end
      const of = name === 'listen' || name === 'begin' ? (besides ??= open.besides()) : pool
      return Reflect.get(of, name) as unknown
    },
    apply: (_, __, args) => {
      const from = pool
      const made: unknown = Reflect.apply(from, undefined, args)
      // An identifier or a list; a statement runs when it is awaited, and a fragment of one never is.
      if (!(made instanceof Promise)) return made
      keepParameters(made)
      const send = made.then.bind(made)
      let running: Promise<unknown> | undefined
      const ask = () =>
        inStatement(
          () => textOf(made),
          from.options,
          () => run(from, () => send()),
        )
      const then: typeof made.then = (ok, failed) => (running ??= ask()).then(ok, failed)
      // oxlint-disable-next-line unicorn/no-thenable -- a statement is one already
      return Object.assign(made, { then, catch: (failed: () => unknown) => then(undefined, failed) })
    },
  })
}

/** As it was written, with nothing where the parameters go. */
function textOf(statement: object): string {
  const { strings } = statement as { strings?: readonly string[] }
  return (strings ?? []).join(' ')
}

/** It may have done what it was told. The code is the driver's own for a connection that broke. */
export class DatabaseSilent extends Error {
  readonly code = 'CONNECTION_CLOSED'
  constructor(message = 'the database did not answer in time') {
    super(message)
  }
}

const BUSY = 'every connection to the database was busy'
/** As long as a statement may take: then something is amiss that waiting does not mend. */
const PLACE_MS = 5_000
const SLOW_MS = 1_000
const RENEWED_LEAST_MS = 1_000
const LAST_WORDS_S = 1
const READ_ONLY = '25006'

/**
 * The driver serializes a statement's parameters in their place, and does it again when a table has got a column and the
 * plan must be made anew: it fails on an array, doubles JSON and turns true into false. It is given a copy each time.
 */
function keepParameters(statement: object): void {
  let kept: readonly unknown[] | undefined
  Object.defineProperty(statement, 'parameters', {
    get: () => kept?.slice(),
    set: (parameters: readonly unknown[]) => {
      kept = parameters
    },
  })
}

/**
 * The driver counts the rows of a statement on from where the last one on its connection broke off (an error amidst its
 * rows, a session terminated), and resolves with nothing at all what it had put on a connection that was just dying.
 */
function whole<Rows>(rows: Rows): Rows {
  if (!Array.isArray(rows)) return rows
  if (Reflect.get(rows, 'command') === null) throw new DatabaseSilent('the database gave no answer')
  if (!(0 in rows)) rows.splice(0, Number(Object.keys(rows)[0]))
  return rows
}
