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
    onnotice: () => {},
    transform: { column: { from: postgres.toCamel } },
    types: { bigint: { to: 20, from: [20], serialize: String, parse: Number } },
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
