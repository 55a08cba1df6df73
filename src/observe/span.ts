import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { Attributes, Context, Span } from '@opentelemetry/api'

/**
 * Spans of OpenTelemetry, by its semantic conventions: no-ops unless tracing.ts was started. They hold ids of ours and
 * the names of things, nothing that a client or the bank has written (but for an operation's name, in which no card can
 * be): neither keys nor texts of errors, which can quote an input.
 */
const tracer = trace.getTracer('ficmart-payment-gateway')

/** Set once spans are kept: a request need not make any before. */
export const tracing = { isOn: false }

/** As the API shows them: `op_...`, `pay_...`. */
export type Ids = { operation?: string | null | undefined; payment?: string | null | undefined }

/** Runs `work` in a span of its own, below the one that is active, or below `parent`. */
export async function inSpan<T>(
  name: string,
  ids: Ids,
  work: (span: Span) => Promise<T>,
  { kind = SpanKind.INTERNAL, parent = context.active(), attributes = {}, typeOf = nameOf }: How = {},
): Promise<T> {
  const options = { kind, attributes: { ...attributes, ...idsOf(ids) } }
  return await tracer.startActiveSpan(name, options, parent, async (span) => {
    try {
      return await work(span)
    } catch (error) {
      failed(span, typeOf(error))
      throw error
    } finally {
      span.end()
    }
  })
}

/** `typeOf`: what the convention calls `error.type`, of few values. */
type How = { kind?: SpanKind; parent?: Context; attributes?: Attributes; typeOf?: (error: unknown) => string }

const nameOf = (error: unknown) => (error instanceof Error ? error.name : typeof error)

export function failed(span: Span, errorType: string): void {
  span.setStatus({ code: SpanStatusCode.ERROR })
  span.setAttribute('error.type', errorType)
}

/** One that is ended by hand. `startedMs`: of the monotonic clock, when it began before it was known whose it is. */
export function startSpan(
  name: string,
  { kind, parent, startedMs, attributes }: SpanStart,
): { span: Span; below: Context } {
  const span = tracer.startSpan(name, { kind, attributes, startTime: startedMs }, parent)
  return { span, below: trace.setSpan(parent, span) }
}
type SpanStart = { kind: SpanKind; parent: Context; startedMs: number; attributes: Attributes }

/** A span of an exchange with somebody else that has ended already; `errorType` null: it went well. */
export function exchangeSpan(
  name: string,
  { startedAt, durationMs, errorType }: { startedAt: Date; durationMs: number; errorType: string | null },
  attributes: Attributes,
): void {
  const span = tracer.startSpan(name, { kind: SpanKind.CLIENT, startTime: startedAt, attributes })
  if (errorType !== null) failed(span, errorType)
  span.end(startedAt.getTime() + durationMs)
}

/** Whom an exchange was with, as service maps know it. `url`: without a query, which may hold a secret. */
export function httpPeer(peer: string, url: URL): Attributes {
  const port = url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port)
  return { 'peer.service': peer, 'server.address': url.hostname, 'server.port': port }
}

export function idsOf({ operation, payment }: Ids): Attributes {
  return {
    ...(operation != null && { 'gateway.operation': operation }),
    ...(payment != null && { 'gateway.payment': payment }),
  }
}
