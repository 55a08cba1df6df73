import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import type { Sql } from 'postgres'
import { answerControl } from './control.ts'
import { Faults } from './faults.ts'
import type { Fault, Match } from './faults.ts'
import { lookUp, prepareLedger, purgeStoredAnswers, storeAnswer, storedAnswer, WORKS } from './ledger.ts'
import type { Worked } from './ledger.ts'
import { readBody, readFirstJson } from './request.ts'

/**
 * A bank that behaves as the real one does, its traps included, for development and tests. The order of events in one
 * POST is the bank's: look up the stored answer, latency, random 500, header and body, the work in one database
 * transaction, the answer stored in a second write made in the request's context, the answer sent.
 */
export type SimulatorSettings = {
  minLatencyMs: number
  maxLatencyMs: number
  failureRate: number
  authExpiryHours: number
  /** A slower handler closes the connection without an answer; money moved and key stored. */
  writeLimitMs?: number
}

export type Received = { method: string; path: string; key: string; probe: boolean; status: number | null }

export type Simulator = {
  url: string
  faults: Faults
  /** May be changed while it runs. */
  settings: Required<SimulatorSettings>
  /** What was asked, oldest first; `status` is null where no answer went out. Never a card number. */
  received: Received[]
  sql: Sql
  close(): Promise<void>
}

const CONNECTIONS_MAX = 25
const PURGE_MS = 3_600_000

/** Rejects with the listening error (EADDRINUSE and the like) or the database's. */
export async function startSimulator(options: {
  databaseUrl: string
  port: number
  host?: string
  settings: SimulatorSettings
  random?: () => number
}): Promise<Simulator> {
  const { random = Math.random } = options
  const sql = postgres(options.databaseUrl, {
    max: CONNECTIONS_MAX,
    onnotice: () => {},
    connection: { TimeZone: 'UTC' },
  })
  await prepareLedger(sql)
  const bank: Bank = {
    sql,
    random,
    settings: { writeLimitMs: 15_000, ...options.settings },
    faults: new Faults(random),
    received: [],
    ended: new AbortController(),
  }
  const server = createServer((request, response) => {
    serve(bank, request, response).catch(() => response.destroy())
  })
  // The bank's keep-alive outlasts any client's.
  server.keepAliveTimeout = 60_000
  await new Promise<void>((done, fail) =>
    server.listen(options.port, options.host ?? '127.0.0.1', done).on('error', fail),
  )
  const purge = setInterval(() => void purgeStoredAnswers(sql).catch(() => undefined), PURGE_MS).unref()
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    faults: bank.faults,
    settings: bank.settings,
    received: bank.received,
    sql,
    close: async () => {
      clearInterval(purge)
      bank.ended.abort()
      const closed = new Promise((done) => server.close(done))
      server.closeAllConnections()
      await closed
      await sql.end({ timeout: 5 })
    },
  }
}

export type Bank = Pick<Simulator, 'sql' | 'settings' | 'faults' | 'received'> & {
  random: () => number
  ended: AbortController
}

async function serve(bank: Bank, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname } = new URL(`http://bank${request.url ?? '/'}`)
  if (await answerControl(bank, request, response, pathname)) return
  const keys = headers(request, 'idempotency-key')
  const [, endpoint = '', id = null] = /^\/api\/v1\/([a-z]+)(?:\/([^/]+))?$/.exec(pathname) ?? []
  const match: Required<Match> = {
    endpoint: pathname === '/health' ? 'health' : endpoint,
    method: request.method === 'GET' ? 'GET' : 'POST',
    key: keys.join(),
    probe:
      request.headers['content-length'] === '0' ||
      (request.headers['content-length'] ?? request.headers['transfer-encoding']) === undefined,
  }
  const line: Received = {
    method: request.method ?? '',
    path: pathname,
    key: match.key,
    probe: match.probe,
    status: null,
  }
  bank.received.push(line)
  const answered = new Promise<void>((done) => response.on('close', done))
  response.on('finish', () => (line.status = response.statusCode))
  const call = { bank, request, response, match, fault: bank.faults.take(match), pathname, keys, answered }
  await bank.faults.passGates('before', match)

  if (pathname.includes('//')) return redirect(call)
  if (pathname === '/health') return await health(call)
  if (WORKS[endpoint] === undefined || (id !== null && request.method === 'POST'))
    return plain(response, 404, '404 page not found')
  if (request.method === 'POST' && id === null) return await post(call, endpoint)
  if (request.method === 'GET' && id !== null && endpoint !== 'voids') return await get(call, id)
  return plain(response, 405, 'Method Not Allowed')
}

