import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import type { Address } from './address.ts'
import { ConnectionFailed, dial } from './dial.ts'
import type { Host } from './dial.ts'
import { openPool } from './driver.ts'

/**
 * Of several hosts, the one that takes writes. All are asked at once, each over a connection of its own, so that one that
 * is dead, frozen or a standby holds up none. Whatever was connected to another is cut off then: nothing more goes to an
 * old primary, and nobody waits for its answer.
 */
export type Primary = {
  connect: () => Promise<Socket>
  /** A connection broke: look again before the next is made. */
  doubt: () => void
  /** A statement waits long: look now. */
  look: () => void
}

export function createPrimary(address: Address): Primary {
  const [only, ...others] = address.hosts
  const dialHost = (host: Host) => dial(host, address.tls, address.connectTimeoutMs)
  if (others.length === 0) return { connect: () => dialHost(only), doubt: () => {}, look: () => {} }

  const sockets = new Map<Socket, Host>()
  let known: Host | null = null
  let newestTimeline = 0
  let isDoubted = false
  let looking: Promise<Host> | null = null

  async function find(): Promise<Host> {
    isDoubted = false
    const found = await newestWritable(address, newestTimeline)
    newestTimeline = found.timeline
    known = found.host
    for (const [socket, host] of sockets) if (host !== found.host) socket.destroy()
    return found.host
  }
  const look = () => (looking ??= find().finally(() => (looking = null)))
  const doubt = () => void (isDoubted = true)

  async function connect(): Promise<Socket> {
    const host = known === null || isDoubted ? await look() : known
    const socket = await dialHost(host)
    if (host !== known) {
      socket.destroy()
      return await connect()
    }
    sockets.set(socket, host)
    socket.once('close', () => sockets.delete(socket))
    return socket
  }

  return {
    connect: () =>
      connect().catch((error: unknown) => {
        doubt()
        throw error
      }),
    doubt,
    look: () => void look().catch(doubt),
  }
}

/** For how long the others are waited for when one has answered. */
const OTHERS_MS = 500
const ANSWER_MS = 2_000

type Writable = { host: Host; timeline: number }

/**
 * A promotion begins a new timeline: of two that take writes, the older is a primary that came back and does not know
 * that another has taken its place. One that is older than what was seen before is refused though it be alone.
 */
async function newestWritable(address: Address, newest: number): Promise<Writable> {
  const found: Writable[] = []
  const answers = address.hosts.map(async (host) => {
    const timeline = await timelineOf(address, host)
    if (timeline < newest) throw new ConnectionFailed(READ_ONLY, NO_PRIMARY)
    found.push({ host, timeline })
  })
  try {
    await Promise.any(answers)
  } catch (error) {
    throw mostTelling(error instanceof AggregateError ? error.errors : [error])
  }
  await Promise.race([Promise.allSettled(answers), pause(OTHERS_MS)])
  return found.reduce((one, other) => (other.timeline > one.timeline ? other : one))
}

async function timelineOf(address: Address, host: Host): Promise<number> {
  const timeoutMs = Math.min(ANSWER_MS, address.connectTimeoutMs)
  const sql = openPool(address, () => dial(host, address.tls, timeoutMs), {
    max: 1,
    fetch_types: false,
    onnotice: () => {},
  })
  const over = new AbortController()
  try {
    const answer = sql.unsafe<{ timeline: string | null }[]>(`
      select case when not pg_is_in_recovery() and not current_setting('transaction_read_only')::boolean
                  then left(pg_walfile_name(pg_current_wal_lsn()), 8) end as timeline`)
    const silence = pause(timeoutMs, undefined, over).then(() => {
      throw new ConnectionFailed('CONNECT_TIMEOUT', 'no answer in time')
    })
    const [row] = await Promise.race([answer, silence])
    if (typeof row?.timeline !== 'string') throw new ConnectionFailed(READ_ONLY, NO_PRIMARY)
    return Number.parseInt(row.timeline, 16)
  } finally {
    over.abort()
    void sql.end({ timeout: 0 })
  }
}

const READ_ONLY = '25006'
const NO_PRIMARY = 'no host of DATABASE_URL takes writes'

/** One that is there and refuses says more than one that is not. */
function mostTelling(errors: unknown[]): unknown {
  return (
    errors.find((error) => error instanceof postgres.PostgresError) ??
    errors.find((error) => Object(error).code === READ_ONLY) ??
    errors.find((error) => error instanceof Error && 'code' in error)
  )
}
