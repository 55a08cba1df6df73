import { readConfig, StartRefused } from '../config.ts'
import { readAddress } from '../db/address.ts'
import { openPool } from '../db/driver.ts'
import { startEmbedded } from '../db/embedded.ts'
import { createPrimary } from '../db/primary.ts'
import { stopRequested } from '../process.ts'
import { printable } from '../terminal.ts'
import { startSimulator } from './simulator.ts'

/** `npm run bank`: the simulated bank alone. Takes the bank's environment: PORT, DATABASE_URL, MIN_LATENCY_MS and so on. */
async function main(): Promise<void> {
  if (process.env['NODE_ENV'] === 'production') {
    throw new StartRefused(
      'The simulated bank is for development and tests: it does not start with NODE_ENV=production.',
    )
  }
  const { PORT, SIMULATOR_PORT } = process.env
  const config = readConfig({ ...process.env, SIMULATOR_PORT: PORT || SIMULATOR_PORT })
  const { port, ...settings } = config.simulator
  const { databaseUrl, stop } = await database(config.databaseUrl, config.dataFolder).catch(cannotStart)
  try {
    const simulator = await startSimulator({ databaseUrl, port, host: config.host, settings }).catch(
      (error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE')
          throw new StartRefused(
            `Port ${port} is taken. Stop what listens there, or choose another with PORT.`,
          )
        return cannotStart(error)
      },
    )
    process.stdout.write(
      `The simulated bank is at ${simulator.url}; ${simulator.url}/docs tells how to make it fail.\n`,
    )
    await stopRequested()
    await simulator.close()
  } finally {
    await stop()
  }
}

/** A connection refused has its text in `code` only. */
function cannotStart(error: unknown): never {
  const { code, message } = error as NodeJS.ErrnoException
  throw new StartRefused(`The bank cannot start: ${message || code}`)
}

/** In an embedded Postgres, or in the one that DATABASE_URL names, where the database is made if it is missing. */
async function database(
  url: string | null,
  folder: string,
): Promise<{ databaseUrl: string; stop: () => Promise<void> }> {
  if (url === null) {
    const server = await startEmbedded({ folder: `${folder}/bank`, durable: true })
    await server.createDatabase('bank')
    return { databaseUrl: server.url('bank'), stop: () => server.stop() }
  }
  const address = readAddress(url)
  const { database: name } = address
  const admin = openPool({ ...address, database: 'postgres' }, createPrimary(address).connect, {
    max: 1,
    fetch_types: false,
    onnotice: () => {},
  })
  try {
    const found = await admin`select 1 from pg_database where datname = ${name}`
    if (found.length === 0) await admin`create database ${admin(name)}`
  } finally {
    await admin.end({ timeout: 5 })
  }
  return { databaseUrl: url, stop: async () => {} }
}

main().then(
  () => process.exit(),
  (error: unknown) => {
    const said =
      error instanceof StartRefused ? error.message : error instanceof Error ? error.stack : String(error)
    process.stderr.write(`${printable(said ?? '')}\n`)
    process.exit(1)
  },
)
