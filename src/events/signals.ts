import { randomUUID } from 'node:crypto'
import type { Database } from '../db/connection.ts'
import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { createBell } from './bell.ts'

/**
 * Signals between the processes of one database, by LISTEN and NOTIFY. A NOTIFY inside a payment's transaction would
 * make every commit of the server wait for the one before it; so it is sent after the commit, for all changes of the
 * last moment at once, on a connection that carries no payments. It may get lost: nobody may rely on it alone.
 */
export type Signals = {
  tell(topics: readonly string[]): void
  stop(): Promise<void>
}

const CHANNEL = 'payments_changed'
/** Unnoticed by people, and at most twenty small commits a second, whatever the load. */
const COALESCE_MS = 50
const LAST_SIGNALS_MS = 1_000
/** Of 17 bytes each: a notification has 8,000. */
const TOPICS_IN_ONE = 400

/** `missed`: signals may have been lost, for instance while the connection was away. */
export async function startSignals(
  { log, clock }: Gateway,
  sql: Database,
  on: { heard: (topics: readonly string[]) => void; missed: () => void },
): Promise<Signals> {
  const self = randomUUID()
  const outgoing = new Set<string>()
  const bell = createBell()
  const stopping = new AbortController()

  // The driver listens again after a lost connection, and then, too, calls the last argument.
  const listening = sql.listen(
    CHANNEL,
    (message) => {
      const [sender, ...topics] = message.split(' ')
      if (sender !== self) on.heard(topics)
    },
    on.missed,
  )
  await answered(listening).catch((error: unknown) =>
    log.warn({ err: error }, 'cannot hear of changes in other processes yet; live updates may be late'),
  )

  async function send(): Promise<void> {
    const topics = [...outgoing]
    outgoing.clear()
    const messages: string[] = []
    for (let at = 0; at < topics.length; at += TOPICS_IN_ONE)
      messages.push([self, ...topics.slice(at, at + TOPICS_IN_ONE)].join(' '))
    try {
      await answered(sql`select pg_notify(${CHANNEL}, message) from unnest(${messages}::text[]) as message`)
    } catch (error) {
      log.warn({ err: error }, 'could not tell other processes of changes; their live updates may be late')
    }
  }

  const sending = (async () => {
    while (!stopping.signal.aborted || outgoing.size > 0) {
      if (outgoing.size === 0) await bell.wait()
      if (!stopping.signal.aborted) await clock.sleep(COALESCE_MS)
      if (outgoing.size > 0) await send()
    }
  })()

  return {
    tell: (topics) => {
      for (const topic of topics) outgoing.add(topic)
      bell.ring()
    },
    stop: async () => {
      stopping.abort()
      bell.ring()
      // A database that does not answer holds up no shutdown.
      await Promise.race([sending, clock.sleep(LAST_SIGNALS_MS)])
    },
  }
}
