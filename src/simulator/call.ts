import { setTimeout as pause } from 'node:timers/promises'
import { answerOf, html, json, plain, redirect, spoilt } from './answers.ts'
import type { Answer, Outcome } from './answers.ts'
import type { Fault, FaultKind, Match } from './faults.ts'
import { LOOKUPS, lookUp, storeAnswer, storedAnswer } from './ledger.ts'
import { refusal } from './refusals.ts'
import type { Refusal, RefusalCode } from './refusals.ts'
import { readFirstJson } from './request.ts'
import type { Bank, Received } from './simulator.ts'
import { WORKS } from './works.ts'
import type { Done, Run } from './works.ts'

/**
 * One call, in the bank's order of events. A POST: look up the stored answer, latency, random 500, header and body, the
 * work in one database transaction, the answer stored in a second write made in the request's context, the answer sent.
 */
export type Call = {
  bank: Bank
  pathname: string
  method: string
  /** One for each Idempotency-Key header. */
  keys: string[]
  match: Required<Match>
  fault: Fault | null
  /** What is known of it afterwards. */
  line: Received
  readBody(): Promise<string>
  /** The client has disconnected. */
  isGone(): boolean
}

export async function answerCall(call: Call): Promise<Outcome> {
  const { bank, pathname, method, match, fault } = call
  await bank.faults.passGates('before', match)
  switch (fault?.what) {
    case 'drop-before':
      return 'drop'
    case 'hang-before':
      return 'hang'
    case 'bad-gateway':
      return html(502)
    case 'redirect':
      return redirect(301, pathname)
    case 'redirect-307':
      return redirect(307, pathname)
    default:
  }
  if (pathname === '/health') return await health(call)
  const [, endpoint = '', id] = /^\/api\/v1\/([a-z]+)(?:\/([^/]+))?$/.exec(pathname) ?? []
  const run = WORKS.get(endpoint)
  if (run !== undefined && id === undefined && method === 'POST') return await post(call, run)
  const failed = await chaos(call)
  if (failed !== null) return failed
  if (pathname.includes('//')) return redirect(301, pathname)
  if (run === undefined || (id !== undefined && !LOOKUPS.has(endpoint)))
    return plain(404, '404 page not found')
  return id === undefined || method !== 'GET'
    ? plain(405, 'Method Not Allowed')
    : await get(call, endpoint, id)
}

async function post(call: Call, run: Run): Promise<Outcome> {
  const { bank, pathname, keys, match, fault, line } = call
  const key = keys.length === 1 ? (keys[0] ?? '') : ''

  // A fault of this look-up shows as "not stored"; what is then carried out is never stored.
  let isLookedUp = key !== '' && key.length <= KEY_LENGTH_MAX && fault?.what !== 'lookup-fault'
  const stored = isLookedUp
    ? await storedAnswer(bank.sql, key, pathname).catch(() => {
        isLookedUp = false
        return null
      })
    : null
  // At once, and without reading the body.
  if (stored !== null) return json(200, stored, { 'x-idempotent-replayed': 'true' })

  const failed = await chaos(call)
  if (failed !== null) return failed
  if (key === '') return plain(400, `Idempotency-Key header is ${keys.length > 1 ? 'doubled' : 'required'}`)
  // Throws where the client went away, so that nothing is carried out: in the bank its context is cancelled.
  const read = readFirstJson(await call.readBody(), match.endpoint)
  if ('trouble' in read) return plain(400, `can't decode JSON body: ${read.trouble}`)

  const worked = await carryOut(call, run, key, read.value)
  if ('error' in worked) return answerOf(worked)
  line.committed = 'yes'
  // Until it is stored.
  line.keyLost = 'fault'
  if (fault?.what === 'commit-failed-but-done') return answerOf(refusal('commit_failed'))
  await bank.faults.passGates('after-commit', match)
  if (fault?.what === 'drop-after-commit') return 'drop'
  if (fault?.what === 'hang-after-commit') return 'hang'

  // In the request's context: a client that is gone by now leaves money moved and no key.
  line.keyLost = await storeKey(worked)
  await bank.faults.passGates('after-store', match)
  if (fault?.what === 'drop-after-store') return 'drop'
  if (fault?.what === 'hang-after-store') return 'hang'
  if (fault?.what === 'late') await sleep(bank, fault.delayMs)
  return spoilt(fault?.what, worked.body)

  async function storeKey({ body }: Done): Promise<Received['keyLost']> {
    if (!isLookedUp) return fault?.what === 'lookup-fault' ? 'fault' : 'database'
    if (call.isGone()) return 'client gone'
    return await storeAnswer(bank.sql, key, pathname, JSON.stringify(body)).then(
      () => null,
      () => 'database',
    )
  }
}

