import type { Plugin } from 'graphql-yoga'

/** Null: not for this request. */
export type Page = (request: Request) => Promise<Response> | null

/** What is served beside the API, by its path. The API's own requests pass by without a promise: each costs them all. */
export function besideApi(pages: ReadonlyMap<string, Page>): Plugin {
  return {
    onRequest(asked) {
      return pages
        .get(asked.url.pathname)?.(asked.request)
        ?.then((response) => asked.endResponse(response))
    },
  }
}
