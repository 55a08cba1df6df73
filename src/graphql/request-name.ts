import { propagation, ROOT_CONTEXT } from '@opentelemetry/api'
import type { Context as Trace } from '@opentelemetry/api'
import type { Plugin } from 'graphql-yoga'
import { mayHoldCard } from '../payment/card-guard.ts'
import { timeOrderedId } from '../payment/ids.ts'

/**
 * What a request is called: by X-Request-Id when its sender has given it a name, else by a new one. It goes back in the
 * same header and stands in every line that is logged on its behalf. Its `traceparent` says which trace it is a part of.
 */
export type Named = { requestId: string; trace: Trace }

export const nameRequest: Plugin<object, Named> = {
  onRequest({ request, serverContext }) {
    const given = request.headers.get('x-request-id') ?? ''
    serverContext.requestId = isName(given) ? given : `req_${timeOrderedId()}`
    serverContext.trace = propagation.extract(ROOT_CONTEXT, request.headers, HEADERS)
  },
  onResponse({ response, serverContext }) {
    const { requestId } = serverContext as Partial<Named>
    if (requestId !== undefined) response.headers.set('x-request-id', requestId)
  },
}

/** What could be a card number does not get into the log, nor what could disturb those who read it. */
function isName(text: string): boolean {
  return /^[\w.:/+=-]{1,128}$/.test(text) && !mayHoldCard(text)
}

const HEADERS = {
  get: (headers: Headers, name: string) => {
    const value = headers.get(name) ?? ''
    // `tracestate` may be anything, and goes on to whoever collects the traces; `traceparent` is hexadecimal.
    return value === '' || (name === 'tracestate' && mayHoldCard(value)) ? undefined : value
  },
  keys: (headers: Headers) => [...headers.keys()],
}
