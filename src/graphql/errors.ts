import { GraphQLError } from 'graphql'
import type { ASTNode } from 'graphql'

/**
 * A top-level error of ours, the only kind whose text reaches a client as it was written (see public-errors.ts): its
 * message must never hold a value that a client sent.
 */
export class ApiError extends GraphQLError {
  constructor(code: ApiErrorCode, message: string, more: ApiErrorDetails = {}) {
    const { nodes, fields, httpHeaders } = more
    const { status, spec } = HTTP_STATUS[code]
    super(message, {
      ...(nodes && { nodes }),
      extensions: {
        code,
        ...(fields && { fields }),
        http: { status, spec, ...(httpHeaders && { headers: httpHeaders }) },
      },
    })
  }
}

export type ApiErrorCode =
  'BAD_REQUEST' | 'BAD_USER_INPUT' | 'INVALID_INPUT' | 'TOO_MANY_SUBSCRIPTIONS' | 'UNAUTHENTICATED'

export type FieldProblem = { path: string; reason: string }

type ApiErrorDetails = {
  nodes?: ASTNode
  /** INVALID_INPUT: where and why. */
  fields?: FieldProblem[]
  httpHeaders?: Record<string, string>
}

/** `spec`: 200 for clients that accept `application/json` only, as GraphQL over HTTP wants it. */
const HTTP_STATUS: Record<ApiErrorCode, { status: number; spec: boolean }> = {
  BAD_REQUEST: { status: 400, spec: false },
  BAD_USER_INPUT: { status: 400, spec: true },
  INVALID_INPUT: { status: 200, spec: true },
  TOO_MANY_SUBSCRIPTIONS: { status: 429, spec: false },
  UNAUTHENTICATED: { status: 401, spec: false },
}
