import { join } from 'node:path'
import { StartRefused } from './config.ts'
import type { Config } from './config.ts'
import { startEmbedded } from './db/embedded.ts'
import { DatabaseUnfit } from './db/examine.ts'
import { isLockTimeout } from './db/persist.ts'

/** What a program of the gateway runs on: the database and the bank that the environment names, or what stands in. */

export type Stop = (reason: string) => Promise<unknown>

/**
 * An embedded Postgres and the simulator stand in for what has no URL; production has refused to come here without. A
 * second program (`joins`) joins the server that the first one started; its own simulator works with the same books,
 * which must be there: the simulator is nobody's bank but that of the receipts beside it.
 */
export async function startWhatIsMissing(
  config: Config,
  stops: Stop[],
  { joins = false } = {},
): Promise<{ databaseUrl: string; bankUrl: string }> {
  let { databaseUrl, bankUrl } = config
  if (databaseUrl !== null && bankUrl !== null) return { databaseUrl, bankUrl }
  if (joins && databaseUrl !== null) throw new StartRefused(NO_BANK)
  const server = await startEmbedded({ folder: join(config.dataFolder, 'postgres'), durable: true }).catch(
    (error: unknown) => {
      throw new StartRefused(error instanceof Error ? error.message : String(error))
    },
  )
  stops.push(() => server.stop())
  if (joins && bankUrl === null && !(await server.hasDatabase('bank'))) throw new StartRefused(NO_BANK)
  if (databaseUrl === null) {
    await server.createDatabase('gateway')
    databaseUrl = server.url('gateway')
  }
  if (bankUrl === null) {
    await server.createDatabase('bank')
    const { startSimulator } = await import('./simulator/simulator.ts')
    const { port, ...settings } = config.simulator
    const simulator = await startSimulator({ databaseUrl: server.url('bank'), port, settings }).catch(
      (error: unknown) => {
        throw new StartRefused(
          `The simulated bank cannot listen on port ${port} (${String(Object(error).code)}). Stop what listens there, or choose another with SIMULATOR_PORT.`,
        )
      },
    )
    stops.push(() => simulator.close())
    bankUrl = simulator.url
  }
  return { databaseUrl, bankUrl }
}

const NO_BANK =
  'BANK_URL is not set, and the receipts are not those of a gateway that runs the simulated bank here: with which bank? Set BANK_URL as the gateway has it. Nothing was done.'

/** In words of whoever set DATABASE_URL. Never the URL: it holds the password. */
export function databaseTrouble(error: unknown): string {
  // So long nobody could be kept waiting behind it (migrate.ts).
  if (isLockTimeout(error))
    return 'A table of the database is in use for long (a dump, a report), so it was not brought up to date. Start again when that is over.'
  if (error instanceof DatabaseUnfit) return error.message
  return `${whatIsWrong(error)} Check DATABASE_URL.`
}

function whatIsWrong(error: unknown): string {
  const { code, message } = Object(error) as { code?: unknown; message?: unknown }
  switch (code) {
    case 'ECONNREFUSED':
    case 'CONNECT_TIMEOUT':
      return 'No Postgres answers at the host and port of DATABASE_URL.'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'The host of DATABASE_URL is not known.'
    case '25006':
      return 'The database takes no writes: it is a standby, or default_transaction_read_only is on.'
    case '08P01':
      if (/startup parameter/.test(String(message)))
        return 'A pooler in front of Postgres refuses what a session is told: PgBouncer needs ignore_startup_parameters = options, see docs/database.md.'
      return `Postgres is not what answers at DATABASE_URL: ${String(message)}.`
    case '28000':
      if (/no encryption|SSL off/.test(String(message)))
        return 'The server takes only connections with TLS: DATABASE_URL needs sslmode=require or verify-full.'
      return `Postgres does not let the gateway in: ${String(message)}.`
    case '28P01':
      return 'Postgres refuses the user or the password of DATABASE_URL.'
    case '3D000':
      return 'The database that DATABASE_URL names does not exist.'
    case '42501':
      return 'The user of DATABASE_URL may not create tables.'
    default:
      return `The database could not be prepared: ${String(message)}.`
  }
}
