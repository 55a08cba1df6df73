import { setTimeout as pause } from 'node:timers/promises'
import { Gauge, Registry } from 'prom-client'
import type { WhoAsks } from '../access/who.ts'
import type { Gateway } from '../gateway.ts'
import { registry } from '../observe/metrics.ts'
import { receiptsInNumbers } from '../payment/in-numbers.ts'
import type { ReceiptsInNumbers } from '../payment/in-numbers.ts'
import type { Page } from './beside.ts'
import { errorBody, JSON_TYPE } from './error-body.ts'

/**
 * `GET /metrics` for Prometheus: what the process counted, how it stands now, and what the receipts say. Without the
 * database it answers as quickly, with `gateway_database_up 0` and without the numbers of the receipts: an old number
 * would look like a true one.
 */
export function metricsPage(gateway: Gateway, whoAsks: WhoAsks): Page {
  const receipts = createReceiptsReader(gateway)
  return async (request, { Response }) => {
    if (!(await mayRead(whoAsks, request))) {
      return new Response(errorBody('UNAUTHENTICATED', FOR_OPERATORS), { status: 401, headers: ASK_FOR_KEY })
    }
    const text = await pageOf(gateway, await receipts())
    return new Response(text, { headers: { 'content-type': registry.contentType } })
  }
}

/** Prometheus has an operator's key. */
async function mayRead(whoAsks: WhoAsks, request: Request): Promise<boolean> {
  const who = await whoAsks(request)
  return 'role' in who && (who.role === 'ops' || who.role === 'dev')
}

const FOR_OPERATORS = 'Metrics are for operators: send the API key of one, Authorization: Bearer <key>.'
const ASK_FOR_KEY = { 'content-type': JSON_TYPE, 'www-authenticate': 'Bearer' }

async function pageOf(gateway: Gateway, receipts: ReceiptsInNumbers | null): Promise<string> {
  const now = new Registry()
  const gauge = (name: string, help: string, value: number) =>
    new Gauge({ name, help, registers: [now] }).set(value)

  const { circuit, inFlight, queued } = gateway.bank.state()
  gauge(
    'gateway_bank_circuit_open',
    'Nothing is sent to the bank but the question for its health.',
    +(circuit !== 'closed'),
  )
  gauge('gateway_bank_in_flight', 'Payments that have a place at the bank (BANK_IN_FLIGHT_MAX).', inFlight)
  gauge('gateway_bank_queued', 'Payments that wait for a place at the bank (BANK_QUEUE_MAX).', queued)
  gauge(
    'gateway_draining',
    'The process is stopping: nothing new is sent to the bank.',
    +gateway.inFlight.draining,
  )
  const streams = [...gateway.live.followers.values()].reduce((sum, { size }) => sum + size, 0)
  gauge('gateway_live_streams', 'Subscriptions that are open.', streams)
  gauge('gateway_database_connections_max', 'The size of the pool.', gateway.sql.options.max)
  gauge('gateway_database_up', 'The receipts could be read just now.', +(receipts !== null))
  if (receipts !== null) {
    for (const [key, [name, help]] of Object.entries(RECEIPTS)) {
      gauge(name, help, receipts[key as keyof ReceiptsInNumbers])
    }
  }
  return `${await registry.metrics()}\n${await now.metrics()}`
}

/** The same from every process: they share the receipts. */
const RECEIPTS: Record<keyof ReceiptsInNumbers, [name: string, help: string]> = {
  operationsUnderWay: ['gateway_operations_under_way', 'Unresolved operations that a process works on.'],
  operationsDue: [
    'gateway_operations_due',
    'Unresolved operations whose process is gone or left them: recovery is to ask the bank.',
  ],
  operationsInReview: [
    'gateway_operations_in_review',
    'Unresolved operations that only an operator can settle.',
  ],
  oldestUnresolvedSeconds: [
    'gateway_oldest_unresolved_seconds',
    'Age of the oldest unresolved operation that is not in review.',
  ],
  lateLooksDue: [
    'gateway_late_looks_due',
    'Answered operations about which the bank is to be asked once more.',
  ],
  paymentsInReview: ['gateway_payments_in_review', 'Payments that an operator has to look at.'],
  oldestReviewSeconds: ['gateway_oldest_review_seconds', 'How long the first of them has waited.'],
  possibleOrphanHolds: [
    'gateway_possible_orphan_holds',
    'Failed authorizations that may have left a hold at the bank. Never a charge.',
  ],
  oldestPossibleOrphanHoldSeconds: [
    'gateway_oldest_possible_orphan_hold_seconds',
    'How long ago the first of them failed.',
  ],
  strayHolds: [
    'gateway_stray_holds',
    'Holds at the bank that no receipt wants and that are not released yet.',
  ],
  oldestStrayHoldSeconds: ['gateway_oldest_stray_hold_seconds', 'How long ago the first of them was found.'],
  holdsExpiring: ['gateway_holds_expiring', 'Authorized payments whose hold ends within 24 hours.'],
  holdsExpired: [
    'gateway_holds_expired',
    'Authorized payments whose hold has ended and that the gateway has not released yet.',
  ],
  oldestExpiredHoldSeconds: ['gateway_oldest_expired_hold_seconds', 'How long ago the first of them ended.'],
  webhooksWaiting: [
    'gateway_webhooks_waiting',
    'Webhooks that FicMart has not taken yet; 100,000 stands for more.',
  ],
  oldestWebhookSeconds: [
    'gateway_oldest_webhook_seconds',
    'Age of one of them: of the oldest payment that has one.',
  ],
  webhooksGivenUp: ['gateway_webhooks_given_up', 'Webhooks that were not taken in three days.'],
  discrepancies: [
    'gateway_discrepancies',
    'What the newest reconciliation by GET and the newest by statement found and nobody mended.',
  ],
  lastReconciliationSeconds: [
    'gateway_last_reconciliation_seconds',
    'How long ago the last one ended; before the first, how old the receipts are.',
  ],
}

/** However many ask: one statement at a time, and one every few seconds. Null when there is no answer in time. */
function createReceiptsReader(gateway: Gateway): () => Promise<ReceiptsInNumbers | null> {
  let last: { numbers: ReceiptsInNumbers; atMs: number } | null = null
  let reading: Promise<ReceiptsInNumbers | null> | null = null

  async function read(): Promise<ReceiptsInNumbers | null> {
    try {
      const numbers = await receiptsInNumbers(gateway)
      last = { numbers, atMs: gateway.clock.monotonicMs() }
      return numbers
    } catch (error) {
      gateway.log.warn({ err: error }, 'the receipts could not be read for the metrics')
      return null
    } finally {
      reading = null
    }
  }

  return async () => {
    if (last !== null && gateway.clock.monotonicMs() - last.atMs < KEPT_MS) return last.numbers
    reading ??= read()
    const late = new AbortController()
    try {
      return await Promise.race([reading, pause(READ_WITHIN_MS, null, { signal: late.signal })])
    } finally {
      late.abort()
    }
  }
}

/** Several that scrape, or one that is in a hurry, cost no more than one. */
const KEPT_MS = 3_000
/** Prometheus gives up after 10 s; a database that takes longer than this is no help to a payment. */
const READ_WITHIN_MS = 1_000
