import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import type { Who } from './who.ts'

/**
 * How often one client may ask, so that one that has gone wild leaves room for the others. It is counted in this
 * process alone: with several, a client may ask that many times as often.
 */
export type RateLimits = { clientPerSecond: number; customerPerMinute: number }

/** 0 when it may go on, else in how many milliseconds it may. `dev` always may. */
export function rateLimiter({ clientPerSecond, customerPerMinute }: RateLimits) {
  const client = new RateLimiterMemory({ points: clientPerSecond, duration: 1 })
  const limiters = {
    service: client,
    ops: client,
    customer: new RateLimiterMemory({ points: customerPerMinute, duration: 60 }),
    dev: null,
  }
  return async (who: Who): Promise<number> => {
    const limiter = limiters[who.role]
    if (limiter === null) return 0
    try {
      await limiter.consume(who.client)
      return 0
    } catch (error) {
      if (error instanceof RateLimiterRes) return Math.max(1, error.msBeforeNext)
      throw error
    }
  }
}
