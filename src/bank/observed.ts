import { context } from '@opentelemetry/api'
import type { Logger } from 'pino'
import { bankRefusals, bankSeconds } from '../observe/metrics.ts'
import { exchangeSpan, httpPeer, idsOf } from '../observe/span.ts'
import type { Bank, ExchangeRecord } from './bank.ts'

/** The bank, with every exchange told to the numbers, the trace and, when it took long, the log. */
export function observed(bank: Bank, log: Logger): Bank {
  const base = new URL(bank.baseUrl)
  const peer = httpPeer('bank', base)
  async function told<Asked extends { calls: ExchangeRecord[] }>(
    asking: Promise<Asked>,
    operation: string | null = null,
  ): Promise<Asked> {
    const asked = await asking
    for (const call of asked.calls) tell(call, operation)
    return asked
  }

  function tell(
    { startedAt, durationMs, endpoint, ...call }: ExchangeRecord,
    operation: string | null,
  ): void {
    const { purpose, conclusion, httpStatus, errorCode, replayed } = call
    bankSeconds.observe({ endpoint, purpose, conclusion }, durationMs / 1_000)
    const [method = '', template = ''] = endpoint.split(' ')
    const isFailed = httpStatus === null || httpStatus >= 500 || conclusion === 'misused'
    const errorType = isFailed ? (httpStatus === null ? (errorCode ?? '_OTHER') : String(httpStatus)) : null
    exchangeSpan(
      endpoint,
      { startedAt, durationMs, errorType },
      {
        ...idsOf({ operation }),
        ...peer,
        'http.request.method': method,
        'url.template': template,
        'url.full': base.origin + base.pathname.replace(/\/+$/, '') + template,
        'bank.purpose': purpose,
        'bank.conclusion': conclusion,
        'bank.replayed': replayed,
        ...(httpStatus !== null && { 'http.response.status_code': httpStatus }),
        ...(httpStatus !== null && errorCode !== null && { 'bank.error_code': errorCode }),
      },
    )
    if (durationMs < SLOW_MS) return
    const line = { operation, endpoint, purpose, durationMs, httpStatus, errorCode, conclusion }
    log.warn(line, 'the bank took long; the operation goes on by what was concluded')
  }

  return {
    ...bank,
    send: (key, request) => told(bank.send(key, request), request.operation ?? key),
    probe: (key, request) => told(bank.probe(key, request), request.operation ?? key),
    look: (endpoint, id) => told(bank.look(endpoint, id)),
    healthy: () => told(bank.healthy()),
    // What waits for a place is begun by whoever leaves one, and would go on in that one's trace.
    admit: (work) =>
      bank.admit(
        context.bind(context.active(), (refused) => {
          if (refused !== null)
            bankRefusals.inc({ reason: bank.state().circuit === 'closed' ? 'full' : 'circuit_open' })
          return work(refused)
        }),
      ),
  }
}

/** The bank takes 2 s at most when it is well. */
const SLOW_MS = 5_000
