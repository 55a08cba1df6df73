import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { ExecutionResult } from 'graphql'

/** Node's answer, where there is one: a test that asks `fetch` has none. */
export type OnHttp = { res?: ServerResponse }

/**
 * Live updates are never over: a stream that ends has left something untold, whether this process stops, its key or token
 * is over, or an update could not be told (it is not told again by this stream). So it ends as a connection that breaks,
 * and its client begins another, which tells all. After `event: complete` graphql-sse and urql would never ask again.
 */
export async function* unending(
  results: AsyncIterable<ExecutionResult>,
  response: ServerResponse | undefined,
): AsyncGenerator<ExecutionResult> {
  for await (const result of results) {
    yield result
    if (result.errors !== undefined) break
  }
  if (response === undefined) throw new DOMException('The stream broke off.', 'AbortError')
  if (response.closed) return
  const closed = once(response, 'close')
  // What was told last is written by then; it is sent before the connection closes.
  setImmediate(() => response.socket?.destroySoon())
  await closed
}
