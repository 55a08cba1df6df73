import type { FetchAPI, Plugin } from 'graphql-yoga'
import type { Logger } from 'pino'
import { errorBody, JSON_TYPE } from './error-body.ts'

/**
 * Null: not for this request. Made with Yoga's own `Response`: a client that does not take Node's would not be hung up on.
 */
export type Page = (request: Request, fetchAPI: FetchAPI) => Promise<Response> | null

/**
 * What is served beside the API, by its path. The API's own requests pass by without a promise: each costs them all. Yoga
 * takes every URL that ends in /graphql for the API's, and would answer a fault of a page with its stack.
 */
export function besideApi(pages: ReadonlyMap<string, Page>, log: Logger): Plugin {
  return {
    onRequest(asked) {
      const { request, fetchAPI } = asked
      const { pathname } = asked.url
      const page = pages.get(pathname)
      const asJson = (status: number, body: string) =>
        new fetchAPI.Response(body, { status, headers: { 'content-type': JSON_TYPE } })
      if (page === undefined) {
        if (!API.has(pathname) && request.method !== 'OPTIONS')
          asked.endResponse(asJson(404, errorBody('NOT_FOUND', ELSEWHERE)))
        return undefined
      }
      return page(request, fetchAPI)
        ?.catch((error: unknown) => {
          log.error({ err: error, page: pathname }, 'a page met a fault')
          return asJson(500, errorBody('INTERNAL_SERVER_ERROR', 'Unexpected error.'))
        })
        .then((response) => asked.endResponse(response))
    },
  }
}

const API = new Set(['/graphql', '/graphql/'])
const ELSEWHERE = 'Nothing is here. The API, and GraphiQL, are at /graphql. Nothing was done.'
