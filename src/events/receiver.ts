import { SpanKind } from '@opentelemetry/api'
import { Webhook } from 'standardwebhooks'
import { Pool } from 'undici'
import { connector } from '../http-connector.ts'
import { failed, httpPeer, inSpan } from '../observe/span.ts'
import { eventId, paymentId } from '../payment/ids.ts'
import type { Claimed } from './deliveries.ts'

/**
 * FicMart's end of the webhooks: one POST by the Standard Webhooks scheme. A 2xx is a receipt; anything else, a redirect
 * too, and no answer in time, is a failure, whatever the receiver has made of it: it is sent again under the same id.
 */
export type Receiver = {
  send(delivery: Claimed): Promise<Outcome>
  close(): Promise<void>
  /** It took the last one. */
  isWell: boolean
}

export type Outcome = {
  delivered: boolean
  httpStatus: number | null
  /** Why there was no receipt, in one word, for instance TIMEOUT. */
  error: string | null
  /** How long the receiver wants to be left alone (Retry-After). */
  retryAfterMs: number | null
}

/** Time for a receiver that writes to a database of its own before it answers. */
const ATTEMPT_TIMEOUT_MS = 10_000
/** Nothing in an answer is read but its head. A body within these leaves the connection to the next event. */
const RESPONSE_BYTES_MAX = 64 * 1024
const BODY_TIMEOUT_MS = 100

export function createReceiver(options: {
  url: string
  /** `whsec_...`; two while one replaces the other: each signs, and the receiver may know either. */
  secrets: readonly string[]
  timeoutMs?: number
}): Receiver {
  const url = new URL(options.url)
  const { origin, pathname, search } = url
  const signers = options.secrets.map((secret) => new Webhook(secret))
  const timeoutMs = options.timeoutMs ?? ATTEMPT_TIMEOUT_MS
  const pool = new Pool(origin, {
    pipelining: 1,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: connector({ timeout: timeoutMs / 2 }),
  })

  async function send(delivery: Claimed): Promise<Outcome> {
    const id = eventId(delivery.paymentId, delivery.version)
    const payload = payloadOf(delivery)
    const now = new Date()
    try {
      const { statusCode, headers, body } = await pool.request({
        method: 'POST',
        path: pathname + search,
        headers: {
          'content-type': 'application/json',
          'user-agent': 'ficmart-payment-gateway',
          'webhook-id': id,
          'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
          'webhook-signature': signers.map((signer) => signer.sign(id, now, payload)).join(' '),
        },
        body: payload,
        signal: AbortSignal.timeout(timeoutMs),
      })
      await body
        .dump({ limit: RESPONSE_BYTES_MAX, signal: AbortSignal.timeout(BODY_TIMEOUT_MS) })
        .catch(() => null)
      if (statusCode >= 200 && statusCode < 300)
        return { delivered: true, httpStatus: statusCode, error: null, retryAfterMs: null }
      const retryAfterMs = readRetryAfter(headers['retry-after'])
      return { delivered: false, httpStatus: statusCode, error: `HTTP_${statusCode}`, retryAfterMs }
    } catch (error) {
      return { delivered: false, httpStatus: null, error: codeOf(error), retryAfterMs: null }
    }
  }

  const attributes = {
    ...httpPeer('webhook-receiver', url),
    'http.request.method': 'POST',
    // Its path and query may hold a secret.
    'url.full': `${origin}/…`,
  }
  const traced: Receiver['send'] = (delivery) =>
    inSpan(
      'POST',
      { payment: paymentId(delivery.paymentId) },
      async (span) => {
        const outcome = await send(delivery)
        const { httpStatus, error } = outcome
        if (httpStatus !== null) span.setAttribute('http.response.status_code', httpStatus)
        if (error !== null) failed(span, httpStatus === null ? error : String(httpStatus))
        return outcome
      },
      { kind: SpanKind.CLIENT, attributes },
    )

  return { send: traced, close: () => pool.close(), isWell: true }
}

/** Seconds, or a date in one of the three forms of RFC 9110 (5.6.7), all in GMT; null when it is neither, or past. */
function readRetryAfter(header: string | string[] | undefined): number | null {
  const text = String(header)
  const ms = /^\d+$/.test(text)
    ? Number(text) * 1_000
    : /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)/.test(text)
      ? Date.parse(text.endsWith(' GMT') ? text : `${text} GMT`) - Date.now()
      : Number.NaN
  return ms > 0 ? ms : null
}

/** Only what never changes, so that an event says the same whenever it is sent. */
export function payloadOf(delivery: Claimed): string {
  const { orderId, customerId, amountCents, currency, cardBrand, cardLast4, version } = delivery
  const { fromState, toState, at, bankAt } = delivery
  return JSON.stringify({
    id: eventId(delivery.paymentId, version),
    type: eventType(toState),
    timestamp: at,
    data: {
      payment: {
        id: paymentId(delivery.paymentId),
        orderId,
        customerId,
        amount: { cents: amountCents, currency },
        card: { brand: cardBrand, last4: cardLast4 },
        state: toState,
        version,
      },
      transition: { version, fromState, toState, at, bankAt },
    },
  })
}

export const eventType = (toState: Claimed['toState']) => `payment.${toState.toLowerCase()}`

function codeOf(error: unknown): string {
  const { name, code } = Object(error) as { name?: unknown; code?: unknown }
  if (name === 'TimeoutError') return 'TIMEOUT'
  return typeof code === 'string' ? code : String(name)
}
