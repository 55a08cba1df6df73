import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { Attributes, Context, Span } from '@opentelemetry/api'

/**
 * Spans of OpenTelemetry: no-ops unless tracing.ts was started. They hold ids of ours and the names of things, nothing
 * that a client or the bank has written: neither keys nor texts of errors, which can quote an input.
 */
const tracer = trace.getTracer('ficmart-payment-gateway')

/** As the API shows them: `op_...`, `pay_...`. */
export type Ids = { operation?: string | null | undefined; payment?: string | null | undefined }

/** Runs `work` in a span of its own, below the one that is active, or below `parent`. */
export async function inSpan<T>(
  name: string,
  ids: Ids,
  work: (span: Span) => Promise<T>,
  { kind = SpanKind.INTERNAL, parent = context.active() }: { kind?: SpanKind; parent?: Context } = {},
): Promise<T> {
  return await tracer.startActiveSpan(name, { kind, attributes: idsOf(ids) }, parent, async (span) => {
    try {
      return await work(span)
    } catch (error) {
      span.setStatus({ code: SpanStatusCode.ERROR })
      span.setAttribute('error.type', error instanceof Error ? error.name : typeof error)
      throw error
    } finally {
      span.end()
    }
  })
}

/** A span of an exchange with somebody else that has ended already. */
export function exchangeSpan(
  name: string,
  { startedAt, durationMs, failed }: { startedAt: Date; durationMs: number; failed: boolean },
  attributes: Attributes,
): void {
  const span = tracer.startSpan(name, { kind: SpanKind.CLIENT, startTime: startedAt, attributes })
  if (failed) span.setStatus({ code: SpanStatusCode.ERROR })
  span.end(startedAt.getTime() + durationMs)
}

export function idsOf({ operation, payment }: Ids): Attributes {
  return {
    ...(operation != null && { 'gateway.operation': operation }),
    ...(payment != null && { 'gateway.payment': payment }),
  }
}
