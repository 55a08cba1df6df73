import { hash, randomBytes, timingSafeEqual } from 'node:crypto'

/**
 * The keys of server clients and operators. The gateway knows only their hashes, `client:role:sha256 in hex`, one for
 * each key: a client has several while they are being rotated. 256 random bits need no slow hash.
 */
export type ApiKey = { client: string; role: KeyRole; sha256: Buffer }

export const KEY_ROLES = ['service', 'ops'] as const
export type KeyRole = (typeof KEY_ROLES)[number]

/** What is wrong with an entry, never the entry: somebody may have put the key itself there. */
export class BadKey extends Error {}

const ENTRY = /^([^\s,]+):(service|ops):([0-9a-f]{64})$/

export function readKey(entry: string): ApiKey {
  const [, client = '', role, sha256 = ''] = ENTRY.exec(entry) ?? []
  if (role !== 'service' && role !== 'ops') {
    throw new BadKey('must be client:role:sha256-in-hex, with the role service or ops')
  }
  const trouble = troubleWithName(client)
  if (trouble !== null) throw new BadKey(trouble)
  return { client, role, sha256: Buffer.from(sha256, 'hex') }
}

export function writeKey({ client, role, sha256 }: ApiKey): string {
  return `${client}:${role}:${sha256.toString('hex')}`
}

/** The name is the scope of idempotency keys and the actor in the history: two names are never to mean the same. */
export function troubleWithName(client: string): string | null {
  if (!/^[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}$/.test(client)) {
    return 'a client has 1 to 64 of the characters a-z A-Z 0-9 . _ : @ - in its name, a letter or digit first'
  }
  if (/^gateway$/i.test(client)) return 'the client name "gateway" is the gateway\'s own'
  if (/^customer:/i.test(client)) return 'names that begin with "customer:" belong to customers'
  return null
}

/** The key itself, to be shown once, and what is kept of it. */
export function makeKey(client: string, role: KeyRole): { secret: string; key: ApiKey } {
  const secret = `fgk_${randomBytes(32).toString('base64url')}`
  return { secret, key: { client, role, sha256: sha256Of(secret) } }
}

/** Every key is compared, in constant time: how long it takes says nothing about how near a guess was. */
export function keyOf(secret: string, keys: readonly ApiKey[]): ApiKey | null {
  const sha256 = sha256Of(secret)
  return keys.filter((known) => timingSafeEqual(known.sha256, sha256))[0] ?? null
}

function sha256Of(secret: string): Buffer {
  return hash('sha256', secret, 'buffer')
}
