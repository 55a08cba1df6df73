import type { Plugin } from 'graphql-yoga'

/**
 * What every answer says to whoever passes it on. Payments are in no cache (the schema, which has an ETag, may be in its client's); a stream is passed on as it comes, where
 * nginx would keep its events until there are 32 kB of them, and its connection ends when its client said that it should.
 */
export const answerHeaders: Plugin = {
  onResponse({ response: { headers } }) {
    const isStream = headers.get('content-type')?.startsWith('text/event-stream') === true
    const isSchema = headers.has('etag')
    if (isStream) {
      // Yoga's own, `keep-alive`, holds the connection open after the end against a client's `close`.
      headers.delete('connection')
      headers.set('cache-control', 'no-cache, no-transform')
      headers.set('x-accel-buffering', 'no')
    } else if (!isSchema) headers.set('cache-control', 'no-store')
    headers.set('x-content-type-options', 'nosniff')
    // It may read the answer, or may not (gate.ts).
    headers.set('vary', isSchema ? 'Authorization, Origin' : 'Origin')
  },
}
