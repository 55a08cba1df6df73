import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { client } from './client.ts'
import type { Client } from './client.ts'

export type GatewayProcess = {
  url: string
  client: Client
  child: ChildProcess
  output: () => string
  /** Resolves with the exit code, null when it was killed. */
  exited: Promise<number | null>
  /** Resolves when it is gone. */
  end(signal: 'SIGTERM' | 'SIGINT' | 'SIGKILL'): Promise<number | null>
}

/** The gateway as its users run it: `dist/main.js` in a process of its own on a free port. Gone when we are. */
export async function startGatewayProcess(env: Record<string, string>, cwd = '.'): Promise<GatewayProcess> {
  const child = spawn(process.execPath, ['dist/main.js'], {
    cwd,
    // Started by npm it watches for its parent to go, so it stops even where we are killed.
    env: { PATH: process.env['PATH'], PORT: '0', LOG_LEVEL: 'info', npm_lifecycle_event: 'proof', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
  running.add(child)
  const exited = once(child, 'exit').then(([code]) => {
    running.delete(child)
    return code as number | null
  })
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      output += `${line}\n`
      const ready = /"url":"([^"]+)".*"msg":"ready"/.exec(line)
      if (ready?.[1] !== undefined) resolve(ready[1])
    })
    void exited.then((code) => reject(new Error(`the gateway exited with ${code}: ${output}`)))
  })
  return {
    url,
    client: client(`${url}/graphql`),
    child,
    output: () => output,
    exited,
    end: async (signal) => {
      child.kill(signal)
      return await exited
    },
  }
}

const running = new Set<ChildProcess>()
process.once('exit', () => running.forEach((child) => child.kill('SIGKILL')))

/** Runs it until it ends by itself. */
export async function refusedStart(
  env: Record<string, string>,
): Promise<{ code: number | null; said: string; printed: string }> {
  const child = spawn(process.execPath, ['dist/main.js'], {
    env: { PATH: process.env['PATH'], PORT: '0', SIMULATOR_PORT: '0', ...env },
  })
  let said = ''
  let printed = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  const [code] = (await once(child, 'exit')) as [number | null]
  return { code, said, printed }
}
