import { createServer, STATUS_CODES } from 'node:http'
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http'
import { errorBody, JSON_TYPE } from './error-body.ts'

/**
 * The API on node:http, which closes the connections of clients that are slow, silent or gone. What comes is HTTP as
 * proxies and old clients speak it, too: 1.0 without `Host`, a whole URL as the target. What cannot be read is refused
 * here, in a body that says why: Node would send an empty one, and yoga its stack.
 */
export function httpServer(graphql: { requestListener: RequestListener }, patience = PATIENCE): Server {
  const { headersMs, requestMs, idleMs, stalledMs, checkEveryMs } = patience
  const options = {
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    keepAliveTimeout: idleMs,
    connectionsCheckingInterval: checkEveryMs,
    // A peer that is gone without a word is noticed by the operating system.
    keepAlive: true,
    keepAliveInitialDelay: idleMs,
    // `faultIn` looks at it.
    requireHostHeader: false,
  }
  const http = createServer(options, (request, response) => {
    const fault = faultIn(request)
    if (fault === null) graphql.requestListener(request, response)
    else refuse(response, 400, fault)
  })
  const answering = answersOf(http)
  http.on('checkExpectation', (_, response: ServerResponse) => refuse(response, 417, EXPECTATION))
  http.on('connect', (_, socket) => socket.end(refusal(405, NO_TUNNELS)))
  http.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const hasBegun = [...answering].some(({ req, headersSent }) => req.socket === socket && headersSent)
    if (socket.writable && !hasBegun) {
      const [status, message] = UNREADABLE[error.code ?? ''] ?? [400, NOT_HTTP]
      socket.write(refusal(status, message))
    }
    socket.destroy()
  })
  return http.setTimeout(stalledMs, (socket) => {
    const answers = [...answering].filter(({ req }) => req.socket === socket)
    // Until it begins, an answer takes what it takes: each mutation of a document has a deadline of its own.
    if (answers.length === 0 || answers.some(({ headersSent }) => headersSent)) socket.destroy()
  })
}

/** The answers that are due or under way, from now on. */
export function answersOf(http: Server): ReadonlySet<ServerResponse> {
  const answers = new Set<ServerResponse>()
  http.prependListener('request', (_, response: ServerResponse) => {
    answers.add(response)
    response.once('close', () => answers.delete(response))
  })
  return answers
}

/**
 * What is wrong with a request's target or host; null when together they make a URL. A target in absolute form, as
 * clients send it that take us for their proxy, becomes its path, and its authority the host (RFC 9112, 3.2).
 */
function faultIn(request: IncomingMessage): string | null {
  const { headers, headersDistinct, method, httpVersion } = request
  const { length: hosts } = headersDistinct['host'] ?? []
  if (hosts > 1 || (hosts === 0 && httpVersion !== '1.0')) return ONE_HOST
  let target = request.url ?? ''
  if (target === '*' && method === 'OPTIONS') target = '/'
  else if (!target.startsWith('/')) {
    const url = URL.canParse(target) ? new URL(target) : null
    if (url?.protocol !== 'http:' && url?.protocol !== 'https:') return NO_TARGET
    target = url.pathname + url.search
    headers.host = url.host
  }
  // A proxy that joins an address with a slash and a path with one sends two.
  request.url = target.replace(/^\/+/, '/')
  const host = headers.host ?? ''
  const isHost = AUTHORITY.test(host) && URL.canParse(`http://${host || 'localhost'}${request.url}`)
  return isHost ? null : NO_HOST
}

/** Nothing that would end it in a URL, and so make a part of it the path. */
const AUTHORITY = /^[^/\\?#@]*$/

const ONE_HOST = 'A request of HTTP/1.1 has one header Host. Nothing was done.'
const NO_HOST = 'The header Host is no host, with or without a port. Nothing was done.'
const NO_TARGET = 'The target of the request is no path and no http URL. Ask for /graphql. Nothing was done.'
const NO_TUNNELS = 'This is no proxy. Send a POST to /graphql. Nothing was done.'
const EXPECTATION = 'Of the header Expect only 100-continue is understood. Leave it out. Nothing was done.'
const NOT_HTTP = 'This is no request of HTTP/1.1 or 1.0. Nothing was done.'
/** By Node's code, with the status that Node would send. */
const UNREADABLE: Record<string, readonly [status: number, message: string]> = {
  HPE_HEADER_OVERFLOW: [431, 'The URL and the headers are longer than 16 kB. Send a POST. Nothing was done.'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'The extensions of the chunks are too long. Nothing was done.'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'The request did not arrive in time. Send it again. Nothing was done.'],
}

function refuse(response: ServerResponse, status: number, message: string): void {
  const body = errorBody('BAD_REQUEST', message)
  response.writeHead(status, headersOf(body)).end(body)
}

/** For where there is no `ServerResponse`. */
function refusal(status: number, message: string): string {
  const body = errorBody('BAD_REQUEST', message)
  const lines = Object.entries(headersOf(body)).map(([name, value]) => `${name}: ${value}`)
  return [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines, '', body].join('\r\n')
}

function headersOf(body: string) {
  return {
    'content-type': JSON_TYPE,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    connection: 'close',
  }
}

const PATIENCE = {
  /** For the headers of a request to be there. */
  headersMs: 10_000,
  /** For the whole of it: it is a few kilobytes. */
  requestMs: 20_000,
  /** Between two requests: longer than load balancers keep theirs, or they would send into a closing connection. */
  idleMs: 75_000,
  /** With nothing sent or taken of an answer: longer than the 12 s between two pings of a live stream. */
  stalledMs: 90_000,
  /** How often the first two are looked at. */
  checkEveryMs: 2_000,
}
