import { Socket } from 'node:net'
import postgres from 'postgres'
import type { Sql } from 'postgres'
import { guarded } from './pool.ts'

/** The pool of connections to the receipts. */
export type Database = Sql<{ bigint: number }>

/** Columns come as camelCase, bigint as number (cents fit in 2^53), timestamps as Date, times in UTC. */
export function connect(
  url: string,
  options: { connectionsMax: number; statementTimeoutMs: number },
): Database {
  const { onAnswer, ...attempts } = pacedAttempts(options.connectionsMax)
  const open = (how: object): Database =>
    postgres(url, {
      ...how,
      ...attempts,
      max: options.connectionsMax,
      connect_timeout: CONNECT_TIMEOUT_S,
      idle_timeout: IDLE_TIMEOUT_S,
      // Its look-up of array types is awaited by nobody: a server that dies under it would end this process.
      fetch_types: false,
      onnotice: () => {},
      transform: { column: { from: postgres.toCamel } },
      types: { bigint: { to: 20, from: [20], serialize: String, parse: Number }, ...ARRAYS },
      connection: {
        application_name: 'ficmart-gateway',
        TimeZone: 'UTC',
        // Whatever this database's own are: a claim that is forgotten after it was sent is a second hold, and each
        // statement of a function is to see what the locks' last holder committed.
        synchronous_commit: 'on',
        default_transaction_isolation: 'read committed',
        statement_timeout: options.statementTimeoutMs,
        // A process that is frozen or cut off must not keep its locks: a server that cannot send heeds no other limit.
        tcp_user_timeout: options.statementTimeoutMs,
      },
    })
  const statements = () => open({ ...ONE_AT_A_TIME, backoff: () => 0 })
  const besides = () => open({ backoff: () => RECONNECT_S })
  const limits = {
    connections: options.connectionsMax,
    // The server gives up first.
    answerMs: options.statementTimeoutMs + 1_000,
    onAnswer,
  }
  return guarded({ statements, besides }, limits)
}

const CONNECT_TIMEOUT_S = 5
const RECONNECT_S = 0.5
/** Shorter than what firewalls and proxies commonly drop silently. */
const IDLE_TIMEOUT_S = 60
/**
 * No statement is sent after another that is not answered yet. Where the driver does that and the connection dies, it
 * loses statements and, with them, the connection's place in the pool for good. (Its types know neither this option nor
 * `socket`.)
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
  return {
    onAnswer: () => void (left = atOnce),
    /** One that is not connected fails at the driver's first word (ERR_SOCKET_CLOSED). */
    socket: ({ host: [host = ''], port: [port = 0], path }: Place) => {
      // TLS checks the server's certificate by this name.
      const socket = Object.assign(new Socket(), { host })
      if (mayConnect()) socket.connect(path === false ? { host, port } : { path })
      return socket
    },
  }
}

const ATTEMPT_EVERY_MS = 100
/** As the driver reads it from the URL. config.ts lets only one host come here. */
type Place = { host: string[]; port: number[]; path: string | false }

/** uuid[] and text[] as parameters. Every element is quoted, so that no text can end the array. */
const arrayParameter = (oid: number) => ({
  to: oid,
  from: [],
  serialize: (values: readonly string[]) =>
    `{${values.map((value) => `"${value.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`,
  parse: (text: string) => text,
})
const ARRAYS = { uuidArray: arrayParameter(2951), textArray: arrayParameter(1009) }
