import type { Plugin } from 'graphql-yoga'

/** A media type is the same in any case, and before a blank (RFC 9110, 8.3.1); yoga compares its letters. */
export const contentTypeInAnyCase: Plugin = {
  onRequest({ request: { headers } }) {
    const given = headers.get('content-type')
    const known = given?.replace(/^([^;,\s]+)\s*/, (_, type: string) => type.toLowerCase())
    if (known !== undefined && known !== given) headers.set('content-type', known)
  },
}
