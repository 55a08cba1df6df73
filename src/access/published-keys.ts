import { createRemoteJWKSet } from 'jose'
import type { JWTVerifyGetKey } from 'jose'
import type { Logger } from 'pino'
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'

/**
 * The keys that the login publishes (a JWKS). Once they are known nobody waits for them: they are looked up again beside
 * the requests, and go on for hours while the login is away. A token that they do not fit makes them be looked up at
 * once, since the login may have changed its key without telling beforehand; but only now and then, since anybody can
 * make such a token.
 */
export type PublishedKeys = {
  /** Null: none are known, or they are too old. */
  get: () => Promise<JWTVerifyGetKey | null>
  /** For a token that the keys do not fit; it may fit them now. False: the login is away, and may have others. */
  renew: () => Promise<boolean>
  close: () => void
}

/** A key that was taken back is out after so long, whatever becomes of the requests. */
const LOOK_EVERY_MS = 10 * 60_000
/** After one that failed. */
const AGAIN_AFTER_MS = 10_000
/** A login that is down overnight stops no checkout; keys that nobody could take back for longer are not believed. */
const KEPT_MS = 12 * 3_600_000
const TIMEOUT_MS = 5_000
const RENEWALS = { points: 2, duration: 10 }

export function publishedKeys(url: string, log: Logger): PublishedKeys {
  // When to fetch is said here, and not by the library: it makes requests wait for it.
  const keys = createRemoteJWKSet(new URL(url), {
    timeoutDuration: TIMEOUT_MS,
    cacheMaxAge: Infinity,
    cooldownDuration: Infinity,
  })
  const renewals = new RateLimiterMemory(RENEWALS)
  let fetchedMs = -Infinity
  let askedMs = -Infinity
  let isAway = false
  let asking: Promise<void> | null = null

  /** However many want it: one at a time. */
  async function look(): Promise<void> {
    await (asking ??= ask().finally(() => (asking = null)))
  }

  async function ask(): Promise<void> {
    askedMs = Date.now()
    try {
      await keys.reload()
      fetchedMs = Date.now()
      if (isAway) log.info("the login's keys (CUSTOMER_JWKS_URL) can be had again")
      isAway = false
    } catch (error) {
      const until = areGood() ? { until: new Date(fetchedMs + KEPT_MS).toISOString() } : {}
      if (!isAway) log.error({ err: error, ...until }, areGood() ? KEYS_GO_ON : NO_KEYS)
      isAway = true
    }
  }

  const areGood = () => Date.now() - fetchedMs < KEPT_MS
  const isDue = () => {
    const sinceMs = Date.now() - askedMs
    // Below 0 the clock was set back.
    return asking === null && (sinceMs < 0 || sinceMs >= (isAway ? AGAIN_AFTER_MS : LOOK_EVERY_MS))
  }

  function lookIfDue(): void {
    if (isDue()) void look()
  }
  lookIfDue()
  // Without requests, too: what is known when the login goes away is then never old.
  const timer = setInterval(lookIfDue, LOOK_EVERY_MS)
  timer.unref()

  return {
    get: async () => {
      if (areGood()) lookIfDue()
      else if (asking !== null || isDue()) await look()
      return areGood() ? keys : null
    },
    renew: async () => {
      lookIfDue()
      // Asked after the limit: of many that come at once the first one may.
      if (!isAway && (asking !== null || (await mayRenew()) || asking !== null)) await look()
      return !isAway
    },
    close: () => clearInterval(timer),
  }

  async function mayRenew(): Promise<boolean> {
    try {
      await renewals.consume('')
      return true
    } catch (error) {
      if (error instanceof RateLimiterRes) return false
      throw error
    }
  }
}

const KEYS_GO_ON =
  "the login's keys (CUSTOMER_JWKS_URL) cannot be had: those that are known go on, and new ones are not known; said once"
const NO_KEYS =
  "the login's keys (CUSTOMER_JWKS_URL) cannot be had: customers are turned away until they can; said once"
