import { execFileSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { readNumber, runProgram } from '../proof/support/program.ts'
import { showProgress, table } from '../proof/support/report.ts'
import { duplicates } from './sections/duplicates.ts'
import { footprint } from './sections/footprint.ts'
import { growth } from './sections/growth.ts'
import { inFlight } from './sections/in-flight.ts'
import { reads } from './sections/reads.ts'
import { recovery } from './sections/recovery.ts'
import { isMet } from './sections/section.ts'
import type { Aim, Options, Section, Told } from './sections/section.ts'
import { writes } from './sections/writes.ts'
import { findPgbench } from './support/pgbench.ts'

/**
 * npm run bench: what the gateway carries, and what it costs, on this machine at this moment. Machines are shared and
 * noisy, so every figure that counts is a ratio measured in one run; times are printed, not promised. Fails on what no
 * load can excuse: a wrong answer, and more pages read than the depth of the indexes explains.
 */

const SECTIONS: Record<string, Section> = {
  writes,
  'in-flight': inFlight,
  duplicates,
  reads,
  growth,
  recovery,
  footprint,
}

const USAGE = `npm run bench -- [--only SECTION]... [--short] [options]

  --only SECTION   ${Object.keys(SECTIONS).join(', ')} (all)
  --short          a minute of everything, only to see that it works
  --rounds N       of each measurement that is repeated (5)
  --seconds N      of one measurement (5)
  --stored N       the most payments stored for the reads: 1000000, or 10000000
  --payments N     for the memory in footprint (20000; a leak check takes 100000)
  --against FILE   in writes: the main.js of another build, to compare
  --out FILE       where the figures go as JSON (build/bench.json)

BENCH_NODE_FLAGS go to the gateways' Node: BENCH_NODE_FLAGS='--cpu-prof --cpu-prof-dir=build/profile' takes a profile.
Numbers that were not given are those in parentheses. Needs Linux for the CPU figures.
`

const CONNECTIONS = 64
const FULL: Options = {
  against: null,
  rounds: 5,
  ms: 5_000,
  connections: CONNECTIONS,
  inFlight: 5_000,
  stored: [10_000, 100_000, 1_000_000],
  processes: [1, 2, 4],
  unresolved: 10_000,
  payments: 20_000,
}
const SHORT: Options = {
  against: null,
  rounds: 1,
  ms: 300,
  connections: 8,
  inFlight: 50,
  // With fewer a customer's payments share pages.
  stored: [10_000, 20_000],
  processes: [1, 2],
  unresolved: 20,
  payments: 40,
}

runProgram(USAGE, async () => {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: Object.keys(SECTIONS) },
      short: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      stored: { type: 'string' },
      payments: { type: 'string' },
      against: { type: 'string' },
      out: { type: 'string', default: 'build/bench.json' },
    },
  })
  const chosen = values.only.map((name) => {
    const section = SECTIONS[name]
    if (section === undefined)
      throw Object.assign(new Error(`there is no section ${name}`), { code: 'ERR_PARSE_ARGS_SECTION' })
    return { name, section }
  })
  const options = { ...(values.short ? SHORT : FULL) }
  if (values.against !== undefined) options.against = values.against
  if (values.rounds !== undefined) options.rounds = Math.max(1, readNumber('--rounds', values.rounds))
  if (values.seconds !== undefined) options.ms = Math.max(1, readNumber('--seconds', values.seconds)) * 1_000
  if (values.payments !== undefined) options.payments = readNumber('--payments', values.payments)
  if (values.stored !== undefined) options.stored = sizesTo(readNumber('--stored', values.stored))

  const machine = facts()
  process.stdout.write(`${Object.values(machine).join(', ')}\n\n`)
  const progress = showProgress()
  const told: (Told & { name: string; load: string })[] = []
  for (const { name, section } of chosen) {
    const before = loadOf()
    const result = await section(options, (line) => progress.show(line))
    progress.end()
    told.push({ name, ...result, load: `load average ${before} before, ${loadOf()} after` })
    process.stdout.write(`${result.title} (${told.at(-1)?.load})\n\n${table(result.rows)}`)
    for (const note of result.notes) process.stdout.write(`${note}\n`)
    process.stdout.write(
      `${result.aims
        .filter((aim) => aim.isAsserted !== true || !isMet(aim))
        .map(line)
        .join('')}\n`,
    )
  }
  await mkdir('build', { recursive: true })
  await writeFile(
    values.out,
    JSON.stringify({ at: new Date().toISOString(), machine, options, told }, null, 2),
  )
  process.stdout.write(`All figures: ${values.out}\n`)
  const broken = told.flatMap(({ aims }) => aims.filter((aim) => aim.isAsserted === true && !isMet(aim)))
  return broken.length === 0
})

function line(aim: Aim): string {
  const { what, seen, atLeast, atMost } = aim
  const wanted = [atLeast !== undefined && `>= ${atLeast}`, atMost !== undefined && `<= ${atMost}`]
  return `${isMet(aim) ? 'met' : 'NOT MET'}: ${what}: ${seen.toFixed(2)}, wanted ${wanted.filter(Boolean).join(' and ')}\n`
}

/** Tenfold steps. */
function sizesTo(largest: number): number[] {
  const sizes: number[] = []
  for (let size = 10_000; size < largest; size *= 10) sizes.push(size)
  return [...sizes, largest]
}

function loadOf(): string {
  return loadavg()[0]?.toFixed(1) ?? '?'
}

function facts() {
  const pgbench = findPgbench()
  return {
    cores: `${availableParallelism()} cores (${cpus()[0]?.model.trim() ?? 'unknown'})`,
    memory: `${(totalmem() / 2 ** 30).toFixed(0)} GB`,
    load: `load average ${loadavg()
      .map((load) => load.toFixed(1))
      .join(' ')}`,
    node: `Node ${process.versions.node}`,
    pgbench: pgbench === null ? 'no pgbench' : execFileSync(pgbench, ['--version']).toString().trim(),
  }
}
