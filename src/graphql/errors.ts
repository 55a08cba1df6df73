import { GraphQLError } from 'graphql'
import type { ASTNode } from 'graphql'

/**
 * A top-level error of ours, the only kind whose text reaches a client as it was written (see public-errors.ts): its
 * message must never hold a value that a client sent.
 */
export class ApiError extends GraphQLError {
  constructor(code: ApiErrorCode, message: string, more: ApiErrorDetails = {}) {
    const { nodes, fields, retryAfterMs, httpHeaders } = more
    const { status, spec } = HTTP_STATUS[code]
    super(message, {
      ...(nodes && { nodes }),
      extensions: {
        code,
        ...(fields && { fields }),
        ...(retryAfterMs !== undefined && { retryAfterMs }),
        http: { status, spec, ...(httpHeaders && { headers: httpHeaders }) },
      },
    })
  }
}

/** Null `data` is an answer; none at all is a refusal, which is no 200. */
export function statusWithoutData({ extensions: { code, http } }: ApiError): object {
  const known = HTTP_STATUS[code as ApiErrorCode]
  return 'withoutData' in known ? { ...Object(http), status: known.withoutData, spec: false } : Object(http)
}

export type ApiErrorCode = keyof typeof HTTP_STATUS

export type FieldProblem = { path: string; reason: string }

type ApiErrorDetails = {
  nodes?: ASTNode
  /** INVALID_INPUT: where and why. */
  fields?: FieldProblem[]
  /** RATE_LIMITED, UNAVAILABLE, DATABASE_UNAVAILABLE: when it may be sent again. */
  retryAfterMs?: number
  httpHeaders?: Record<string, string>
}

/**
 * `spec`: 200 for clients that accept `application/json` only, as GraphQL over HTTP wants it. `withoutData`: where the
 * answer has no `data`, a subscription's that did not begin.
 */
const HTTP_STATUS = {
  BAD_REQUEST: { status: 400, spec: false },
  BAD_USER_INPUT: { status: 400, spec: true },
  NOT_FOUND: { status: 404, spec: false },
  NOT_ACCEPTABLE: { status: 406, spec: false },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, spec: false },
  INVALID_INPUT: { status: 200, spec: true, withoutData: 400 },
  OPERATION_RESOLUTION_FAILURE: { status: 400, spec: true },
  LIMIT_EXCEEDED: { status: 400, spec: true },
  UNAUTHENTICATED: { status: 401, spec: false },
  FORBIDDEN: { status: 403, spec: true },
  CSRF_PREVENTED: { status: 403, spec: false },
  TOO_MANY_SUBSCRIPTIONS: { status: 429, spec: false },
  RATE_LIMITED: { status: 429, spec: false },
  UNAVAILABLE: { status: 503, spec: false },
  DATABASE_UNAVAILABLE: { status: 200, spec: true, withoutData: 503 },
} as const satisfies Record<string, { status: number; spec: boolean; withoutData?: number }>

/** Those of graphql-js, Yoga and the plugins; whatever else they say is a BAD_REQUEST. */
const OF_LIBRARIES = [
  'GRAPHQL_PARSE_FAILED',
  'GRAPHQL_VALIDATION_FAILED',
  'REQUEST_ENTITY_TOO_LARGE',
] as const
export const FAULT = 'INTERNAL_SERVER_ERROR'

/** Every `extensions.code` that a client can meet. */
export const ERROR_CODES: readonly string[] = [...Object.keys(HTTP_STATUS), ...OF_LIBRARIES, FAULT]