type Call = {
  bank: Bank
  request: IncomingMessage
  response: ServerResponse
  match: Required<Match>
  fault: Fault | null
  pathname: string
  keys: string[]
  /** Resolves when the answer is out or the client is gone. */
  answered: Promise<void>
}

async function post(call: Call, endpoint: string): Promise<void> {
  const { bank, request, response, fault, pathname, keys } = call
  const { sql, settings, faults, match } = { ...bank, ...call }
  const startedMs = performance.now()
  const key = keys.length === 1 ? (keys[0] ?? '') : ''
  switch (fault?.what) {
    case 'drop-before':
      return void response.destroy()
    case 'hang-before':
      return await hang(call)
    case 'bad-gateway':
      return html(response, 502)
    case 'redirect':
      return redirect(call)
    default:
  }

  // A fault of the look-up shows as "not stored"; the body is not read for a replay.
  const stored =
    key === '' || fault?.what === 'lookup-fault'
      ? null
      : await storedAnswer(sql, key, pathname).catch(() => null)
  if (stored !== null) return json(response, 200, stored, { 'x-idempotent-replayed': 'true' })

  await latency(bank)
  if (fault?.what === 'chaos' || bank.random() < settings.failureRate) return json(response, 500, INTERNAL)
  if (key === '')
    return plain(
      response,
      400,
      keys.length > 1 ? 'Idempotency-Key header is doubled' : 'Idempotency-Key header is required',
    )
  const body = readFirstJson(await readBody(request))
  if ('trouble' in body) return plain(response, 400, `can't decode JSON body: ${body.trouble}`)
  // The client went away: its request's context is cancelled before the work.
  if (isGone(call)) return
  if (fault?.what === 'database-down')
    return refuse(response, 'internal_error', 'failed to start transaction')
  if (fault?.what === 'rolled-back') return refuse(response, 'internal_error', 'failed to update account')
  if (fault?.what === 'commit-failed')
    return refuse(response, 'internal_error', 'failed to commit transaction')

  const worked = await work(call, endpoint, key, body.value)
  if ('error' in worked) return refuse(response, worked.error, worked.message, worked.status)
  if (fault?.what === 'commit-failed-but-done')
    return refuse(response, 'internal_error', 'failed to commit transaction')
  await faults.passGates('after-commit', match)
  if (fault?.what === 'drop-after-commit') return void response.destroy()
  if (fault?.what === 'hang-after-commit') return await hang(call)

  const answer = JSON.stringify(worked.body)
  // In the request's context: a client that is gone by now leaves money moved and no key.
  const isStored = !isGone(call) && key.length <= 255 && fault?.what !== 'lookup-fault'
  if (isStored) await storeAnswer(sql, key, pathname, answer).catch(() => undefined)
  await faults.passGates('after-store', match)
  if (fault?.what === 'drop-after-store') return void response.destroy()
  if (fault?.what === 'hang-after-store') return await hang(call)
  if (fault?.what === 'late') await pause(fault.delayMs, undefined, { ref: false })
  if (performance.now() - startedMs > settings.writeLimitMs) return void response.destroy()
  sendSpoilt(response, fault, worked.body)
}

async function work(
  call: Call,
  endpoint: string,
  key: string,
  body: Record<string, unknown>,
): Promise<Worked> {
  const { sql, settings } = call.bank
  const run = WORKS[endpoint]
  if (run === undefined) return { status: 404, error: 'not_found', message: 'not found' }
  const lookupFails = call.fault?.what === 'card-or-parent-not-found'
  try {
    const worked = await sql.begin(async (tx) => {
      const done = await run(tx, { key, body, authExpiryHours: settings.authExpiryHours, lookupFails })
      if ('error' in done) throw new RolledBack(done)
      return done
    })
    return worked
  } catch (error) {
    if (error instanceof RolledBack) return error.refusal
    // Two at once for one authorization: the unique index lets one win.
    if (error instanceof postgres.PostgresError && error.code === '23505') {
      return endpoint === 'refunds'
        ? { status: 400, error: 'already_refunded', message: 'capture has already been refunded' }
        : { status: 400, error: 'authorization_already_used', message: 'authorization has already been used' }
    }
    return { status: 400, error: 'internal_error', message: 'failed to start transaction' }
  }
}

