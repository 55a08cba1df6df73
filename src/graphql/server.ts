import type { RequestListener } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { GraphQLError } from 'graphql'
import type { ExecutionArgs, ExecutionResult } from 'graphql'
import { createYoga, useReadinessCheck } from 'graphql-yoga'
import type { Plugin } from 'graphql-yoga'
import type { Gateway } from '../gateway.ts'
import { databaseAnswers } from '../payment/reads.ts'
import type { ClientOf } from './access.ts'
import { documentCache, noCardInNames } from './card-in-document.ts'
import type { Context } from './context.ts'
import { ApiError } from './errors.ts'
import { graphiqlOptions } from './graphiql.ts'
import { publicError } from './public-errors.ts'
import { quoteOnly } from './quoting.ts'
import { schema } from './schema.ts'
import { variableErrors } from './variables.ts'

/**
 * The API over HTTP, without a port: main puts it on node:http, tests call its `fetch`. A request is known by its
 * client, read, checked, and answered; whatever goes wrong leaves through public-errors.ts.
 */
export function createServer(gateway: Gateway, options: { clientOf: ClientOf; graphiql: boolean }) {
  return createYoga<Asked, Context>({
    schema,
    context: ({ client, request }) => ({ gateway, client, request }),
    plugins: [
      useReadinessCheck({ endpoint: '/health/ready', check: () => isReady(gateway) }),
      knowClient(options.clientOf),
      answerInOurWords(gateway),
      keepGraphiqlHere,
    ],
    graphiql: options.graphiql && (() => graphiqlOptions()),
    // 9 MB: not before somebody looks.
    renderGraphiQL: async (page) => (await import('@graphql-yoga/render-graphiql')).renderGraphiQL(page),
    healthCheckEndpoint: '/health/live',
    landingPage: false,
    cors: false,
    multipart: false,
    batching: false,
    maxRequestBodySize: BODY_BYTES_MAX,
    parserAndValidationCache: {
      documentCache: documentCache(),
      errorCache: { get: () => undefined, set: () => {} },
    },
    // It would log what it masks, inputs and all: public-errors.ts does both.
    logging: false,
    maskedErrors: false,
  })
}

/**
 * For node:http. A Host header that makes no URL is refused before yoga sees it: it would answer with its stack.
 */
export function httpListener(server: ReturnType<typeof createServer>): RequestListener {
  return (request, response) => {
    if (!URL.canParse(`http://${request.headers.host ?? ''}/`)) {
      response.writeHead(400, { connection: 'close' }).end()
      return
    }
    server.requestListener(request, response)
  }
}

/** A request here is a few kilobytes. */
const BODY_BYTES_MAX = 100_000
/** A load balancer gives up after a second or more. */
const READY_WITHIN_MS = 900

/** What the plugins below put beside a request. */
type Asked = { client: string }

function knowClient(clientOf: ClientOf): Plugin<object, Asked> {
  return {
    onRequestParse({ request, serverContext }) {
      const client = clientOf(request)
      if (client === null) {
        throw new ApiError('UNAUTHENTICATED', 'Send a valid API key: Authorization: Bearer <key>.', {
          httpHeaders: { 'WWW-Authenticate': 'Bearer' },
        })
      }
      serverContext.client = client
    },
  }
}

/** Nothing that a client sent may come back in an error, or go into the log. */
function answerInOurWords({ log }: Gateway): Plugin<object, Asked> {
  const quote = quoteOnly(schema)
  const checkVariables = ({ args, setResultAndStopExecution }: Executed) => {
    const { document, operationName, variableValues: variables } = args
    const errors = variableErrors(schema, document, { operationName, variables }, quote)
    if (errors.length > 0) setResultAndStopExecution({ errors })
  }
  const inOurWords = <Result extends ExecutionResult>(result: Result): Result =>
    result.errors === undefined
      ? result
      : { ...result, errors: result.errors.map((error) => publicError(error, quote, log)) }
  return {
    onRequestParse({ requestParser, setRequestParser }) {
      if (requestParser === undefined) return
      setRequestParser(async (request) => {
        try {
          return await requestParser(request)
        } catch (error) {
          if (isUnreadable(error)) throw new ApiError('BAD_REQUEST', UNREADABLE)
          throw error
        }
      })
    },
    onValidate({ addValidationRule }) {
      addValidationRule(noCardInNames)
    },
    onExecute: checkVariables,
    onSubscribe(subscribed) {
      checkVariables(subscribed)
      return {
        onSubscribeResult: () => ({ onNext: ({ result, setResult }) => setResult(inOurWords(result)) }),
      }
    },
    onResultProcess(processed) {
      const { result } = processed
      if ('errors' in result) processed.setResult(inOurWords(result))
    },
  }
}

type Executed = {
  args: Pick<ExecutionArgs, 'document' | 'operationName' | 'variableValues'>
  setResultAndStopExecution: (result: { errors: GraphQLError[] }) => void
}

const UNREADABLE =
  'The request cannot be read. Send a JSON object with `query` and, as needed, `variables` and `operationName`.'

/** A body, or `variables` in a URL, that is no JSON. */
function isUnreadable(error: unknown): boolean {
  return (
    error instanceof SyntaxError ||
    (error instanceof GraphQLError && error.extensions['code'] === 'BAD_REQUEST')
  )
}

async function isReady(gateway: Gateway): Promise<boolean> {
  if (gateway.inFlight.draining) return false
  const late = new AbortController()
  try {
    const tooLate = pause(READY_WITHIN_MS, false, { signal: late.signal })
    return await Promise.race([databaseAnswers(gateway).then(() => true), tooLate])
  } catch {
    return false
  } finally {
    late.abort()
  }
}

/** The browser itself sees to it that the page loads nothing from elsewhere, and sends nothing there. */
const keepGraphiqlHere: Plugin = {
  onResponse({ response }) {
    if (response.headers.get('content-type')?.startsWith('text/html') !== true) return
    response.headers.set('content-security-policy', SAME_ORIGIN_ONLY)
  },
}
const SAME_ORIGIN_ONLY =
  "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
