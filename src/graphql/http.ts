import { createServer } from 'node:http'
import type { RequestListener, Server, ServerResponse } from 'node:http'

/** The API on node:http, which closes the connections of clients that are slow, silent or gone. */
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
  }
  const http = createServer(options, (request, response) => {
    // It makes no URL: yoga would answer with its stack.
    if (!URL.canParse(`http://${request.headers.host ?? ''}/`)) {
      response.writeHead(400, { connection: 'close' }).end()
      return
    }
    graphql.requestListener(request, response)
  })
  const answering = answersOf(http)
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
