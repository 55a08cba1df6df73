import { useCSRFPrevention } from '@graphql-yoga/plugin-csrf-prevention'
import { GraphQLError, parse, validate } from 'graphql'
import type { ExecutionArgs, GraphQLSchema, ParseOptions } from 'graphql'
import type { CORSOptions, Plugin } from 'graphql-yoga'
import type { Who, WhoAsks } from '../access/who.ts'
import { noCardInNames } from './card-in-document.ts'
import { conditionalSubscriptions } from './conditional-subscription.ts'
import type { Context } from './context.ts'
import { forbidden, TOKENS_MAX, tooMuch } from './document.ts'
import { ApiError } from './errors.ts'
import { variablesWithoutNullsInOneOf, withoutNullsInOneOf } from './one-of.ts'
import type { Quote } from './quoting.ts'
import { variableErrors } from './variables.ts'

/**
 * What stands between a request and the resolvers, in this order: may this browser send it, who sends it, has that
 * client sent too many, is the document short enough to be read, may this client run it, are its variables right, is it
 * too much. Nothing has been carried out when one of these refuses.
 */

/** What the plugins below put beside a request. */
export type Asked = { who: Who }

/** Says that the browser has asked us first. */
const PREFLIGHTED = 'graphql-require-preflight'

/** Yoga's own list answers an unknown origin with `null`, which is the name of every sandboxed page. */
export function corsFor(origins: ReadonlySet<string>) {
  return (request: Request): CORSOptions => {
    const origin = request.headers.get('origin')
    if (origin === null || !origins.has(origin)) return false
    return {
      origin,
      methods: ['POST'],
      // What docs/ invite to, and what tracing in a page adds: one that is refused fails the whole request.
      allowedHeaders: [
        'content-type',
        'authorization',
        'x-request-id',
        'traceparent',
        'tracestate',
        'baggage',
        PREFLIGHTED,
      ],
      exposedHeaders: ['retry-after', 'x-request-id'],
      credentials: false,
      maxAge: 3_600,
    }
  }
}

/** What a page of another site can make a browser send without asking us first: forms, texts, and GET. */
const csrf = useCSRFPrevention({ requestHeaders: [PREFLIGHTED] })
export const noSimpleRequests: Plugin = {
  onRequestParse(payload) {
    try {
      return csrf.onRequestParse?.(payload)
    } catch {
      throw new ApiError(
        'CSRF_PREVENTED',
        `Send a POST with the content type application/json, or else the header ${PREFLIGHTED}: 1.`,
      )
    }
  },
}

export function knowClient(
  whoAsks: WhoAsks,
  retryAfter: (who: Who) => Promise<number>,
): Plugin<object, Asked> {
  return {
    async onRequestParse({ request, serverContext }) {
      const who = await whoAsks(request)
      if ('refused' in who) {
        throw new ApiError(who.refused, who.message, {
          ...(who.refused === 'UNAVAILABLE' && { retryAfterMs: UNAVAILABLE_MS }),
          httpHeaders: { 'WWW-Authenticate': 'Bearer' },
        })
      }
      serverContext.who = who
      const retryAfterMs = await retryAfter(who)
      if (retryAfterMs > 0) {
        const message = 'Too many requests of this client. Nothing was done. Ask again after a while.'
        const httpHeaders = { 'Retry-After': String(Math.ceil(retryAfterMs / 1000)) }
        throw new ApiError('RATE_LIMITED', message, { retryAfterMs, httpHeaders })
      }
    },
  }
}

const UNAVAILABLE_MS = 5_000

/** First whether this client may, then whether the variables are right, and then whether it is too much. */
export function onlyWhatMayRun(schema: GraphQLSchema, quote: Quote): Plugin<Context> {
  const reasonsAgainst = (args: ExecutionArgs): readonly ApiError[] => {
    const { document, operationName, variableValues } = args
    const { role } = args.contextValue as Context
    const request = { operationName, variables: { ...variableValues }, role }
    const checks = [
      () => forbidden(schema, document, role),
      () => variableErrors(schema, document, request, quote),
      () => tooMuch(schema, document, request),
    ]
    for (const check of checks) {
      const errors = check()
      if (errors.length > 0) return errors
    }
    return []
  }
  const refuse = ({ args, setResultAndStopExecution }: Starting) => {
    const { document, operationName, variableValues: variables } = args
    if (variables != null) {
      args.variableValues = variablesWithoutNullsInOneOf(schema, document, { operationName, variables })
    }
    const errors = reasonsAgainst(args)
    if (errors.length > 0) setResultAndStopExecution({ errors })
  }
  return {
    onParams: ({ params, setParams }) => {
      // A GET's is taken for none by Yoga.
      const { operationName, ...others } = params
      if (operationName === '') setParams(others)
    },
    onParse: ({ setParseFn }) => {
      setParseFn((source: string, options?: ParseOptions) =>
        withoutNullsInOneOf(schema, parseShort(source, options)),
      )
    },
    onValidate: ({ addValidationRule, setValidationFn }) => {
      addValidationRule(noCardInNames)
      setValidationFn(((...args: Parameters<typeof validate>) => {
        const refused = conditionalSubscriptions(args[1])
        return refused.length > 0 ? refused : validate(...args)
      }) as typeof validate)
    },
    onExecute: refuse,
    onSubscribe: refuse,
  }
}

function parseShort(source: string, options?: ParseOptions) {
  try {
    return parse(source, { ...options, maxTokens: TOKENS_MAX })
  } catch (error) {
    if (!(error instanceof GraphQLError) || !error.message.endsWith('Parsing aborted.')) throw error
    throw new ApiError(
      'LIMIT_EXCEEDED',
      `The document has more than ${TOKENS_MAX} tokens (names, values, signs).`,
    )
  }
}

type Starting = {
  args: ExecutionArgs
  setResultAndStopExecution: (result: { errors: readonly ApiError[] }) => void
}
