import { spawn } from 'node:child_process'
import { open, readFile, rm, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { CLEAN_ENV } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { commandLine, isAlive } from './process-id.ts'

/** The server's main process, known by the file postmaster.pid in its data folder. */
export type Postmaster = {
  pid: number
  port: number
  /** The data folder as the server was given it. */
  folder: string
  /** False while it starts (the port may still prove to be another server's), recovers or stops. */
  isReady: boolean
}

/** Null when none runs on this data, whatever a file that was left behind says. */
export async function runningServer(data: string): Promise<Postmaster | null> {
  const text = await pidFile(data)
  if (text === null) return null
  const server = read(text)
  return (await isServer(server)) && (await isSame(server.folder, data)) ? server : null
}

export type Launched = {
  isOver(): boolean
  /** Why it is over, in one line. */
  lastWords(): Promise<string>
}

/** It outlives us, and does not wait for us. */
export async function launch(
  cluster: Cluster,
  options: { durable: boolean; connectionsMax: number },
): Promise<Launched> {
  await removeStalePidFile(cluster.data)
  const settings = {
    listen_addresses: '127.0.0.1',
    port: await freePort(await lastPort(cluster.data)),
    // No socket: it would leave a lock file in /tmp.
    unix_socket_directories: '',
    max_connections: options.connectionsMax,
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_checkpoints: 'off',
    ...(options.durable ? {} : { fsync: 'off', full_page_writes: 'off' }),
  }
  const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const log = await open(cluster.log, 'a', 0o600)
  try {
    const { size } = await log.stat()
    const child = spawn(join(cluster.native, 'bin', 'postgres'), ['-D', cluster.data, ...args], {
      cwd: '/',
      env: CLEAN_ENV,
      ...cluster.user,
      // In a process group of its own: Ctrl-C is for us, who still need the database to settle what is under way.
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    child.unref()
    let over = false
    let failure: Error | null = null
    child.on('exit', () => (over = true))
    child.on('error', (error) => {
      over = true
      failure = error
    })
    return {
      isOver: () => over,
      lastWords: async () =>
        failure?.message ?? reason((await readFile(cluster.log)).subarray(size).toString()),
    }
  } finally {
    await log.close()
  }
}

/**
 * SIGINT, the fast shutdown, ends all sessions and keeps what was committed; SIGQUIT lets the server die at once. One
 * that does not obey is told louder. Resolves when it is gone, at once when none runs.
 */
export async function stopServer(data: string, first: 'SIGINT' | 'SIGQUIT' = 'SIGINT'): Promise<void> {
  const server = await runningServer(data)
  if (server === null) return
  for (const signal of STOP_SIGNALS.slice(STOP_SIGNALS.indexOf(first))) {
    signalTo(server.pid, signal)
    const deadline = performance.now() + STOP_PATIENCE_MS
    while (performance.now() < deadline) {
      if (!(await isServer(server))) return
      await pause(POLL_MS)
    }
  }
}

function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    // It is gone already.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

const STOP_SIGNALS = ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const
const STOP_PATIENCE_MS = 10_000
const POLL_MS = 10

/** Its lines: process, data folder, start time, port, socket folder, address, shared memory, status. */
function read(text: string): Postmaster {
  const [pid, folder = '', , port, , , , status = ''] = text.split('\n')
  return { pid: Number(pid), folder, port: Number(port), isReady: status.startsWith('ready') }
}

async function pidFile(data: string): Promise<string | null> {
  return await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => null)
}

/** Process ids are used again, and one who has died may not have been reaped: alive is not enough. */
async function isServer({ pid, folder }: Postmaster): Promise<boolean> {
  return pid > 0 && `${await commandLine(pid)} `.includes(` -D ${folder} `)
}

/** A copy of a running server's folder names that server, which is not ours; one that was moved is still the same. */
async function isSame(folder: string, data: string): Promise<boolean> {
  const [there, here] = await Promise.all([stat(folder).catch(() => null), stat(data)])
  return there === null || (there.dev === here.dev && there.ino === here.ino)
}

/**
 * Postgres itself overlooks the file of a process that is gone. It must be removed where the number is another's by now,
 * or a zombie's, or the file is empty since the machine stopped just then. Should a second start write a new file
 * between our look and the removal, Postgres's lock on the data's shared memory still lets only one of them live.
 */
async function removeStalePidFile(data: string): Promise<void> {
  const text = await pidFile(data)
  if (text === null || (await runningServer(data)) !== null) return
  const { pid } = read(text)
  if (pid > 0 && !isAlive(pid)) return
  if (text === '') await pause(EMPTY_FILE_MS)
  if ((await pidFile(data)) === text) await rm(join(data, 'postmaster.pid'), { force: true })
}

/** A server that starts writes its file at once after it has made it. */
const EMPTY_FILE_MS = 50

/** The same port as the last time if it can be had: what knows the server by its URL finds it again. */
async function freePort(wanted: number): Promise<number> {
  const probe = createServer()
  try {
    await new Promise<void>((done, fail) => probe.listen(wanted, '127.0.0.1', done).on('error', fail))
    return (probe.address() as AddressInfo).port
  } catch (error) {
    if (wanted === 0) throw error
    return await freePort(0)
  } finally {
    await new Promise((done) => probe.close(done))
  }
}

/** postmaster.opts has the last start's command line. */
async function lastPort(data: string): Promise<number> {
  const options = await readFile(join(data, 'postmaster.opts'), 'utf8').catch(() => '')
  return Number(/\bport=(\d+)/.exec(options)?.[1] ?? 0)
}

/** The last complaint of the log, without its time and process. */
function reason(log: string): string {
  const lines = log.split('\n').filter((line) => line !== '')
  if (lines.length === 0) return 'it ended without a word'
  const complaint = lines.findLastIndex((line) => /\b(FATAL|PANIC):/.test(line))
  const detail = lines.slice(complaint + 1).find((line) => /\bDETAIL:/.test(line))
  return [lines.at(complaint), complaint < 0 ? undefined : detail]
    .filter((line) => line !== undefined)
    .map((line) => line.replace(/^.*?\b(FATAL|PANIC|DETAIL):\s*/, ''))
    .join('; ')
}
