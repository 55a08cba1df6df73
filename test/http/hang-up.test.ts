import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { expect, it, vi } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** A terminal that is closed, with a gateway in it or left behind by it. */

vi.setConfig({ testTimeout: 120_000 })
const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const env = { PATH: process.env['PATH'], PORT: '0', DATABASE_URL: database.url, BANK_URL: bank.url }

/** A command in a session of its own, that prints what a gateway prints; all of it gone with this file. */
async function started(command: string, args: string[], more: Record<string, string> = {}) {
  const child = spawn(command, args, {
    env: { ...env, ...more },
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const saying = async (text: RegExp) => {
    for (let at = text.exec(output); ; at = text.exec(output)) {
      if (at !== null) return at[1] ?? ''
      await new Promise((resolve, reject) => {
        child.stdout.once('data', resolve)
        child.stdout.once('close', () =>
          reject(new Error(`it ended before it said ${text.source}: ${output}`)),
        )
      })
    }
  }
  whenFileEnds(() => hangUp(child, 'SIGKILL'))
  const url = await saying(/"url":"([^"]+)".*"msg":"ready"/)
  return { child, saying, isReady: async () => (await fetch(`${url}/health/ready`)).status }
}

/** To all of its session, as a shell does that ends. */
function hangUp({ pid = 0 }: ChildProcess, signal: NodeJS.Signals = 'SIGHUP'): void {
  try {
    process.kill(-pid, signal)
  } catch {
    // They are gone.
  }
}

it('under nohup goes on, and still stops when it is told to', async () => {
  const { child, saying, isReady } = await started('nohup', [process.execPath, 'dist/main.js'])
  hangUp(child)
  // Signals are taken in turn: the second has come when the first has.
  child.kill('SIGHUP')
  expect(await isReady()).toBe(200)
  child.kill('SIGINT')
  await saying(/"reason":"(SIGINT)"/)
})

it('under nohup goes on without its npm, which does not', async () => {
  const npm = `const { pid } = require('node:child_process').spawn(process.execPath, ['dist/main.js'], { stdio: 'inherit' })
    console.log('gateway ' + pid)`
  const { child, saying, isReady } = await started('nohup', [process.execPath, '-e', npm], {
    npm_lifecycle_event: 'start',
  })
  const gone = new Promise((resolve) => child.once('exit', resolve))
  hangUp(child)
  await gone
  // Longer than it takes to notice that npm is gone.
  const lookedAt = performance.now()
  while (performance.now() - lookedAt < 600) expect(await isReady()).toBe(200)
  process.kill(Number(await saying(/gateway (\d+)/)), 'SIGTERM')
  await saying(/"reason":"(SIGTERM)"/)
})

const hasScript = spawnSync('script', ['--version']).status === 0
if (!hasScript)
  console.warn(
    'SKIPPED: there is no `script` (apt-get install bsdutils): no terminal was closed on a gateway.',
  )
it.skipIf(!hasScript)('in a terminal that is closed stops', async () => {
  const program = `exec ${process.execPath} dist/main.js`
  const { child, isReady } = await started('script', ['-qefc', program, '/dev/null'], {
    NODE_ENV: 'production',
    API_KEYS: `desk:ops:${'a'.repeat(64)}`,
    SHUTDOWN_DELAY_MS: '0',
  })
  expect(await isReady()).toBe(200)
  child.kill('SIGKILL')
  for (let status = 200; status !== 0;) status = await isReady().catch(() => 0)
})
