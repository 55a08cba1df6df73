import { EventEmitter } from 'node:events'
import { pino } from 'pino'
import { createBank } from '../../src/bank/client.ts'
import type { BankOptions } from '../../src/bank/client.ts'
import { OPERATION_DEFAULTS } from '../../src/config.ts'
import { connect } from '../../src/db/connection.ts'
import { createLive } from '../../src/events/live.ts'
import { systemClock } from '../../src/gateway.ts'
import type { Gateway, OperationSettings } from '../../src/gateway.ts'
import { createServer } from '../../src/graphql/server.ts'
import type { ServerOptions } from '../../src/graphql/server.ts'
import { createInFlight, drained } from '../../src/operation/lock.ts'
import { client } from './client.ts'
import type { Client, Fetch } from './client.ts'
import { startGatewayProcess } from './gateway-process.ts'
import type { GatewayProcess } from './gateway-process.ts'
import { whenFileEnds } from './leaving.ts'

/** Waits a tenth or less of the real ones; everything else as in production. */
export const QUICK: OperationSettings = {
  ...OPERATION_DEFAULTS,
  requestDeadlineMs: 5_000,
  attemptTimeoutMs: 1_000,
  quietPeriodMs: 500,
  recoverAfterMs: 50,
  backoffBaseMs: 5,
  backoffCapMs: 20,
  confirmAfterMs: 20,
}

/** Of who may ask for ever. */
export const noEnd = () => new AbortController().signal

/** May everything, so that tests of other things need not think of it. */
export function serving(client = 'ficmart'): ServerOptions {
  return {
    whoAsks: async () => ({ client, role: 'dev', customer: null, until: noEnd }),
    rateLimits: { clientPerSecond: 1_000, customerPerMinute: 1_000 },
    corsOrigins: [],
  }
}

export type TestGateway = { gateway: Gateway; client: Client; logged: string[]; fetch: Fetch }

/** A gateway in this process, with mutexes, connections and a log of its own: two of them are as two processes. */
export function startTestGateway(options: {
  databaseUrl: string
  bankUrl: string
  settings?: Partial<OperationSettings>
  bank?: Partial<BankOptions>
  clientName?: string
}): TestGateway {
  const settings = { ...QUICK, ...options.settings }
  const logged: string[] = []
  const log = pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) })
  const sql = connect(options.databaseUrl, { connectionsMax: 5, statementTimeoutMs: 10_000 })
  const bank = createBank({
    baseUrl: options.bankUrl,
    attemptTimeoutMs: settings.attemptTimeoutMs,
    log,
    ...options.bank,
  })
  const gateway: Gateway = {
    sql,
    bank,
    clock: systemClock,
    random: Math.random,
    log,
    settings,
    inFlight: createInFlight(),
    changes: new EventEmitter(),
    live: createLive(),
  }
  const server = createServer(gateway, serving(options.clientName))
  whenFileEnds(async () => {
    gateway.inFlight.draining = true
    await drained(gateway.inFlight)
    await bank.close()
    await sql.end({ timeout: 1 })
  })
  const fetch = (url: string, init: RequestInit) => server.fetch(url, init)
  return { gateway, client: client('http://gateway/graphql', { fetch }), logged, fetch }
}

/** The gateway as its users run it: a process of its own, listening on a port; killed when the file has ended. */
export async function spawnGateway(env: Record<string, string>, cwd?: string): Promise<GatewayProcess> {
  const gateway = await startGatewayProcess(env, cwd)
  whenFileEnds(() => gateway.end('SIGKILL'))
  return gateway
}
