import { bulkhead, isBulkheadRejectedError } from 'cockatiel'
import type { Logger } from 'pino'
import { timeOrderedId } from '../payment/ids.ts'
import type { BankCallPurpose } from '../payment/payment.ts'
import { errorCodeOf, isHealthy, readLook, readProbe, readSend } from './answer.ts'
import type { Answer, Bank, ExchangeRecord, Refused } from './bank.ts'
import { BREAKER, createCircuit } from './circuit.ts'
import type { BreakerSettings } from './circuit.ts'
import { ENDPOINTS } from './endpoints.ts'
import { createHttp } from './http.ts'
import type { Ask, Exchange, Http } from './http.ts'
import { observed } from './observed.ts'

/**
 * The bank. Each question is one exchange through the circuit; what came back is read once (answer.ts) and recorded.
 * Nothing is retried here: whether a request may be sent again is for the operation to decide, under a new claim.
 */

export type BankOptions = {
  /** For instance `http://localhost:8787`. */
  baseUrl: string
  /** One exchange, body included. The bank's own limit is 15 s; giving up before that leaves money moved unseen. */
  attemptTimeoutMs?: number
  /** Admitted work at one time. */
  maxInFlight?: number
  /** Work that waits for a slot; what comes beyond is refused at once. */
  maxQueued?: number
  breaker?: BreakerSettings
  /** A simulation brings its own. */
  http?: Http
  random?: () => number
  log: Logger
}

const HEALTH: Ask = { method: 'GET', path: '/health' }
const CIRCUIT_OPEN: Answer = { is: 'notDone', reason: 'the circuit is open, nothing was sent' }
/** About one exchange: by then a slot has become free. */
const FULL: Refused = { retryAfterMs: 1_000, reason: 'too many payments are in flight' }

export function createBank(options: BankOptions): Bank {
  const { baseUrl, log, attemptTimeoutMs = 20_000, maxInFlight = 4_000, maxQueued = 4_000 } = options
  const { http = createHttp({ baseUrl, attemptTimeoutMs }) } = options
  const circuit = createCircuit({
    settings: options.breaker ?? BREAKER,
    askHealth: (signal) => http.exchange({ ...HEALTH, signal }),
    random: options.random ?? Math.random,
    log,
  })
  const slots = bulkhead(maxInFlight, maxQueued)
  const ask = (question: Ask) => circuit.run(() => http.exchange(question))

  const send: Bank['send'] = async (key, request) => {
    const { path } = ENDPOINTS[request.endpoint]
    const exchange = await ask({ method: 'POST', path, key, body: JSON.stringify(request.body()) })
    if (exchange === null) return { answer: CIRCUIT_OPEN, calls: [] }
    const answer = readSend(request, exchange.reply)
    const call = recordOf(exchange, 'SEND', `POST ${path}`, answer.is)
    if (answer.is === 'misused')
      log.error(
        {
          alarm: 'bank-request-misused',
          operation: request.operation ?? key,
          endpoint: call.endpoint,
          httpStatus: call.httpStatus,
          errorCode: call.errorCode,
        },
        `the bank refused a request of ours as malformed (${answer.reason}): nothing was done, it is not sent again; a bug of ours, or a wrong BANK_URL`,
      )
    return { answer, calls: [call] }
  }

  const healthy: Bank['healthy'] = async () => {
    const exchange = await ask(HEALTH)
    if (exchange === null) return { healthy: false, calls: [] }
    const isWell = isHealthy(exchange.reply)
    return {
      healthy: isWell,
      calls: [recordOf(exchange, 'HEALTH', 'GET /health', isWell ? 'healthy' : 'unhealthy')],
    }
  }

  const probe: Bank['probe'] = async (key, request) => {
    const before = await healthy()
    if (before.calls.length === 0) return { answer: CIRCUIT_OPEN, calls: [] }
    if (!before.healthy)
      return {
        answer: { is: 'ambiguous', reason: 'not probed: the bank is not healthy' },
        calls: before.calls,
      }
    const { path } = ENDPOINTS[request.endpoint]
    const exchange = await ask({ method: 'POST', path, key, body: '' })
    if (exchange === null) return { answer: CIRCUIT_OPEN, calls: before.calls }
    const answer = readProbe(request, exchange.reply)
    return { answer, calls: [...before.calls, recordOf(exchange, 'PROBE', `POST ${path}`, answer.is)] }
  }

  const look: Bank['look'] = async (endpoint, id) => {
    const { path } = ENDPOINTS[endpoint]
    const exchange = await ask({ method: 'GET', path: `${path}/${encodeURIComponent(id)}` })
    if (exchange === null) return { found: { is: 'noAnswer', reason: 'the circuit is open' }, calls: [] }
    const found = readLook(endpoint, id, exchange.reply)
    return { found, calls: [recordOf(exchange, 'LOOKUP', `GET ${path}/{id}`, found.is)] }
  }

  const admit: Bank['admit'] = async (work) => {
    const refused = circuit.refusal()
    if (refused !== null) return await work(refused)
    let started = false
    try {
      return await slots.execute(() => {
        started = true
        // Asked again: the circuit may have opened while this waited.
        return work(circuit.refusal())
      })
    } catch (error) {
      // cockatiel can also refuse work that it had queued, when newcomers take both the slot and its place.
      if (started || !(error instanceof Error && isBulkheadRejectedError(error))) throw error
      return await work(FULL)
    }
  }

  const bank: Bank = {
    baseUrl,
    send,
    probe,
    look,
    healthy,
    admit,
    state: () => ({
      circuit: circuit.position(),
      inFlight: maxInFlight - slots.executionSlots,
      inFlightMax: maxInFlight,
      queued: maxQueued - slots.queueSlots,
    }),
    close: async () => {
      circuit.stop()
      await http.close()
    },
  }
  return observed(bank, log)
}

function recordOf(
  { startedAt, durationMs, reply }: Exchange,
  purpose: BankCallPurpose,
  endpoint: string,
  conclusion: string,
): ExchangeRecord {
  return {
    id: timeOrderedId(),
    purpose,
    endpoint,
    startedAt,
    durationMs,
    httpStatus: reply.arrived ? reply.status : null,
    errorCode: errorCodeOf(reply),
    replayed: reply.arrived && reply.replayed,
    conclusion,
  }
}
