import { setTimeout as pause } from 'node:timers/promises'
import { execute, GraphQLError, subscribe } from 'graphql'
import type { ExecutionResult } from 'graphql'
import { createYoga, isAsyncIterable, processRegularResult } from 'graphql-yoga'
import type { Plugin } from 'graphql-yoga'
import { rateLimiter } from '../access/rate-limit.ts'
import type { RateLimits } from '../access/rate-limit.ts'
import type { Role, WhoAsks } from '../access/who.ts'
import type { Gateway } from '../gateway.ts'
import { requestErrors } from '../observe/metrics.ts'
import { databaseAnswers } from '../payment/reads.ts'
import { onlyWhatCanBeAnswered } from './accept.ts'
import { answerHeaders } from './answer-headers.ts'
import { besideApi } from './beside.ts'
import type { Page } from './beside.ts'
import { limitBody } from './body-limit.ts'
import { documentCache } from './card-in-document.ts'
import { contentTypeInAnyCase } from './content-type.ts'
import type { Context } from './context.ts'
import { errorBody, JSON_TYPE } from './error-body.ts'
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
import { schemaPage } from './schema-page.ts'
import { traceOf, traceRequest } from './request-trace.ts'
import type { Served } from './request-trace.ts'
import { schema } from './schema.ts'
import { unending } from './unending.ts'
import type { OnHttp } from './unending.ts'

/**
 * The API over HTTP, without a port: main puts it on node:http, tests call its `fetch`. A request is known by its
 * client, read, checked, and answered; whatever goes wrong leaves through public-errors.ts.
 */
export function createServer(gateway: Gateway, { whoAsks, rateLimits, corsOrigins }: ServerOptions) {
  const quote = quoteOnly(schema)
  return createYoga<Asked & Named & Served & OnHttp, Context>({
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
      answerHeaders,
      contentTypeInAnyCase,
      traceRequest,
      besideApi(
        new Map<string, Page>([
          ['/metrics', metricsPage(gateway, whoAsks)],
          ['/health/live', async (_, { Response }) => new Response(null, { status: 200 })],
          ['/health/ready', readinessPage(gateway)],
          ['/graphql', graphiqlPage(whoAsks)],
          ['/schema.graphql', schemaPage(whoAsks)],
        ]),
        gateway.log,
      ),
      onlyWhatCanBeAnswered,
      noSimpleRequests,
      knowClient(whoAsks, rateLimiter(rateLimits)),
      onlyWhatMayRun(schema, quote),
      graphqlJs,
      answerInOurWords(gateway, quote),
    ],
    graphiql: false,
    // Yoga looks at the end of the whole URL. No URL has a blank: ours is above.
    healthCheckEndpoint: ' ',
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

/** Nothing that a client sent may come back in an error, or go into the log. */
function answerInOurWords({ log }: Gateway, quote: Quote): Plugin<Context & OnHttp, Asked> {
  const inOurWords = (
    result: ExecutionResult,
    role: Role | undefined,
    ofRequest: Gateway['log'],
  ): ExecutionResult => {
    if (result.errors === undefined) return result
    const words = (message: string) => quote(message, role)
    const hasData = result.data !== undefined
    const errors = result.errors.map((error) => publicError(error, { quote: words, log: ofRequest, hasData }))
    for (const { extensions } of errors) requestErrors.inc({ code: String(extensions['code']) })
    return { ...result, errors }
  }
  return {
    onRequestParse({ request: { method }, requestParser, setRequestParser }) {
      if (requestParser === undefined) {
        if (method === 'POST') throw new ApiError('UNSUPPORTED_MEDIA_TYPE', SEND_JSON)
        return
      }
      setRequestParser(async (request) => {
        try {
          return await requestParser(await limitBody(request))
        } catch (error) {
          if (isUnreadable(error)) throw new ApiError('BAD_REQUEST', UNREADABLE)
          if (error instanceof GraphQLError) throw error
          // Its client is gone, and the code is the one of a connection to the database that is.
          throw new ApiError('BAD_REQUEST', BROKEN_OFF)
        }
      })
    },
    onSubscribe: ({ args }) => ({
      onSubscribeResult: ({ result: results, setResult: setResults }) => {
        if (isAsyncIterable<ExecutionResult>(results)) setResults(unending(results, args.contextValue.res))
        return {
          onNext: ({ result, setResult }) => {
            const { role, gateway } = args.contextValue
            setResult(inOurWords(result, role, gateway.log))
          },
        }
      },
    }),
    onResultProcess(processed) {
      const { result, serverContext, resultProcessor } = processed
      const { who, requestId } = serverContext as Partial<Asked & Named>
      if (!('errors' in result)) return
      const told = inOurWords(result, who?.role, log.child({ request: requestId }))
      // Asked for as a stream it is told in one, which is over by that: 400 would look like a connection that broke.
      if (resultProcessor !== undefined && resultProcessor !== processRegularResult && isInvalid(told)) {
        for (const { extensions } of told.errors ?? []) delete extensions['http']
        processed.setResult(told)
        return
      }
      processed.setResult(told)
      // Whatever kind of answer it asks for: what is refused is no stream, and not refused without a word.
      if (resultProcessor === undefined || (resultProcessor !== processRegularResult && isRefused(told)))
        processed.setResultProcessor(processRegularResult, 'application/json')
    },
  }
}

/** A subscription that did not begin, for an argument. */
function isInvalid({ data, errors = [] }: ExecutionResult): boolean {
  return data === undefined && errors.every(({ extensions: { code } }) => code === 'INVALID_INPUT')
}

/** By its HTTP status, even to a client that is told 200 of what is wrong in a document. */
function isRefused({ data, errors = [] }: ExecutionResult): boolean {
  return errors.some(({ extensions: { http, unexpected } }) => {
    const { status = 200, spec = false } = Object(http) as { status?: number; spec?: boolean }
    return (status >= 400 && !spec) || (unexpected === true && data === undefined)
  })
}

const SEND_JSON =
  'The body is of a type that is not read here. Send JSON, and the header Content-Type: application/json. Nothing was done.'
const UNREADABLE =
  'The request cannot be read. Send a JSON object with `query` and, as needed, `variables` and `operationName`.'
const BROKEN_OFF = 'The body of the request did not arrive whole. Nothing was done.'

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
    if (await asking) return new Response(null, { status: 200 })
    const why = gateway.inFlight.draining ? 'This process is stopping' : 'The database does not answer'
    const body = errorBody('UNAVAILABLE', `${why}: send no requests here.`)
    return new Response(body, { status: 503, headers: { 'content-type': JSON_TYPE } })
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
