import { hash } from 'node:crypto'
import type { Database } from '../db/connection.ts'
import type { Gateway } from '../gateway.ts'
import type { Payment } from '../payment/payment.ts'
import { newestVersions, paymentsById } from '../payment/reads.ts'
import type { Subject } from '../payment/reads.ts'
import { createBell } from './bell.ts'
import type { Bell } from './bell.ts'
import { startSignals } from './signals.ts'

/**
 * Payments as they change, for whoever follows them. A signal only says that something about a subject may be new; what
 * is new is read from the receipts and told by comparing versions. So a signal may come twice, or for nothing, and one
 * that is lost costs time, not an event: followed subjects are read again whenever signals may have been missed, and
 * now and then in any case. The first reading tells the state at the start.
 *
 * However many follow, one statement at a time reads for all whose subject was signalled; what a follower has not
 * fetched yet is replaced by what is newer.
 */
export type Live = {
  /** By topic. */
  followers: Map<string, Set<Follower>>
  /** Topics to read again. */
  signalled: Set<string>
  isReading: boolean
  isOver: boolean
}

type Follower = {
  client: string
  subject: Subject
  isFor: (payment: Payment) => boolean
  /** The newest version told of each payment. */
  told: Map<string, number>
  news: Map<string, Payment>
  bell: Bell
  isOver: boolean
  end: () => void
}

export function createLive(): Live {
  return { followers: new Map(), signalled: new Set(), isReading: false, isOver: false }
}

export class TooManyFollowers extends Error {}

/** Of all clients, in this process: some 50 kB each. */
const FOLLOWED_MAX = 5_000

/**
 * A subject's newest payments, each as it is now and then each time its version has grown, until `return` is called,
 * one of `gone` is aborted, or the gateway stops. `isFor`: whether this client may see a payment; `atMost`: how many streams the
 * client may have, `leaves`: how many of all it leaves to others. Throws TooManyFollowers.
 */
export function follow(
  gateway: Gateway,
  who: {
    client: string
    atMost: number
    leaves: number
    subject: Subject
    isFor: (payment: Payment) => boolean
    gone: readonly AbortSignal[]
  },
): AsyncIterableIterator<Payment, undefined> {
  const { live } = gateway
  const all = [...live.followers.values()].flatMap((followers) => [...followers])
  const own = all.filter(({ client }) => client === who.client)
  if (all.length >= FOLLOWED_MAX - who.leaves || own.length >= who.atMost) throw new TooManyFollowers()

  const topic = topicOf(who.subject)
  const follower: Follower = {
    client: who.client,
    subject: who.subject,
    isFor: who.isFor,
    told: new Map(),
    news: new Map(),
    bell: createBell(),
    isOver: live.isOver || who.gone.some(({ aborted }) => aborted),
    end: () => {
      follower.isOver = true
      for (const ending of who.gone) ending.removeEventListener('abort', follower.end)
      const followers = live.followers.get(topic)
      followers?.delete(follower)
      if (followers?.size === 0) live.followers.delete(topic)
      follower.bell.ring()
    },
  }
  if (!follower.isOver) {
    live.followers.set(topic, (live.followers.get(topic) ?? new Set()).add(follower))
    for (const ending of who.gone) ending.addEventListener('abort', follower.end)
    signal(gateway, [topic])
  }
  const done = { done: true, value: undefined } as const
  return {
    async next() {
      while (!follower.isOver) {
        const [newest] = follower.news
        if (newest === undefined) await follower.bell.wait()
        else {
          follower.news.delete(newest[0])
          return { done: false, value: newest[1] }
        }
      }
      return done
    },
    async return() {
      follower.end()
      return await Promise.resolve(done)
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

/** Until it is stopped, what commits anywhere is told here. `sql`: a pool of its own, apart from the payments'. */
export async function startLive(
  gateway: Gateway,
  sql: Database,
  pollMs = POLL_MS,
): Promise<{ stop(): Promise<void> }> {
  const { live, changes } = gateway
  const missed = () => signal(gateway, live.followers.keys())
  const signals = await startSignals(gateway, sql, { heard: (topics) => signal(gateway, topics), missed })
  const changed = (payment: Payment) => {
    const topics = topicsOf(payment)
    signal(gateway, topics)
    signals.tell(topics)
  }
  changes.on('payment', changed)
  const poll = setInterval(missed, pollMs).unref()
  return {
    stop: async () => {
      clearInterval(poll)
      changes.off('payment', changed)
      live.isOver = true
      for (const followers of live.followers.values()) for (const { end } of followers) end()
      await signals.stop()
    },
  }
}

/** A process may die between its commit and its signal: nobody waits longer than this for what it did. */
const POLL_MS = 10_000

function topicsOf({ id, orderId, customerId }: Payment): string[] {
  return [
    topicOf({ by: 'payment', id }),
    topicOf({ by: 'order', id: orderId }),
    topicOf({ by: 'customer', id: customerId }),
  ]
}

/** Short whatever the ids are, since a notification has 8,000 bytes. Two that collide read for nothing. */
function topicOf({ by, id }: Subject): string {
  return hash('sha256', `${by}:${id}`, 'base64url').slice(0, 16)
}

function signal(gateway: Gateway, topics: Iterable<string>): void {
  const { live } = gateway
  for (const topic of topics) if (live.followers.has(topic)) live.signalled.add(topic)
  if (live.signalled.size > 0 && !live.isReading) void readSignalled(gateway)
}

async function readSignalled(gateway: Gateway): Promise<void> {
  const { live } = gateway
  live.isReading = true
  while (live.signalled.size > 0) {
    const topics = [...live.signalled].slice(0, READ_MAX)
    for (const topic of topics) live.signalled.delete(topic)
    const followers = topics.flatMap((topic) => [...(live.followers.get(topic) ?? [])])
    try {
      await tellNews(gateway, followers)
    } catch (error) {
      // The poll signals them again.
      gateway.log.warn({ err: error }, 'could not read what is followed; again later')
    }
  }
  live.isReading = false
}

/** Subjects in one statement: some milliseconds. */
const READ_MAX = 500

async function tellNews(gateway: Gateway, followers: readonly Follower[]): Promise<void> {
  const versionsOf = await newestVersions(
    gateway,
    followers.map(({ subject }) => subject),
  )
  const news = followers.map((follower) => {
    const versions = versionsOf(follower.subject)
    const ids = versions
      .filter(({ id, version }) => version > (follower.told.get(id) ?? 0))
      .map(({ id }) => id)
    return { follower, versions, ids }
  })
  const wanted = new Set(news.flatMap(({ ids }) => ids))
  const payments = wanted.size === 0 ? [] : await paymentsById(gateway, [...wanted])
  const byId = new Map(payments.map((payment) => [payment.id, payment]))

  for (const { follower, versions, ids } of news) {
    // Only of these can there be news: what is older will not come back among the newest.
    follower.told = new Map(versions.map(({ id, version }) => [id, byId.get(id)?.version ?? version]))
    for (const id of ids) {
      const payment = byId.get(id)
      if (payment !== undefined && follower.isFor(payment)) follower.news.set(id, payment)
    }
    if (follower.news.size > 0) follower.bell.ring()
  }
}
