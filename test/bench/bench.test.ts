import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { cpuMs } from '../../bench/support/cpu.ts'
import { median, spread } from '../../bench/support/measured.ts'
import { planTrouble } from '../../bench/support/plans.ts'
import type { Plan } from '../../bench/support/plans.ts'
import { temporaryFolder } from '../support/temporary.ts'

/** The short form of `npm run bench`: only that it works, and what it asserts; times are for quiet machines. */

const run = promisify(execFile)

type Told = {
  told: { name: string; rows: (string | number)[][]; aims: { what: string; seen: number }[] }[]
}

/** Of which it takes a tenth on a machine that does nothing else. */
const WITHIN_MS = 120_000

it(
  'measures the money path and the reads, and says so in a file',
  async () => {
    const out = join(await temporaryFolder('gateway-bench-test-'), 'bench.json')
    const only = ['duplicates', 'reads', 'recovery']
    const flags = ['--short', '--out', out, ...only.flatMap((name) => ['--only', name])]
    const { stdout } = await run(process.execPath, ['build/bench/bench.js', ...flags], { timeout: WITHIN_MS })
    const { told } = JSON.parse(await readFile(out, 'utf8')) as Told
    expect(told.map(({ name }) => name)).toEqual(only)
    const aims = told.flatMap((section) => section.aims)
    expect(aims).toContainEqual(expect.objectContaining({ what: 'unresolved when it was killed', seen: 20 }))
    expect(stdout).toContain('customerHistory')
  },
  WITHIN_MS,
)

it('sees a table that is read whole, and a sort over more than a page', () => {
  const plan = (type: string, rows: number, inner: Plan[] = []): Plan => ({
    'Node Type': type,
    'Shared Hit Blocks': 0,
    'Shared Read Blocks': 0,
    'Actual Rows': rows,
    'Actual Loops': 1,
    Plans: inner,
  })
  expect(planTrouble(plan('Sort', 21, [plan('Index Scan', 21)]))).toEqual([])
  expect(planTrouble(plan('Limit', 21, [plan('Sort', 10_000, [plan('Index Scan', 10_000)])]))).toHaveLength(1)
  expect(planTrouble(plan('Limit', 21, [plan('Seq Scan', 21)]))).toHaveLength(1)
})

it('counts the CPU of a process', () => {
  const before = cpuMs(process.pid)
  const until = performance.now() + 100
  while (performance.now() < until);
  expect(cpuMs(process.pid)).toBeGreaterThan(before)
})

it('tells the middle of several rounds, and how far they lie apart', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 2, 3])).toBe(2.5)
  expect(spread([3, 1, 2], 1)).toBe('2.0 (1.0 to 3.0)')
})
