import postgres from 'postgres'
import type { Sql } from 'postgres'

/** The pool of connections to the receipts. */
export type Database = Sql<{ bigint: number }>

/** Columns come as camelCase, bigint as number (cents fit in 2^53), timestamps as Date, times in UTC. */
export function connect(
  url: string,
  options: { connectionsMax: number; statementTimeoutMs: number },
): Database {
  return postgres(url, {
    max: options.connectionsMax,
    connect_timeout: CONNECT_TIMEOUT_S,
    idle_timeout: IDLE_TIMEOUT_S,
    backoff: (tries) => Math.min(RECONNECT_MAX_S, 0.05 * 2 ** tries),
    // Its look-up of array types is awaited by nobody: a server that dies under it would end this process.
    fetch_types: false,
    onnotice: () => {},
    transform: { column: { from: postgres.toCamel } },
    types: { bigint: { to: 20, from: [20], serialize: String, parse: Number }, ...ARRAYS },
    connection: {
      application_name: 'ficmart-gateway',
      TimeZone: 'UTC',
      statement_timeout: options.statementTimeoutMs,
    },
  })
}

const CONNECT_TIMEOUT_S = 5
/** Shorter than what firewalls and proxies commonly drop silently. */
const IDLE_TIMEOUT_S = 60
/** The driver's own is 20 s; a database that is back must serve again within seconds. */
const RECONNECT_MAX_S = 1

/** uuid[] and text[] as parameters. Every element is quoted, so that no text can end the array. */
const arrayParameter = (oid: number) => ({
  to: oid,
  from: [],
  serialize: (values: readonly string[]) =>
    `{${values.map((value) => `"${value.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`,
  parse: (text: string) => text,
})
const ARRAYS = { uuidArray: arrayParameter(2951), textArray: arrayParameter(1009) }
