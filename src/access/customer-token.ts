import { errors, jwtVerify } from 'jose'
import type { CryptoKey, JWTPayload, JWTVerifyGetKey, JWTVerifyOptions } from 'jose'
import type { Logger } from 'pino'
import { z } from 'zod'
import { publishedKeys } from './published-keys.ts'
import type { PublishedKeys } from './published-keys.ts'
import type { Refused, Who } from './who.ts'

/**
 * Customers in a browser come with a token of FicMart's own login: a JWT, signed for one checkout. It says who pays
 * (`sub`), for what (`order_id`) and how much (`amount_cents`); graphql/customer.ts holds an authorize to all three.
 */
export type CustomerTokenSettings = {
  issuer: string
  audience: string
  /** Where the login publishes its public keys, or the secret that it shares with us. */
  signedBy: { jwksUrl: string } | { secret: string }
}

/** However late it expires by its `exp`, a token is good for so long after its `iat`: a checkout, not a day. */
const TOKEN_AGE_MAX_S = 15 * 60
/** Clocks of two machines. */
const CLOCKS_DIFFER_S = 5

/** Visible, as graphql/ wants them of an input. */
const text = z
  .string()
  .max(255)
  .regex(/^\P{C}+$/u)
const checkout = z.object({
  sub: text,
  order_id: text,
  amount_cents: z.number().int().positive().max(Number.MAX_SAFE_INTEGER),
})

const LOOKS_LIKE_JWT = /^[\w-]+\.[\w-]+\.[\w-]*$/
export const isToken = (credential: string) => LOOKS_LIKE_JWT.test(credential)

export type CustomerTokens = { whoAsks: (token: string) => Promise<Who | Refused>; close: () => void }

export function customerTokens(settings: CustomerTokenSettings, log: Logger): CustomerTokens {
  const { issuer, audience, signedBy } = settings
  const keys = 'secret' in signedBy ? shared(signedBy.secret) : publishedKeys(signedBy.jwksUrl, log)
  const options: JWTVerifyOptions = {
    issuer,
    audience,
    // Ours to say, not the token's.
    algorithms: 'secret' in signedBy ? ['HS256'] : ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
    requiredClaims: ['exp', 'iat', 'sub', 'order_id', 'amount_cents'],
    maxTokenAge: TOKEN_AGE_MAX_S,
    clockTolerance: CLOCKS_DIFFER_S,
  }
  const whoAsks = async (token: string): Promise<Who | Refused> => {
    try {
      const payload = await verified(token, keys, options)
      if (payload === null) return UNAVAILABLE
      const claims = checkout.safeParse(payload)
      if (!claims.success) return unknown(`its claim ${String(claims.error.issues[0]?.path[0])} is not valid`)
      const { sub, order_id: orderId, amount_cents: amountCents } = claims.data
      return {
        client: `customer:${sub}`,
        role: 'customer',
        customer: { id: sub, orderId, amountCents },
        until: () => AbortSignal.timeout(Math.max(0, validUntilMs(payload) - Date.now())),
      }
    } catch (error) {
      const reason = reasonAgainst(error)
      if (reason !== null) return unknown(reason)
      log.error(
        { err: error },
        "a key of the login's (CUSTOMER_JWKS_URL) cannot be used: a customer is turned away",
      )
      return UNAVAILABLE
    }
  }
  return { whoAsks, close: keys.close }
}

const UNAVAILABLE: Refused = {
  refused: 'UNAVAILABLE',
  message: 'The token cannot be checked just now. Try again soon.',
}

/** Null when it cannot be judged. One that the keys do not fit may be signed by a newer one. */
async function verified(
  token: string,
  keys: PublishedKeys,
  options: JWTVerifyOptions,
): Promise<JWTPayload | null> {
  const known = await keys.get()
  if (known === null) return null
  try {
    return await verifiedBy(known, token, options)
  } catch (error) {
    const isUnknown = error instanceof errors.JWKSNoMatchingKey
    if (!isUnknown && !(error instanceof errors.JWSSignatureVerificationFailed)) throw error
    const areAllKnown = await keys.renew()
    return areAllKnown || !isUnknown ? await verifiedBy(known, token, options) : null
  }
}

/** Without `kid` several of the keys may fit: each is tried. */
async function verifiedBy(
  known: JWTVerifyGetKey,
  token: string,
  options: JWTVerifyOptions,
): Promise<JWTPayload> {
  try {
    return (await jwtVerify(token, known, options)).payload
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
    for await (const key of error as AsyncIterable<CryptoKey>) {
      try {
        return (await jwtVerify(token, key, options)).payload
      } catch (failed) {
        if (!(failed instanceof errors.JWSSignatureVerificationFailed)) throw failed
      }
    }
    throw new errors.JWSSignatureVerificationFailed()
  }
}

function shared(secret: string): PublishedKeys {
  const bytes = new TextEncoder().encode(secret)
  return { get: async () => () => bytes, renew: async () => true, close: () => {} }
}

/** As jwtVerify judges it, which has seen that both are there. They may have fractions. */
function validUntilMs({ exp = 0, iat = 0 }: JWTPayload): number {
  return Math.ceil((Math.min(exp, iat + TOKEN_AGE_MAX_S) + CLOCKS_DIFFER_S) * 1_000)
}

/** What is wrong with the token; null when the fault is not the token's. Never a value of it. */
function reasonAgainst(error: unknown): string | null {
  if (error instanceof errors.JWTExpired) return 'it has expired: get a new one from the login'
  if (error instanceof errors.JWTClaimValidationFailed)
    return `its claim ${error.claim} is missing or not valid`
  const isOfToken =
    error instanceof errors.JWTInvalid ||
    error instanceof errors.JWSInvalid ||
    error instanceof errors.JWSSignatureVerificationFailed ||
    error instanceof errors.JOSEAlgNotAllowed ||
    error instanceof errors.JOSENotSupported ||
    error instanceof errors.JWKSNoMatchingKey
  return isOfToken ? 'it is not signed by the login, or is no JWT' : null
}

function unknown(reason: string): Refused {
  return { refused: 'UNAUTHENTICATED', message: `The token is not accepted: ${reason}.` }
}
