import { createHash, timingSafeEqual } from 'node:crypto'

/** Who is asking, by API key; null when that cannot be told. */
export type ClientOf = (request: Request) => string | null

/**
 * Keys are configured as `client:sha256 of the key in hex`, so that the configuration holds none. Without any, as on a
 * developer's machine, everyone is `dev`. Throws when a client would take the name under which the gateway itself acts.
 */
export function apiKeys(configured: readonly string[]): ClientOf {
  if (configured.length === 0) return () => 'dev'
  const keys = configured.map((entry) => {
    const colon = entry.lastIndexOf(':')
    const client = entry.slice(0, colon)
    if (client === 'gateway') throw new Error('API_KEYS: the client name "gateway" is the gateway\'s own.')
    return { client, sha256: Buffer.from(entry.slice(colon + 1), 'hex') }
  })
  return (request) => {
    const [, key] = /^Bearer +(\S+)$/i.exec(request.headers.get('authorization') ?? '') ?? []
    if (key === undefined) return null
    const sha256 = createHash('sha256').update(key).digest()
    // Every key is compared, in constant time: how long it takes says nothing about how near a guess was.
    const matches = keys.filter(
      (known) => known.sha256.length === sha256.length && timingSafeEqual(known.sha256, sha256),
    )
    return matches[0]?.client ?? null
  }
}
