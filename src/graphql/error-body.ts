import type { ApiErrorCode } from './errors.ts'

/** What is refused outside GraphQL's own way of answering is refused in its form: whoever asked reads one kind of error. */
export function errorBody(code: ApiErrorCode | 'INTERNAL_SERVER_ERROR', message: string): string {
  return JSON.stringify({ errors: [{ message, extensions: { code } }] })
}

export const JSON_TYPE = 'application/json; charset=utf-8'
