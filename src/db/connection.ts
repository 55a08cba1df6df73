import postgres from 'postgres'
import type { Sql } from 'postgres'
import { readAddress } from './address.ts'
import { ConnectionFailed } from './dial.ts'
import { openPool } from './driver.ts'
import { guarded } from './pool.ts'
import { createPrimary } from './primary.ts'
import { startupParameters } from './session.ts'

/** The pool of connections to the receipts. */
export type Database = Sql<{ bigint: number }>

/** Columns come as camelCase, bigint as number (cents fit in 2^53), timestamps as Date, times in UTC. */
export function connect(
  url: string,
  options: { connectionsMax: number; statementTimeoutMs: number },
): Database {
  const address = readAddress(url)
  const isOfSeveral = address.hosts.length > 1
  const primary = createPrimary(address)
  const { onAnswer, mayConnect } = pacedAttempts(options.connectionsMax)
  const connectSocket = async () => {
    if (!mayConnect())
      throw new ConnectionFailed('CONNECTION_CLOSED', 'the database answers nothing at the moment')
    return await primary.connect()
  }
  const open = (how: object): Database =>
    openPool(address, connectSocket, {
      ...how,
      // One that has come back as a standby since it was asked.
      ...(isOfSeveral && { target_session_attrs: 'primary' }),
      max: options.connectionsMax,
      connect_timeout: address.connectTimeoutMs / 1_000,
      idle_timeout: IDLE_TIMEOUT_S,
      // Its look-up of array types is awaited by nobody: a server that dies under it would end this process.
      fetch_types: false,
      onnotice: () => {},
      transform: { column: { from: postgres.toCamel } },
      types: { bigint: { to: 20, from: [20], serialize: String, parse: Number }, ...ARRAYS },
      connection: startupParameters(address, options.statementTimeoutMs),
    })
  const statements = () => open({ ...ONE_AT_A_TIME, backoff: () => 0 })
  const besides = () => open({ backoff: () => RECONNECT_S })
  const limits = {
    connections: options.connectionsMax,
    // The server gives up first.
    answerMs: options.statementTimeoutMs + 1_000,
    onAnswer,
    ...(isOfSeveral && { onBroken: primary.doubt, onSlow: primary.look }),
  }
  return guarded({ statements, besides }, limits)
}

const RECONNECT_S = 0.5
/** Shorter than what firewalls and proxies commonly drop silently. */
const IDLE_TIMEOUT_S = 60
/**
 * No statement is sent after another that is not answered yet. Where the driver does that and the connection dies, it
 * loses statements and, with them, the connection's place in the pool for good.
 */
export const ONE_AT_A_TIME = { max_pipeline: 0 }

/**
 * Paces the making of connections. The driver makes one again without any pause when the server lets it in and turns it
 * away (it starts, it has too many, a proxy in front of it has no server). While no statement is answered, all but a few
 * attempts fail here, at once: whoever waits for the database learns it soon and asks again.
 */
function pacedAttempts(atOnce: number) {
  let left = atOnce
  let lastMs = -Infinity
  function mayConnect(): boolean {
    const nowMs = performance.now()
    if (left === 0 && nowMs - lastMs < ATTEMPT_EVERY_MS) return false
    left = Math.max(0, left - 1)
    lastMs = nowMs
    return true
  }
  return { onAnswer: () => void (left = atOnce), mayConnect }
}

const ATTEMPT_EVERY_MS = 100

/** uuid[] and text[] as parameters. Every element is quoted, so that no text can end the array. */
const arrayParameter = (oid: number) => ({
  to: oid,
  from: [],
  serialize: (values: readonly string[]) =>
    `{${values.map((value) => `"${value.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`,
  parse: (text: string) => text,
})
const ARRAYS = { uuidArray: arrayParameter(2951), textArray: arrayParameter(1009) }