const KEY_LENGTH_MAX = 255

/** One transaction. What fails before its commit is rolled back; a failed commit may have been carried out. */
async function carryOut(
  { bank, fault, line, match }: Call,
  run: Run,
  key: string,
  body: Record<string, unknown>,
): Promise<Refusal | Done> {
  if (fault?.what === 'database-down') return refusal('start_failed')
  const toldAs = fault === null ? undefined : ROLLED_BACK[fault.what]?.(match.endpoint)
  try {
    return await run(bank.sql, {
      key,
      body,
      authExpiryHours: bank.settings.authExpiryHours,
      lookupFails: fault?.what === 'card-or-parent-not-found',
      isKept: toldAs === undefined,
    })
  } catch (error) {
    if (isNotBegun(error)) return refusal('start_failed')
    // As far as the server's word goes; that the fault was told to roll back is known.
    if (toldAs === undefined) line.committed = 'perhaps'
    return refusal(toldAs ?? 'commit_failed')
  }
}

/** Done and then rolled back, and what that is told as. */
const ROLLED_BACK: Partial<Record<FaultKind, (endpoint: string) => RefusalCode>> = {
  'rolled-back': () => 'update_failed',
  'insert-failed': (endpoint) => (endpoint === 'authorizations' ? 'create_failed' : 'insert_failed'),
  'commit-failed': () => 'commit_failed',
}

/**
 * It never reached a server that could have begun it, or the server did not let the session in: the driver passes on no
 * other fatal error. Whatever else ends a statement, its commit may stand.
 */
function isNotBegun(error: unknown): boolean {
  const { code, severity } = Object(error) as { code?: unknown; severity?: unknown }
  return (
    typeof code !== 'string' ||
    ['ECONNREFUSED', 'CONNECT_TIMEOUT', 'CONNECTION_ENDED', 'ENOTFOUND'].includes(code) ||
    severity === 'FATAL'
  )
}

/** Every fault of the database is a 404 too. */
async function get(call: Call, endpoint: string, id: string): Promise<Answer> {
  const { bank, fault } = call
  const isDown = fault?.what === 'database-down' || fault?.what === 'card-or-parent-not-found'
  const found = isDown ? null : await lookUp(bank.sql, endpoint, id).catch(() => null)
  if (found === null) return answerOf({ status: 404, error: 'not_found', message: 'not found' })
  if (fault?.what === 'late') await sleep(bank, fault.delayMs)
  return spoilt(fault?.what, found)
}

async function health({ bank, fault }: Call): Promise<Answer> {
  const isWell =
    fault?.what !== 'unhealthy' &&
    (await bank.sql`select 1`.then(
      () => true,
      () => false,
    ))
  return json(isWell ? 200 : 503, JSON.stringify({ status: isWell ? 'healthy' : 'unhealthy' }))
}

/** Latency, then perhaps the random 500. */
async function chaos({ bank, fault }: Call): Promise<Answer | null> {
  const { minLatencyMs, maxLatencyMs, failureRate } = bank.settings
  await sleep(bank, minLatencyMs + bank.random() * (maxLatencyMs - minLatencyMs))
  return fault?.what === 'chaos' || bank.random() < failureRate
    ? answerOf({ status: 500, error: 'internal_error', message: 'internal server error' })
    : null
}

async function sleep({ ended }: Bank, ms: number): Promise<void> {
  if (ms > 0) await pause(ms, undefined, { signal: ended.signal }).catch(() => undefined)
}
