import { monitorEventLoopDelay } from 'node:perf_hooks'

/**
 * Preloaded into the gateway (`node --import`), which knows nothing of it: at each SIGUSR2 it writes what it has seen
 * since the last one, as a line of JSON on stderr.
 */
export type Seen = {
  /** Of the event loop: how much later than due a timer of 5 ms came. */
  lagP50Ms: number
  lagP99Ms: number
  lagMaxMs: number
  /** Of one core, in milliseconds. */
  cpuMs: number
  /** Every quarter of a second. */
  rssMb: number[]
  heapMb: number[]
}

const RESOLUTION_MS = 5
const MEMORY_EVERY_MS = 250

const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
delays.enable()
const memory: Pick<Seen, 'rssMb' | 'heapMb'> = { rssMb: [], heapMb: [] }
setInterval(() => {
  const { rss, heapUsed } = process.memoryUsage()
  memory.rssMb.push(rss / 1e6)
  memory.heapMb.push(heapUsed / 1e6)
}, MEMORY_EVERY_MS).unref()

let cpu = process.cpuUsage()
process.on('SIGUSR2', () => {
  const lag = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS)
  const used = process.cpuUsage(cpu)
  cpu = process.cpuUsage()
  const seen: Seen = {
    cpuMs: (used.user + used.system) / 1e3,
    lagP50Ms: lag(delays.percentile(50)),
    lagP99Ms: lag(delays.percentile(99)),
    lagMaxMs: lag(delays.max),
    rssMb: memory.rssMb.splice(0),
    heapMb: memory.heapMb.splice(0),
  }
  delays.reset()
  process.stderr.write(`${JSON.stringify({ seen })}\n`)
})
