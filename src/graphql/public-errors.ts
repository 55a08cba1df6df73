import { GraphQLError } from 'graphql'
import type { Logger } from 'pino'
import { isDatabaseAway } from '../payment/reads.ts'
import { ApiError, ERROR_CODES, FAULT, statusWithoutData } from './errors.ts'

/**
 * Every top-level error passes here on its way out, wherever it comes from; each leaves with a code in its extensions.
 * Ours go as they are. Those of graphql-js and yoga keep what may be quoted. A database that is away is said to be. All
 * else is a fault: the client learns only that there was one, and the log where.
 */
export function publicError(
  error: GraphQLError,
  { quote, log, hasData }: { quote: (message: string) => string; log: Logger; hasData: boolean },
): GraphQLError {
  const cause = innermost(error)
  const field = error.nodes?.map(nameOf).join('.')
  const ours = apiErrorOf(cause)
  if (ours !== null) {
    if (ours === DATABASE_AWAY)
      log.warn({ fault: traceOf(cause), field }, 'receipts could not be read: the database does not answer')
    const http = hasData ? ours.extensions['http'] : statusWithoutData(ours)
    return rewritten(error, ours.message, { ...ours.extensions, http })
  }
  if (cause instanceof GraphQLError && (error.path === undefined || cause.message.startsWith('Argument "'))) {
    const extensions = error.path === undefined ? ofRequest(cause) : { code: 'BAD_USER_INPUT' }
    return rewritten(error, quote(cause.message), extensions)
  }
  log.error(
    { fault: traceOf(cause), field },
    'a request met a fault; its client was told "Unexpected error."',
  )
  return rewritten(error, 'Unexpected error.', { code: FAULT, unexpected: true })
}

/** The code of what a resolver threw, as its client will read it. */
export function codeOf(thrown: unknown): string {
  const code = apiErrorOf(thrown)?.extensions['code']
  return typeof code === 'string' ? code : FAULT
}

/** Null: a fault. */
function apiErrorOf(thrown: unknown): ApiError | null {
  if (thrown instanceof ApiError) return thrown
  return isDatabaseAway(thrown) ? DATABASE_AWAY : null
}

/** Mutations that move money do not come here: they say OUTCOME_UNKNOWN. */
const DATABASE_AWAY = new ApiError(
  'DATABASE_UNAVAILABLE',
  'The receipts cannot be read: the database does not answer just now. No payment is lost by it. Ask again; a mutation may have been carried out: repeat it under the same key.',
  { retryAfterMs: 1_000 },
)

/** Nothing was carried out; what could not even be read is 400 for every client. */
function ofRequest({ extensions: { code, http } }: GraphQLError): Record<string, unknown> {
  if (typeof code === 'string' && code !== 'BAD_REQUEST' && ERROR_CODES.includes(code)) return { code, http }
  return { code: 'BAD_REQUEST', http: { status: 400, ...Object(http), spec: false } }
}

function innermost(error: GraphQLError): Error {
  const { originalError } = error
  return originalError instanceof GraphQLError ? innermost(originalError) : (originalError ?? error)
}

/** Nothing else of the original's extensions: yoga puts the text of a JSON error there, which quotes the body. */
function rewritten(error: GraphQLError, message: string, extensions: Record<string, unknown>): GraphQLError {
  const { nodes = null, source = null, positions = null, path = null } = error
  return new GraphQLError(message, { nodes, source, positions, path, extensions })
}

/** Where it happened, without what: an error's message, even Postgres's, may quote an input. */
function traceOf(error: Error): Record<string, unknown> {
  const code = 'code' in error ? error.code : undefined
  const constraint = 'constraint_name' in error ? error.constraint_name : undefined
  const frames = error.stack?.split('\n').filter((line) => line.startsWith('    at '))
  const message = error.message.replaceAll(/(["'`]).*\1/gs, '…').replaceAll(/\d/g, '#')
  return {
    type: error.name,
    code,
    constraint,
    ...(code === undefined && { message }),
    at: frames?.join('\n'),
  }
}

function nameOf(node: { kind: string }): string {
  return 'name' in node ? String(Object(node.name).value) : node.kind
}
