import { startGatewayProcess } from '../../test/support/gateway-process.ts'
import type { GatewayProcess } from '../../test/support/gateway-process.ts'
import { pick } from '../support/random.ts'

/** Several gateways as users run them, and whoever restarts one that has gone, as a supervisor does. */
export type Gateways = {
  /** Of one that is up; null when none is. */
  url(random: () => number): string | null
  /**
   * kill -9 of one, which is started again at once; false while not all are up. A start does not scale: on a busy
   * machine none would live long enough to do anything.
   */
  kill(random: () => number): boolean
  /** One is stopped in order, and started again. */
  restart(random: () => number): Promise<void>
  /** One stands still for as long as `wait` takes, as a machine does that is suspended; false when none is up. */
  suspend(random: () => number, wait: () => Promise<unknown>): Promise<boolean>
  /** Of those that ended though nobody had killed them: with which code. Starts that were refused do not count. */
  ended: (number | null)[]
  /** All that they have written. */
  output(): string
  /** By SIGTERM; resolves with the exit codes. */
  stop(): Promise<(number | null)[]>
}

export async function startGateways(count: number, env: Record<string, string>): Promise<Gateways> {
  const up = new Set<GatewayProcess>()
  const killed = new Set<GatewayProcess>()
  const all: GatewayProcess[] = []
  const ended: (number | null)[] = []
  const refusals: string[] = []
  const state = { isStopping: false }

  const keepUp = async (): Promise<void> => {
    while (!state.isStopping) {
      // Refused while its Postgres is away.
      const gateway = await startGatewayProcess(env).catch((error: unknown) => {
        refusals.push(String(error))
        return null
      })
      if (gateway === null) continue
      all.push(gateway)
      up.add(gateway)
      started()
      if (state.isStopping) void gateway.end('SIGTERM')
      const code = await gateway.exited
      up.delete(gateway)
      if (!killed.has(gateway) && !state.isStopping) ended.push(code)
    }
  }
  let started = () => {}
  const allStarted = new Promise<void>((resolve) => {
    started = () => {
      if (up.size === count) resolve()
    }
  })
  const kept = Promise.all(Array.from({ length: count }, keepUp))
  await allStarted

  const any = (random: () => number) => {
    const [first, ...others] = up
    return first === undefined ? null : pick(random, [first, ...others])
  }
  return {
    url: (random) => any(random)?.url ?? null,
    kill: (random) => {
      const gateway = up.size < count ? null : any(random)
      if (gateway === null) return false
      killed.add(gateway)
      up.delete(gateway)
      void gateway.end('SIGKILL')
      return true
    },
    restart: async (random) => {
      const gateway = any(random)
      if (gateway === null) return
      killed.add(gateway)
      up.delete(gateway)
      await gateway.end('SIGTERM')
    },
    suspend: async (random, wait) => {
      const gateway = any(random)
      if (gateway === null) return false
      gateway.child.kill('SIGSTOP')
      await wait()
      gateway.child.kill('SIGCONT')
      return true
    },
    ended,
    output: () => [...all.map((gateway) => gateway.output()), ...refusals].join('\n'),
    stop: async () => {
      state.isStopping = true
      const codes = await Promise.all([...up].map(async (gateway) => await gateway.end('SIGTERM')))
      await kept
      return codes
    },
  }
}
