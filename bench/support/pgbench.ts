import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { promisify } from 'node:util'
import { cpuMs, reapedMs } from './cpu.ts'
import type { Measured } from './measured.ts'

/** pgbench, the yardstick's driver: one statement after the other, in C. */

export const HOW_TO_GET_IT =
  'pgbench was not found, so the yardstick is left out. It comes with PostgreSQL: on Debian `apt-get install postgresql`.'

/** Where Debian has it; null when it is not installed. */
export function findPgbench(): string | null {
  const versions = '/usr/lib/postgresql'
  const installed = existsSync(versions) ? readdirSync(versions).toSorted().toReversed() : []
  const found = ['/usr/bin/pgbench', ...installed.map((version) => `${versions}/${version}/bin/pgbench`)]
  return found.find((path) => existsSync(path)) ?? null
}

/** `clients` connections for so long; the CPU is pgbench's and the server's. */
export async function runPgbench(
  program: string,
  options: { url: string; serverPid: number; script: string; clients: number; ms: number },
): Promise<Measured> {
  const { hostname, port, username, password, pathname } = new URL(options.url)
  // It counts in whole seconds; for less, a few by each client will do.
  const seconds = Math.round(options.ms / 1_000)
  const until = seconds === 0 ? ['-t', '3'] : ['-T', String(seconds)]
  const before = cpuMs(options.serverPid) + reapedMs()
  const { stdout } = await promisify(execFile)(
    program,
    ['-n', '-M', 'prepared', '-c', String(options.clients), '-j', '2', ...until].concat([
      '-f',
      options.script,
      pathname.slice(1),
    ]),
    {
      env: {
        PATH: process.env['PATH'],
        PGHOST: hostname,
        PGPORT: port,
        PGUSER: username,
        PGPASSWORD: password,
      },
    },
  )
  const cpu = cpuMs(options.serverPid) + reapedMs() - before
  const count = Number(/number of transactions actually processed: (\d+)/.exec(stdout)?.[1])
  const perSecond = Number(/tps = ([\d.]+)/.exec(stdout)?.[1])
  if (!(count > 0 && perSecond > 0)) throw new Error(`pgbench did nothing: ${stdout}`)
  return { perSecond, cpuMsEach: cpu / count, besideMsEach: 0 }
}
