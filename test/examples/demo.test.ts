import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** `npm run demo | cat`, as CI and a log see it. */

it('prints one line for each step where there is no terminal, however long a step takes', async () => {
  const [database, bank] = await Promise.all([
    testDatabase(),
    startTestBank({ minLatencyMs: 150, maxLatencyMs: 150 }),
  ])
  const gateway = await spawnGateway({ DATABASE_URL: database.url, BANK_URL: bank.url })
  const demo = spawn(
    process.execPath,
    [fileURLToPath(new URL('../../build/examples/demo.js', import.meta.url))],
    {
      env: { PATH: process.env['PATH'], GATEWAY_URL: `${gateway.url}/graphql`, BANK_URL: bank.url },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  whenFileEnds(() => demo.kill('SIGKILL'))
  const [printed] = await Promise.all([text(demo.stdout), once(demo, 'exit')])
  expect(demo.exitCode).toBe(0)
  // Neither a step that is drawn again nor anything that only a terminal understands.
  expect(printed).not.toMatch(/(?!\n)\p{Cc}/u)
  const steps = printed.split('\n').filter((line) => / \d+ ms$/.test(line))
  expect(steps.map((line) => line.trim().split(/ {2,}/).slice(0, 3).join(', '))).toEqual([
    'book, placed, AUTHORIZED',
    'book, shipped, CAPTURED',
    'lamp, placed, AUTHORIZED',
    'lamp, cancelled, VOIDED',
    'shoes, placed, AUTHORIZED',
    'shoes, shipped, CAPTURED',
    'shoes, returned, REFUNDED',
    'piano, placed, refused',
    'book, shipped again, CAPTURED',
    'lamp, shipped, refused',
    'radio, placed, AUTHORIZED',
    'radio, shipped, CAPTURED',
    'globe, placed, AUTHORIZED',
  ])
  expect(printed.split('\n').filter((line) => line.includes('…'))).toEqual([])
}, 60_000)
