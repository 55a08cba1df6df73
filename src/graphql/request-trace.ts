import { ROOT_CONTEXT, SpanKind } from '@opentelemetry/api'
import type { Context as Trace, Span } from '@opentelemetry/api'
import { getOperationAST } from 'graphql'
import type { ExecutionArgs } from 'graphql'
import type { Plugin } from 'graphql-yoga'
import type { Who } from '../access/who.ts'
import { failed, startSpan, tracing } from '../observe/span.ts'
import type { Asked } from './gate.ts'
import { codeOf } from './public-errors.ts'
import type { Named } from './request-name.ts'

/**
 * A request in its trace: the HTTP exchange, below it the GraphQL operation, and below that its fields
 * (observed-fields.ts). The caller's `traceparent` counts once it is known who they are.
 */
export type Served = { served?: { startedMs: number; span: Span | null } | undefined }

/** What a browser says of its trace decides nothing here, nor does what somebody says who is not known. */
export function traceOf(who: Who | undefined, callers: Trace): Trace {
  return who === undefined || who.role === 'customer' ? ROOT_CONTEXT : callers
}

const ROUTE = '/graphql'

export const traceRequest: Plugin<Operation, Asked & Named & Served> = {
  onRequest({ url, serverContext }) {
    // Without it a request spends nothing on its trace.
    if (tracing.isOn && url.pathname === ROUTE)
      serverContext.served = { startedMs: performance.now(), span: null }
  },
  onExecute({ args }) {
    const span = startOperation(args)
    if (span?.isRecording() !== true) return
    return {
      onExecuteDone: ({ result }) => {
        const [error] = 'errors' in result ? (result.errors ?? []) : []
        // Without one underneath it is graphql-js that complains of the request.
        if (error !== undefined)
          failed(span, error.originalError === undefined ? 'BAD_REQUEST' : codeOf(error.originalError))
        span.end()
      },
    }
  },
  onSubscribe({ args }) {
    const span = startOperation(args)
    return { onSubscribeResult: () => span?.end() }
  },
  onResponse({ request, response, serverContext }) {
    const { served, who } = serverContext as Partial<Asked & Served>
    if (served === undefined) return
    const span = served.span ?? startHttp(request, traceOf(who, serverContext.trace), served).span
    span.setAttribute('http.response.status_code', response.status)
    if (response.status >= 500) failed(span, String(response.status))
    span.end()
  },
}

/** What is used of the context of an operation; `trace` is where its fields' spans begin. */
type Operation = { request: Request; trace: Trace } & Served

function startOperation(
  args: Pick<ExecutionArgs, 'document' | 'operationName'> & { contextValue: Operation },
) {
  const { contextValue: operation, document, operationName } = args
  const { served, request } = operation
  if (served === undefined) return null
  const http = startHttp(request, operation.trace, served)
  served.span = http.span
  const asked = getOperationAST(document, operationName)
  const { span, below } = startSpan(asked?.operation ?? 'GraphQL Operation', {
    kind: SpanKind.SERVER,
    parent: http.below,
    startedMs: performance.now(),
    attributes: {
      ...(asked !== null && asked !== undefined && { 'graphql.operation.type': asked.operation }),
      // gate.ts has seen to it that no name holds a card.
      ...(asked?.name !== undefined && { 'graphql.operation.name': asked.name.value.slice(0, NAME_MAX) }),
    },
  })
  operation.trace = below
  return span
}

const NAME_MAX = 100

function startHttp({ method, url }: Request, parent: Trace, { startedMs }: NonNullable<Served['served']>) {
  const known = METHODS.has(method) ? method : '_OTHER'
  return startSpan(`${METHODS.has(method) ? method : 'HTTP'} ${ROUTE}`, {
    kind: SpanKind.SERVER,
    parent,
    startedMs,
    attributes: {
      'http.request.method': known,
      'http.route': ROUTE,
      'url.path': ROUTE,
      'url.scheme': url.startsWith('https:') ? 'https' : 'http',
    },
  })
}

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH'])
