import { CircuitState, SamplingBreaker, circuitBreaker, handleWhenResult } from 'cockatiel'
import type { Logger } from 'pino'
import { isFault, isHealthy } from './answer.ts'
import type { CircuitPosition, Refused } from './bank.ts'
import type { Exchange } from './http.ts'

/**
 * The circuit breaker. When half of a window's exchanges failed, nothing is sent any more; then only GET /health is
 * asked, at growing intervals, and the first healthy answer closes the circuit. No payment is ever the guinea pig.
 */

export type BreakerSettings = {
  /** The circuit opens when more than half of the exchanges in this window were transport errors or 5xx. */
  windowMs: number
  /** Fewer exchanges in a window prove nothing. */
  callsMin: number
  /** The first wait before /health is asked, doubled each time up to the second. */
  healthWaitMs: number
  healthWaitMsMax: number
}

/**
 * 50: at 20 % random failures, more than half of 50 exchanges fail once in two million windows (of 20, once in two
 * thousand). cockatiel rotates its buckets only when called, so at a quiet hour a window may hold older exchanges.
 */
export const BREAKER: BreakerSettings = {
  windowMs: 10_000,
  callsMin: 50,
  healthWaitMs: 500,
  healthWaitMsMax: 10_000,
}

export type Circuit = {
  /** Runs and counts the exchange, or returns null without running it while the circuit is not closed. */
  run(exchange: () => Promise<Exchange>): Promise<Exchange | null>
  /** Why nothing may be sent now, or null. */
  refusal(): Refused | null
  position(): CircuitPosition
  stop(): void
}

const POSITIONS: Record<CircuitState, CircuitPosition> = {
  [CircuitState.Closed]: 'closed',
  [CircuitState.Open]: 'open',
  [CircuitState.HalfOpen]: 'halfOpen',
  [CircuitState.Isolated]: 'open',
}

export function createCircuit(options: {
  settings: BreakerSettings
  /** GET /health; resolves always. */
  askHealth: (signal: AbortSignal) => Promise<Exchange>
  random: () => number
  log: Logger
}): Circuit {
  const { settings, askHealth, random, log } = options
  const breaker = circuitBreaker(
    handleWhenResult((counted) => (counted as Counted).failed),
    {
      breaker: new SamplingBreaker({
        threshold: 0.5,
        duration: settings.windowMs,
        minimumRps: settings.callsMin / (settings.windowMs / 1000),
      }),
      // When to ask is decided by the timer below alone: cockatiel goes by the wall clock, which can be set back.
      halfOpenAfter: Number.NEGATIVE_INFINITY,
    },
  )
  const stopped = new AbortController()
  let healthAsks = 0
  let nextAskMs = 0
  let timer: NodeJS.Timeout | undefined

  // At each opening, so also when a health ask has failed.
  breaker.onBreak(() => {
    if (stopped.signal.aborted) return
    const waitMsMax = Math.min(settings.healthWaitMsMax, settings.healthWaitMs * 2 ** healthAsks)
    const waitMs = waitMsMax * (0.5 + random() / 2)
    nextAskMs = performance.now() + waitMs
    timer = setTimeout(() => {
      healthAsks += 1
      void breaker.execute(async () => {
        const exchange = await askHealth(stopped.signal)
        return { exchange, failed: !isHealthy(exchange.reply) }
      })
    }, waitMs).unref()
    log.warn({ healthAsks, nextAskInMs: Math.round(waitMs) }, 'bank circuit open: nothing is sent')
  })
  breaker.onReset(() => {
    log.info({ healthAsks }, 'bank circuit closed: the bank is healthy')
    healthAsks = 0
  })

  return {
    async run(exchange) {
      if (breaker.state !== CircuitState.Closed) return null
      const counted = await breaker.execute(async () => {
        const made = await exchange()
        return { exchange: made, failed: isFault(made.reply) }
      })
      return counted.exchange
    },
    refusal() {
      if (breaker.state === CircuitState.Closed) return null
      const untilAskMs = Math.ceil(nextAskMs - performance.now())
      return {
        retryAfterMs: Math.max(untilAskMs, settings.healthWaitMs),
        reason: 'the bank is not answering as it should; its circuit is open',
      }
    },
    position: () => POSITIONS[breaker.state],
    stop() {
      stopped.abort()
      clearTimeout(timer)
    },
  }
}

type Counted = { exchange: Exchange; failed: boolean }
