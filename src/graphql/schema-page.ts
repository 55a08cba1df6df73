import { createHash } from 'node:crypto'
import type { FetchAPI } from 'graphql-yoga'
import type { WhoAsks } from '../access/who.ts'
import { maySeeSchema } from './audience.ts'
import type { Page } from './beside.ts'
import { errorBody, JSON_TYPE } from './error-body.ts'
import { schemaText } from './schema-text.ts'

/**
 * `GET /schema.graphql`: the schema of this very process, for whoever has a key. Generators of code read it from there;
 * with the ETag of what they have they are told in a few bytes that it is still so.
 */
export function schemaPage(whoAsks: WhoAsks): Page {
  let printed: { text: string; etag: string } | null = null
  return async (request, { Response }) => {
    if (!METHODS.includes(request.method))
      return new Response(errorBody('BAD_REQUEST', 'Send a GET. Nothing was done.'), {
        status: 405,
        headers: { ...JSON_BODY, allow: METHODS.join(', ') },
      })
    const refusal = await refusalOf(request, whoAsks, Response)
    if (refusal !== null) return refusal
    printed ??= withEtag(schemaText())
    const { text, etag } = printed
    const headers = { ...PLAIN, etag, 'cache-control': 'private, no-cache' }
    if (isKnown(request.headers.get('if-none-match') ?? '', etag)) {
      return new Response(null, { status: 304, headers })
    }
    return new Response(request.method === 'HEAD' ? null : text, { headers })
  }
}

async function refusalOf(
  request: Request,
  whoAsks: WhoAsks,
  Response: FetchAPI['Response'],
): Promise<Response | null> {
  const who = await whoAsks(request)
  if (!('refused' in who)) {
    if (maySeeSchema(who.role)) return null
    return new Response(errorBody('FORBIDDEN', NOT_FOR_CUSTOMERS), { status: 403, headers: JSON_BODY })
  }
  const status = who.refused === 'UNAVAILABLE' ? 503 : 401
  return new Response(errorBody(who.refused, who.message), {
    status,
    headers: { ...JSON_BODY, 'www-authenticate': 'Bearer' },
  })
}

function withEtag(text: string) {
  return { text, etag: `"${createHash('sha256').update(text).digest('base64url')}"` }
}

/** A proxy that compressed it has made the tag a weak one. */
function isKnown(ifNoneMatch: string, etag: string): boolean {
  const tags = ifNoneMatch.split(',').map((tag) => tag.trim().replace(/^W\//, ''))
  return tags.includes(etag) || tags.includes('*')
}

const METHODS = ['GET', 'HEAD']
const PLAIN = { 'content-type': 'text/plain; charset=utf-8' }
const JSON_BODY = { 'content-type': JSON_TYPE }
const NOT_FOR_CUSTOMERS = 'The schema is for API clients: send an API key, Authorization: Bearer <key>.'
