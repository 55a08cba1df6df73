import { GraphQLError } from 'graphql'

/**
 * Bodies of more than BODY_BYTES_MAX are refused. Yoga's own limit sends every body through a stream and makes a second
 * request of it, which took a tenth of the gateway's CPU (docs/performance.md). Here a length that is announced is taken
 * at its word, since Node's parser hands on no byte more; only a body without one is counted.
 */
export async function limitBody(request: Request): Promise<Request> {
  const announced = request.headers.get('content-length')
  if (announced !== null) {
    if (!/^\d+$/.test(announced)) throw refusal(400, 'BAD_REQUEST', 'Content-Length header is invalid.')
    if (Number(announced) > BODY_BYTES_MAX) throw TOO_LARGE
    return request
  }
  if (request.body === null) return request
  const chunks: Uint8Array[] = []
  // Not `for await`, which would close the connection before it has its answer.
  const reader = (request.body as ReadableStream<Uint8Array>).getReader()
  let bytes = 0
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    bytes += read.value.byteLength
    if (bytes > BODY_BYTES_MAX) throw TOO_LARGE
    chunks.push(read.value)
  }
  const { url, method, headers, signal } = request
  return new Request(url, { method, headers, signal, body: Buffer.concat(chunks) })
}

/** A request here is a few kilobytes. */
const BODY_BYTES_MAX = 100_000

const refusal = (status: number, code: string, message: string) =>
  new GraphQLError(message, { extensions: { code, http: { status } } })
const TOO_LARGE = refusal(413, 'REQUEST_ENTITY_TOO_LARGE', 'Request body too large')
