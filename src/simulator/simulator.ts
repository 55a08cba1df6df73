import { setMaxListeners } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Sql } from 'postgres'
import { readAddress } from '../db/address.ts'
import { ONE_AT_A_TIME } from '../db/connection.ts'
import { openPool } from '../db/driver.ts'
import { createPrimary } from '../db/primary.ts'
import type { Answer } from './answers.ts'
import { answerCall } from './call.ts'
import type { Call } from './call.ts'
import { answerControl } from './control.ts'
import { Faults } from './faults.ts'
import type { FaultKind, Match } from './faults.ts'
import { prepareLedger, purgeStoredAnswers } from './ledger.ts'
import { readBody } from './request.ts'

/** A bank that behaves as the real one does, its traps included, for development and tests. call.ts tells the story. */
export type SimulatorSettings = {
  minLatencyMs: number
  maxLatencyMs: number
  failureRate: number
  authExpiryHours: number
  /** A slower handler closes the connection without an answer; money moved and key stored. */
  writeLimitMs?: number
}

export type Received = {
  method: string
  path: string
  key: string
  /** A POST without a body. */
  probe: boolean
  /** Of the answer; null until it is out, and where none went out. */
  status: number | null
  /** Answered, or the connection is gone. */
  over: boolean
  /** On the monotonic clock of this process. */
  arrivedMs: number
  endedMs: number | null
  fault: FaultKind | null
  /** Money moved: perhaps, when the commit itself failed. */
  committed: 'no' | 'yes' | 'perhaps'
  /** Why the key of what was committed is not stored. */
  keyLost: 'fault' | 'client gone' | 'database' | null
}

export type Simulator = {
  url: string
  faults: Faults
  /** May be changed while it runs. */
  settings: Required<SimulatorSettings>
  /** What was asked, oldest first, the last 10,000 (or `receivedMax`). Never a card number. */
  received: Received[]
  /** Resolves when `is` is true of what was received; looks at every arrival and every end. */
  until(is: (received: readonly Received[]) => boolean): Promise<void>
  sql: Sql
  close(): Promise<void>
}

export type Bank = Pick<Simulator, 'sql' | 'settings' | 'faults' | 'received'> & {
  random: () => number
  /** Those who wait for what is received. */
  watchers: Set<() => void>
  receivedMax: number
  ended: AbortController
}

const CONNECTIONS_MAX = 25
const RECONNECT_S = 0.1
const PURGE_MS = 3_600_000
const RECEIVED_MAX = 10_000

/** Rejects with the listening error (EADDRINUSE and the like) or the database's. */
export async function startSimulator(options: {
  databaseUrl: string
  port: number
  host?: string
  settings: SimulatorSettings
  random?: () => number
  receivedMax?: number
}): Promise<Simulator> {
  const { random = Math.random, receivedMax = RECEIVED_MAX } = options
  const address = readAddress(options.databaseUrl)
  const sql = openPool(address, createPrimary(address).connect, {
    max: CONNECTIONS_MAX,
    ...ONE_AT_A_TIME,
    connect_timeout: 5,
    // The bank connects when it must. The driver's own pause, shared by all connections that fail, is soon 20 s.
    backoff: () => RECONNECT_S,
    // The driver's own query at each connect rejects where nothing catches it when that connection dies.
    fetch_types: false,
    onnotice: () => {},
    connection: { TimeZone: 'UTC' },
  })
  const bank: Bank = {
    sql,
    random,
    settings: { writeLimitMs: 15_000, ...options.settings },
    faults: new Faults(random),
    received: [],
    watchers: new Set(),
    receivedMax,
    ended: new AbortController(),
  }
  // Every call that waits listens to it.
  setMaxListeners(0, bank.ended.signal)
  const server = createServer((request, response) => {
    serve(bank, request, response).catch(() => response.destroy())
  })
  // The bank's keep-alive outlasts any client's.
  server.keepAliveTimeout = 60_000
  try {
    await prepareLedger(sql)
    await new Promise<void>((done, fail) =>
      server.listen(options.port, options.host ?? '127.0.0.1', done).on('error', fail),
    )
  } catch (error) {
    await sql.end({ timeout: 1 })
    throw error
  }
  const purge = setInterval(() => void purgeStoredAnswers(sql).catch(() => undefined), PURGE_MS).unref()
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    faults: bank.faults,
    settings: bank.settings,
    received: bank.received,
    until: (is) =>
      new Promise((done) => {
        const look = () => {
          if (!is(bank.received)) return
          bank.watchers.delete(look)
          done()
        }
        bank.watchers.add(look)
        look()
      }),
    sql,
    close: async () => {
      clearInterval(purge)
      bank.ended.abort()
      const closed = new Promise((done) => server.close(done))
      server.closeAllConnections()
      await closed
      await sql.end({ timeout: 1 })
    },
  }
}

async function serve(bank: Bank, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const arrivedMs = performance.now()
  const { pathname } = new URL(`http://bank${request.url ?? '/'}`)
  if (await answerControl(bank, request, response, pathname)) return
  const call = readCall(bank, request, response, pathname)
  record(bank, call.line, response)
  const outcome = await answerCall(call)
  if (outcome === 'hang') return
  if (outcome === 'drop' || performance.now() - arrivedMs > bank.settings.writeLimitMs) response.destroy()
  else send(response, outcome)
}

function readCall(bank: Bank, request: IncomingMessage, response: ServerResponse, pathname: string): Call {
  const { method = '', rawHeaders, headers } = request
  const keys = rawHeaders.filter(
    (_, index, all) => index % 2 === 1 && all[index - 1]?.toLowerCase() === 'idempotency-key',
  )
  const length = headers['content-length'] ?? (headers['transfer-encoding'] === undefined ? '0' : 'unknown')
  const match: Required<Match> = {
    endpoint: pathname === '/health' ? 'health' : (pathname.split('/')[3] ?? ''),
    method: method === 'GET' ? 'GET' : 'POST',
    key: keys.join(),
    probe: method === 'POST' && length === '0',
  }
  const { key, probe } = match
  const fault = bank.faults.take(match)
  return {
    bank,
    pathname,
    method,
    keys,
    match,
    fault,
    line: {
      method,
      path: pathname,
      key,
      probe,
      status: null,
      over: false,
      arrivedMs: performance.now(),
      endedMs: null,
      fault: fault?.what ?? null,
      committed: 'no',
      keyLost: null,
    },
    readBody: () => readBody(request),
    isGone: () => response.destroyed || response.socket === null || response.socket.destroyed,
  }
}

function record(bank: Bank, line: Received, response: ServerResponse): void {
  if (bank.received.push(line) > bank.receivedMax) bank.received.shift()
  const tell = () => bank.watchers.forEach((look) => look())
  tell()
  response.on('finish', () => (line.status = response.statusCode))
  response.on('close', () => {
    line.over = true
    line.endedMs = performance.now()
    tell()
  })
}

function send(response: ServerResponse, { status, headers, body, stalls }: Answer): void {
  response.writeHead(status, headers)
  if (stalls) response.write(body)
  else response.end(body)
}
