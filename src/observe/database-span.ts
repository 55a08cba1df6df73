import { context, createContextKey, SpanKind, trace } from '@opentelemetry/api'
import type { Attributes, Span } from '@opentelemetry/api'
import { inSpan } from './span.ts'
import type { Ids } from './span.ts'

/**
 * The database in the trace: a span for each step that writes, from the wish to the answer, and one for each statement
 * that is asked outside of a step. What is asked within a step is a part of it: many steps may share a statement.
 */
const IN_STEP = createContextKey('in a step of the database')

/** As postgres.js has parsed it from the URL. */
type Target = { host: string[]; port: number[]; path?: unknown; database: string }

export async function inStep<T>(
  name: string,
  ids: Ids,
  target: Target,
  work: (span: Span) => Promise<T>,
): Promise<T> {
  const parent = context.active().setValue(IN_STEP, true)
  const attributes = { ...peerOf(target), 'db.query.summary': name }
  return await inSpan(name, ids, work, { kind: SpanKind.CLIENT, parent, attributes, typeOf: codeOf })
}

/** Only as a part of something: what looks every second for what is due is no trace of its own. */
export async function inStatement<T>(text: () => string, target: Target, work: () => Promise<T>): Promise<T> {
  const isPart = trace.getActiveSpan()?.isRecording() === true
  if (!isPart || context.active().getValue(IN_STEP) === true) return await work()
  const { operation, table } = summaryOf(text())
  const name = `${operation} ${table}`.trim()
  const attributes = {
    ...peerOf(target),
    'db.query.summary': name,
    'db.operation.name': operation,
    ...(table !== '' && { 'db.collection.name': table }),
  }
  return await inSpan(name, {}, work, { kind: SpanKind.CLIENT, attributes, typeOf: codeOf })
}

/** By the words of our own text: it has parameters, and no value. */
function summaryOf(text: string): { operation: string; table: string } {
  const [, verb = 'select'] = /^\W*(\w+)/.exec(text) ?? []
  const [, table = ''] = /\b(?:from|into|update)\s+([a-z_]+)/i.exec(text) ?? []
  return { operation: verb.toUpperCase(), table }
}

function peerOf({ host: [host = ''], port: [port = 0], path, database }: Target): Attributes {
  return {
    'peer.service': 'postgresql',
    'db.system.name': 'postgresql',
    'db.namespace': database,
    ...(typeof path === 'string'
      ? { 'server.address': path }
      : { 'server.address': host, 'server.port': port }),
  }
}

/** SQLSTATE, or the driver's own word. */
function codeOf(error: unknown): string {
  const { code } = Object(error) as { code?: unknown }
  return typeof code === 'string' ? code : error instanceof Error ? error.name : typeof error
}
