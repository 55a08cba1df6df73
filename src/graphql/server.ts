import { setTimeout as pause } from 'node:timers/promises'
import { execute, GraphQLError, subscribe } from 'graphql'
import type { ExecutionResult } from 'graphql'
import { createYoga, isAsyncIterable } from 'graphql-yoga'
import type { Plugin } from 'graphql-yoga'
import { rateLimiter } from '../access/rate-limit.ts'
import type { RateLimits } from '../access/rate-limit.ts'
import type { Role, WhoAsks } from '../access/who.ts'
import type { Gateway } from '../gateway.ts'
import { requestErrors } from '../observe/metrics.ts'
import { databaseAnswers } from '../payment/reads.ts'
import { onlyWhatCanBeAnswered } from './accept.ts'
import { maySeeSchema } from './audience.ts'
import { besideApi } from './beside.ts'
import type { Page } from './beside.ts'
import { limitBody } from './body-limit.ts'
import { documentCache } from './card-in-document.ts'
import type { Context } from './context.ts'
import { ApiError } from './errors.ts'
import { corsFor, knowClient, noSimpleRequests, onlyWhatMayRun } from './gate.ts'
import type { Asked } from './gate.ts'
import { graphiqlPage } from './graphiql-page.ts'
import { metricsPage } from './metrics-page.ts'
import { publicError } from './public-errors.ts'
import { quoteOnly } from './quoting.ts'
import type { Quote } from './quoting.ts'
import { nameRequest } from './request-name.ts'
import type { Named } from './request-name.ts'
import { traceOf, traceRequest } from './request-trace.ts'
import type { Served } from './request-trace.ts'
import { schema } from './schema.ts'

const ELSEWHERE = 'Nothing is here. The API, and GraphiQL, are at /graphql.\n'

/**
 * The API over HTTP, without a port: main puts it on node:http, tests call its `fetch`. A request is known by its
 * client, read, checked, and answered; whatever goes wrong leaves through public-errors.ts.
 */
export function createServer(gateway: Gateway, { whoAsks, rateLimits, corsOrigins }: ServerOptions) {
  const quote = quoteOnly(schema)
  return createYoga<Asked & Named & Served, Context>({
    schema,
    context: ({ who, request, requestId, trace, served }) => ({
      gateway: logging(gateway, requestId),
      trace: traceOf(who, trace),
      served,
      request,
      ...who,
    }),
    plugins: [
      nameRequest,
      traceRequest,
      besideApi(
        new Map<string, Page>([
          ['/metrics', metricsPage(gateway, whoAsks)],
          ['/health/ready', readinessPage(gateway)],
          ['/graphql', graphiqlPage(whoAsks)],
          ['/', async (_, { Response }) => new Response(ELSEWHERE, { status: 404 })],
        ]),
      ),
      onlyWhatCanBeAnswered,
      noSimpleRequests,
      knowClient(whoAsks, rateLimiter(rateLimits)),
      onlyWhatMayRun(schema, quote),
      graphqlJs,
      answerInOurWords(gateway, quote),
    ],
    graphiql: false,
    healthCheckEndpoint: '/health/live',
    landingPage: false,
    cors: corsFor(new Set(corsOrigins)),
    multipart: false,
    batching: false,
    // body-limit.ts does it.
    maxRequestBodySize: false,
    parserAndValidationCache: {
      documentCache: documentCache(),
      errorCache: { get: () => undefined, set: () => {} },
    },
    // It would log what it masks, inputs and all: public-errors.ts does both.
    logging: false,
    maskedErrors: false,
  })
}

export type ServerOptions = {
  whoAsks: WhoAsks
  rateLimits: RateLimits
  /** Where pages may come from that call the API in a browser: `https://shop.example`. */
  corsOrigins: readonly string[]
}

/** Runs what Yoga's own executor would, which wraps what may be a promise: that took a twentieth of the gateway's CPU. */
const graphqlJs: Plugin = {
  onExecute: ({ setExecuteFn }) => {
    setExecuteFn(execute)
  },
  onSubscribe: ({ setSubscribeFn }) => {
    setSubscribeFn(subscribe)
  },
}

/** A load balancer gives up after a second or more. */
const READY_WITHIN_MS = 900

/** The gateway for one request: every line that is logged on its behalf says so. */
function logging(gateway: Gateway, request: string): Gateway {
  return { ...gateway, log: gateway.log.child({ request }) }
}

/** An update that cannot be told is not told again by this stream: it ends, and its client begins another, which tells all. */
async function* untilOneFails(results: AsyncIterable<ExecutionResult>) {
  for await (const result of results) {
    yield result
    if (result.errors !== undefined) return
  }
}

/** Nothing that a client sent may come back in an error, or go into the log. */
function answerInOurWords({ log }: Gateway, quote: Quote): Plugin<Context, Asked> {
  const inOurWords = (
    result: ExecutionResult,
    role: Role | undefined,
    ofRequest: Gateway['log'],
  ): ExecutionResult => {
    if (result.errors === undefined) return result
    const words = role && maySeeSchema(role) ? quote : (text: string) => withoutSuggestions(quote(text))
    const errors = result.errors.map((error) => publicError(error, words, ofRequest))
    for (const { extensions } of errors) requestErrors.inc({ code: String(extensions['code']) })
    return { ...result, errors }
  }
  return {
    onRequestParse({ requestParser, setRequestParser }) {
      if (requestParser === undefined) return
      setRequestParser(async (request) => {
        try {
          return await requestParser(await limitBody(request))
        } catch (error) {
          if (isUnreadable(error)) throw new ApiError('BAD_REQUEST', UNREADABLE)
          throw error
        }
      })
    },
    onSubscribe: ({ args }) => ({
      onSubscribeResult: ({ result: results, setResult: setResults }) => {
        if (isAsyncIterable<ExecutionResult>(results)) setResults(untilOneFails(results))
        return {
          onNext: ({ result, setResult }) => {
            const { role, gateway } = args.contextValue
            setResult(inOurWords(result, role, gateway.log))
          },
        }
      },
    }),
    onResultProcess(processed) {
      const { result, serverContext } = processed
      const { who, requestId } = serverContext as Partial<Asked & Named>
      if ('errors' in result)
        processed.setResult(inOurWords(result, who?.role, log.child({ request: requestId })))
    },
  }
}

/** "Did you mean" tells a patient guesser the schema. */
const withoutSuggestions = (message: string) => message.replace(/ Did you mean .*$/s, '')

const UNREADABLE =
  'The request cannot be read. Send a JSON object with `query` and, as needed, `variables` and `operationName`.'

/** A body, or `variables` in a URL, that is no JSON. */
function isUnreadable(error: unknown): boolean {
  return (
    error instanceof SyntaxError ||
    (error instanceof GraphQLError && error.extensions['code'] === 'BAD_REQUEST')
  )
}

/** However many ask, the database is asked once at a time: anybody may ask. */
function readinessPage(gateway: Gateway): Page {
  let asking: Promise<boolean> | null = null
  return async (_, { Response }) => {
    asking ??= isReady(gateway).finally(() => (asking = null))
    return new Response(null, { status: (await asking) ? 200 : 503 })
  }
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
