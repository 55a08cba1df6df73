import { AsyncLocalStorage } from 'node:async_hooks'

/**
 * Virtual time. It stands still while anything real happens (a statement at Postgres, a microtask), and then jumps to
 * the next moment at which somebody wakes: a week passes in a millisecond, and a run is the same each time.
 *
 * The gateway under test measures its waits by its clock but some of its timers are the platform's own. Whatever runs
 * for a life (one process of the gateway) gets virtual timers from `setTimeout`; when the life ends, none fires any more.
 */
export type Life = { time: Time; hasEnded: boolean }

export class Time {
  /** Since the run began. */
  nowMs = 0
  #timers: Timer[] = []
  #real = 0
  #whenIdle: (() => void) | null = null

  /** Runs `work` as that process would: its timers are virtual and end with it. */
  live<T>(life: Life, work: () => T): T {
    return lives.run(life, work)
  }

  /** For what outlives any process: the network, the bank. */
  async sleep(ms: number): Promise<void> {
    await new Promise<void>((resolve) => this.after(ms, resolve, null))
  }

  after(ms: number, fire: () => void, life: Life | null): Timer {
    const timer = new Timer(this.nowMs + Math.max(0, ms), fire, life)
    const later = this.#timers.findIndex((other) => other.atMs > timer.atMs)
    this.#timers.splice(later === -1 ? this.#timers.length : later, 0, timer)
    return timer
  }

  /** While `work` is under way, time stands still. */
  async real<T>(work: () => PromiseLike<T>): Promise<T> {
    this.#real += 1
    try {
      return await lives.run(undefined, () => Promise.resolve(work()))
    } finally {
      this.#real -= 1
      if (this.#real === 0) this.#whenIdle?.()
    }
  }

  /** Lets time pass until `work` has ended, at most `forMs`; whoever waits longer has been forgotten. */
  async until<T>(work: Promise<T>, forMs: number): Promise<T> {
    let hasEnded = false
    const end = () => (hasEnded = true)
    work.then(end, end)
    const deadlineMs = this.nowMs + forMs
    for (;;) {
      await this.#standstill()
      if (hasEnded) return await work
      if (!this.#next(deadlineMs)) throw new Error(`not ended after ${forMs} ms, and nothing wakes it`)
    }
  }

  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    do await this.#standstill()
    while (this.#next(untilMs))
    this.nowMs = untilMs
  }

  /** Until nothing can go on before time does. */
  async #standstill(): Promise<void> {
    do {
      if (this.#real > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve))
      await new Promise((resolve) => setImmediate(resolve))
    } while (this.#real > 0)
  }

  #next(untilMs: number): boolean {
    for (;;) {
      const [timer] = this.#timers
      if (timer === undefined || timer.atMs > untilMs) return false
      this.#timers.shift()
      if (timer.isCleared || timer.life?.hasEnded === true) continue
      this.nowMs = timer.atMs
      if (timer.life === null) timer.fire()
      else lives.run(timer.life, timer.fire)
      return true
    }
  }
}

class Timer {
  readonly atMs: number
  readonly fire: () => void
  readonly life: Life | null
  isCleared = false
  constructor(atMs: number, fire: () => void, life: Life | null) {
    this.atMs = atMs
    this.fire = fire
    this.life = life
  }
  unref(): this {
    return this
  }
}

const lives = new AsyncLocalStorage<Life | undefined>()
const platform = { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout }

function setVirtualTimeout(fire: (...args: unknown[]) => void, ms = 0, ...args: unknown[]): unknown {
  const life = lives.getStore()
  return life === undefined
    ? platform.setTimeout(fire, ms, ...args)
    : life.time.after(ms, () => fire(...args), life)
}

function clearVirtualTimeout(timer: unknown): void {
  if (timer instanceof Timer) timer.isCleared = true
  else platform.clearTimeout(timer as NodeJS.Timeout)
}

globalThis.setTimeout = Object.assign(setVirtualTimeout, platform.setTimeout) as typeof setTimeout
globalThis.clearTimeout = clearVirtualTimeout
