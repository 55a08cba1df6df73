import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

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
  /** At its most; looked at every quarter of a second. */
  rssMb: number
  /** What is left of the heap by a collection of garbage, now. */
  liveHeapMb: number
}

const RESOLUTION_MS = 5
const MEMORY_EVERY_MS = 250

const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
delays.enable()
let rssMb = 0
setInterval(() => {
  rssMb = Math.max(rssMb, process.memoryUsage.rss() / 1e6)
}, MEMORY_EVERY_MS).unref()
setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

let cpu = process.cpuUsage()
process.on('SIGUSR2', () => {
  const lag = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS)
  const used = process.cpuUsage(cpu)
  collectGarbage()
  const liveHeapMb = process.memoryUsage().heapUsed / 1e6
  cpu = process.cpuUsage()
  const seen: Seen = {
    cpuMs: (used.user + used.system) / 1e3,
    lagP50Ms: lag(delays.percentile(50)),
    lagP99Ms: lag(delays.percentile(99)),
    lagMaxMs: lag(delays.max),
    rssMb,
    liveHeapMb,
  }
  rssMb = 0
  delays.reset()
  process.stderr.write(`${JSON.stringify({ seen })}\n`)
})
