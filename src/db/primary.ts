import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import type { Address } from './address.ts'
import { ConnectionFailed, dial } from './dial.ts'
import type { Host } from './dial.ts'
import { openPool } from './driver.ts'

/**
 * Of several hosts, the one that takes writes. All are asked at once, each over a connection of its own, so that one that
 * is dead, frozen or a standby holds up none; the one known from before is asked first. Whatever was connected to
 * another is cut off then: nothing more goes to an old primary, and nobody waits for its answer.
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
  let isDoubted = false
  let looking: Promise<Host> | null = null

  async function find(): Promise<Host> {
    isDoubted = false
    const found = await firstWritable(address, known)
    known = found
    for (const [socket, host] of sockets) if (host !== found) socket.destroy()
    return found
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

/** The one known from before gets so much of a start, and keeps its place when it answers. */
const HEAD_START_MS = 500
const ANSWER_MS = 2_000

async function firstWritable(address: Address, known: Host | null): Promise<Host> {
  const others = address.hosts.filter((host) => host !== known)
  const ask = (host: Host) => writable(address, host)
  if (known === null) return await anyOf(others.map(ask))
  const first = ask(known)
  const isFirst = await Promise.race([first.then(() => true), pause(HEAD_START_MS)]).catch(() => false)
  return isFirst === true ? known : await anyOf([first, ...others.map(ask)])
}

async function anyOf(answers: Promise<Host>[]): Promise<Host> {
  try {
    return await Promise.any(answers)
  } catch (error) {
    throw mostTelling(error instanceof AggregateError ? error.errors : [error])
  }
}

async function writable(address: Address, host: Host): Promise<Host> {
  const timeoutMs = Math.min(ANSWER_MS, address.connectTimeoutMs)
  const sql = openPool(address, () => dial(host, address.tls, timeoutMs), {
    max: 1,
    fetch_types: false,
    onnotice: () => {},
  })
  const over = new AbortController()
  try {
    const answer = sql.unsafe<{ isReadOnly: boolean }[]>(
      `select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as "isReadOnly"`,
    )
    const silence = pause(timeoutMs, undefined, over).then(() => {
      throw new ConnectionFailed('CONNECT_TIMEOUT', 'no answer in time')
    })
    const [row] = await Promise.race([answer, silence])
    if (row?.isReadOnly !== false)
      throw new ConnectionFailed(READ_ONLY, 'no host of DATABASE_URL takes writes')
    return host
  } finally {
    over.abort()
    void sql.end({ timeout: 0 })
  }
}

const READ_ONLY = '25006'

/** One that is there and refuses says more than one that is not. */
function mostTelling(errors: unknown[]): unknown {
  return (
    errors.find((error) => error instanceof postgres.PostgresError) ??
    errors.find((error) => Object(error).code === READ_ONLY) ??
    errors.find((error) => error instanceof Error && 'code' in error)
  )
}
