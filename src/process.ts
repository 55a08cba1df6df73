import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { StartRefused } from './config.ts'

/** What concerns the operating system's process: its port, and when it shall end. */

/** Resolves with the port. One that is being left by a process that is just ending is waited for. */
export async function listen(server: Server, host: string, port: number): Promise<number> {
  const deadline = performance.now() + PORT_WAIT_MS
  for (;;) {
    try {
      server.listen({ port, host, backlog: BACKLOG })
      await once(server, 'listening')
      return (server.address() as AddressInfo).port
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code !== 'EADDRINUSE')
        throw new StartRefused(`Cannot listen on ${host}:${port} (${code}). Set HOST and PORT.`)
      if (performance.now() > deadline) {
        throw new StartRefused(
          `Port ${port} is taken. Stop what listens there, or choose another with PORT=${port + 1}.`,
        )
      }
      await pause(PORT_POLL_MS)
    }
  }
}

/** Thousands may connect at once, after a restart; past Node's own 511 the kernel resets some. */
const BACKLOG = 8_192
const PORT_WAIT_MS = 3_000
const PORT_POLL_MS = 100

/**
 * Resolves with the reason to stop: a signal, or that the npm that started us was killed and left us behind, holding
 * the port. A second signal ends the process at once, unless it comes with the first: npm passes on the Ctrl-C that the
 * terminal has sent us as well. SIGHUP says that the terminal is gone: what writes to none runs on, as under `nohup`, whose
 * word Node undoes when it starts.
 */
export async function stopRequested(): Promise<string> {
  const parent = process.ppid
  const hasTerminal = process.stdout.isTTY || process.stderr.isTTY
  return await new Promise((resolve) => {
    const stop = (reason: string) => {
      clearInterval(watch)
      resolve(reason)
    }
    for (const signal of hasTerminal ? [...STOPS, 'SIGHUP'] : STOPS) {
      process.once(signal, () => {
        stop(signal)
        const toldAt = performance.now()
        process.on(signal, () => {
          if (performance.now() - toldAt > SAME_WORD_MS) process.exit(1)
        })
      })
    }
    const watch = setInterval(() => {
      if (process.env['npm_lifecycle_event'] !== undefined && process.ppid !== parent) stop('npm is gone')
    }, PARENT_POLL_MS)
    if (hasTerminal) return
    // It ends npm, however: that is to be expected then.
    process.on('SIGHUP', () => clearInterval(watch))
  })
}

const STOPS = ['SIGINT', 'SIGTERM']
const PARENT_POLL_MS = 250
const SAME_WORD_MS = 500