class RolledBack extends Error {
  readonly refusal: Extract<Worked, { error: string }>
  constructor(refusal: Extract<Worked, { error: string }>) {
    super(refusal.error)
    this.refusal = refusal
  }
}

/** Every fault of the database is a 404 too. */
async function get(call: Call, id: string): Promise<void> {
  const { bank, response, pathname, fault } = call
  await latency(bank)
  if (fault?.what === 'chaos' || bank.random() < bank.settings.failureRate)
    return json(response, 500, INTERNAL)
  const found =
    fault === null
      ? await lookUp(bank.sql, pathname.slice(0, pathname.lastIndexOf('/')), id).catch(() => null)
      : null
  if (found === null) return refuse(response, 'not_found', 'not found', 404)
  json(response, 200, JSON.stringify(found))
}

async function health({ bank, response, fault }: Call): Promise<void> {
  const isWell =
    fault === null &&
    (await bank.sql`select 1`.then(
      () => true,
      () => false,
    ))
  json(response, isWell ? 200 : 503, JSON.stringify({ status: isWell ? 'healthy' : 'unhealthy' }))
}

async function latency({ settings, random, ended }: Bank): Promise<void> {
  const ms = settings.minLatencyMs + random() * (settings.maxLatencyMs - settings.minLatencyMs)
  if (ms > 0) await pause(ms, undefined, { signal: ended.signal }).catch(() => undefined)
}

async function hang({ answered }: Call): Promise<void> {
  await answered
}

const INTERNAL = JSON.stringify({ error: 'internal_error', message: 'internal server error' })

function sendSpoilt(
  response: ServerResponse,
  fault: Fault | null,
  body: Record<string, string | number>,
): void {
  const id = Object.keys(body)[0] ?? ''
  const parent = Object.keys(body).find((name) => name.endsWith('_id') && name !== id) ?? id
  switch (fault?.what) {
    case 'html':
      return html(response, 200)
    case 'malformed':
      return json(response, 200, JSON.stringify(body).slice(0, -9))
    case 'no-id':
      return json(response, 200, JSON.stringify({ ...body, [id]: undefined }))
    case 'other-amount':
      return json(response, 200, JSON.stringify({ ...body, amount: Number(body['amount'] ?? 0) + 1 }))
    case 'other-currency':
      return json(response, 200, JSON.stringify({ ...body, currency: 'EUR' }))
    case 'other-parent':
      return json(
        response,
        200,
        JSON.stringify({ ...body, [parent]: `${String(body[parent]).slice(0, -1)}x` }),
      )
    case 'huge-amount':
      return json(
        response,
        200,
        JSON.stringify({ ...body, amount: 0 }).replace('"amount":0', '"amount":9007199254740993'),
      )
    case 'stalled-body':
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 1_000 })
      return void response.write(JSON.stringify(body).slice(0, 20))
    default:
      return json(response, 200, JSON.stringify(body))
  }
}

function redirect({ response, pathname }: Call): void {
  response.writeHead(301, { location: pathname.replaceAll(/\/{2,}/g, '/') }).end()
}
function plain(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`)
}
function html(response: ServerResponse, status: number): void {
  response.writeHead(status, { 'content-type': 'text/html' }).end('<html><body>proxy</body></html>')
}
function json(
  response: ServerResponse,
  status: number,
  body: string,
  more: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...more }).end(body)
}
function refuse(response: ServerResponse, error: string, message: string, status = 400): void {
  json(response, status, JSON.stringify({ error, message }))
}

function headers(request: IncomingMessage, name: string): string[] {
  return request.rawHeaders.filter(
    (_, index, all) => index % 2 === 1 && all[index - 1]?.toLowerCase() === name,
  )
}

function isGone({ response }: Call): boolean {
  return response.destroyed || response.socket === null || response.socket.destroyed
}
