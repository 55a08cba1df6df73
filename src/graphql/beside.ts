import type { FetchAPI, Plugin } from 'graphql-yoga'

/**
 * Null: not for this request. Made with Yoga's own `Response`: a client that does not take Node's would not be hung up on.
 */
export type Page = (request: Request, fetchAPI: FetchAPI) => Promise<Response> | null

/** What is served beside the API, by its path. The API's own requests pass by without a promise: each costs them all. */
export function besideApi(pages: ReadonlyMap<string, Page>): Plugin {
  return {
    onRequest(asked) {
      return pages
        .get(asked.url.pathname)?.(asked.request, asked.fetchAPI)
        ?.then((response) => asked.endResponse(response))
    },
  }
}
