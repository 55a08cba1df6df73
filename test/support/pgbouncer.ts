import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { whenFileEnds } from './leaving.ts'
import { temporaryFolder } from './temporary.ts'

/** PgBouncer as Debian installs it; null when there is none. */
export async function findPgbouncer(): Promise<string | null> {
  for (const place of ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer', '/usr/local/bin/pgbouncer'])
    if (await promisify(execFile)(place, ['--version']).then(Boolean, () => false)) return place
  return null
}

export const NO_PGBOUNCER =
  'SKIPPED: no PgBouncer is installed (apt-get install pgbouncer): the gateway was not tried behind it.'

/** In front of the server of `url`; resolves with the URL of the same database behind it. */
export async function startPgbouncer(
  program: string,
  url: string,
  settings: Record<string, string | number>,
): Promise<string> {
  const { hostname, port, username, password, pathname } = new URL(url)
  const folder = await temporaryFolder('gateway-pgbouncer-')
  const listening = await freePort()
  const file = join(folder, 'pgbouncer.ini')
  const all = {
    listen_addr: '127.0.0.1',
    listen_port: listening,
    unix_socket_dir: '',
    auth_type: 'plain',
    auth_file: join(folder, 'users.txt'),
    ...settings,
  }
  await writeFile(join(folder, 'users.txt'), `"${username}" "${password}"\n`)
  await writeFile(
    file,
    `[databases]\n* = host=${hostname} port=${port}\n[pgbouncer]\n${Object.entries(all)
      .map(([name, value]) => `${name} = ${value}`)
      .join('\n')}\n`,
  )
  await chmod(folder, 0o755)
  // It refuses to run as root.
  const asUser = process.getuid?.() === 0 ? ['-u', 'postgres'] : []
  const child = spawn(program, [...asUser, file], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  whenFileEnds(() => child.kill('SIGKILL'))
  while (!/process up/.test(said)) {
    if (child.exitCode !== null) throw new Error(`PgBouncer ended: ${said}`)
    await pause(10)
  }
  return `postgres://${username}:${password}@127.0.0.1:${listening}${pathname}`
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  await new Promise((done) => probe.close(done))
  return port
}
