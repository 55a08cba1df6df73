import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { chown, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { temporaryFolder } from '../../test/support/temporary.ts'
import { rowsOf } from '../soak/stage.ts'
import { startWire } from '../support/wire.ts'
import type { Link, Wire } from '../support/wire.ts'
import { LOG_OF_FAILURE } from './receipts.ts'
import type { Receipts } from './receipts.ts'

/**
 * The receipts in a cluster of three by Patroni, etcd and HAProxy, all of Debian's packages, with the files of `deploy/`.
 * A node is what would be on one machine: etcd, Patroni and its Postgres. Others reach it, and its Patroni reaches etcd,
 * through wires of ours, which are silent when the node is cut off.
 */
const PROGRAMS = ['etcd', 'patroni', 'haproxy', 'setpriv']

/** What is missing here, in words; null when nothing is. */
export function whatIsMissing(): string | null {
  if (process.getuid?.() !== 0) return 'be root: the servers run as the user postgres'
  const missing = PROGRAMS.filter((name) => spawnSync('which', [name]).status !== 0)
  if (missing.length > 0 || serverFolder() === null)
    return 'install them: apt-get install patroni etcd-server haproxy postgresql'
  return null
}

/** Of the newest version. */
function serverFolder(): string | null {
  const versions = spawnSync('ls', ['/usr/lib/postgresql']).stdout.toString().split('\n').filter(Boolean)
  const newest = versions.toSorted((one, other) => Number(other) - Number(one))[0]
  return newest === undefined ? null : `/usr/lib/postgresql/${newest}/bin`
}

export const STRIKES = ['killed', 'frozen', 'cut off'] as const
export type Strike = (typeof STRIKES)[number]

const NAMES = ['node1', 'node2', 'node3'] as const
const DATABASE = 'gateway'
const START_TIMEOUT_MS = 120_000
const FAILOVER_TIMEOUT_MS = 90_000
const POLL_MS = 50
const RESTART_MS = 200

type Node = {
  url(database: string): string
  /** What HAProxy needs. */
  address: string
  checkPort: number
  start(): void
  signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void
  wires: SilentWire[]
}

export async function openPatroni(strike: Strike, path: 'HAProxy' | 'hosts'): Promise<Receipts> {
  const folder = await temporaryFolder('gateway-patroni-')
  const passwords = {
    superuser: randomBytes(12).toString('hex'),
    replication: randomBytes(12).toString('hex'),
  }
  const peers = await Promise.all(NAMES.map(freePort))
  const cluster = NAMES.map((name, index) => `${name}=http://127.0.0.1:${peers[index]}`).join(',')
  const nodes = await Promise.all(
    NAMES.map((name, index) => newNode({ name, folder, passwords, cluster, peer: peers[index] ?? 0 })),
  )
  const port = await freePort()
  const haproxy = run(
    'haproxy',
    ['-f', 'deploy/haproxy/postgres.cfg'],
    {
      RECEIPTS_BIND: `127.0.0.1:${port}`,
      ...Object.fromEntries(
        nodes.flatMap(({ address, checkPort }, index) => [
          [`NODE${index + 1}`, address],
          [`NODE${index + 1}_CHECK`, String(checkPort)],
        ]),
      ),
    },
    join(folder, 'haproxy.log'),
  )
  const end = async () => {
    haproxy.kill('SIGKILL')
    for (const node of nodes) node.signal('SIGKILL')
    await Promise.all(nodes.flatMap(({ wires }) => wires).map(async (wire) => await wire.close()))
  }
  const output = async () => {
    const logs = (await readdir(folder)).filter((name) => name.endsWith('.log'))
    const texts = logs.map(async (name) => `${name}\n${await readFile(join(folder, name), 'utf8')}`)
    return (await Promise.all(texts)).join('\n')
  }
  try {
    for (const node of nodes) node.start()
    let leader = await untilLeader(nodes, START_TIMEOUT_MS)
    await untilRow(leader, `select from pg_stat_replication where sync_state = 'sync'`)
    await rowsOf(leader.url('postgres'), `create database ${DATABASE}`)
    const old = leader
    const credentials = `postgres:${passwords.superuser}`
    return {
      databaseUrl:
        path === 'HAProxy'
          ? `postgres://${credentials}@127.0.0.1:${port}/${DATABASE}`
          : `postgres://${credentials}@${nodes.map(({ address }) => address).join(',')}/${DATABASE}?target_session_attrs=read-write`,
      url: () => leader.url(DATABASE),
      beginToLose: async () => {},
      failOver: async () => {
        const struckMs = performance.now()
        if (strike === 'killed') old.signal('SIGKILL')
        else if (strike === 'frozen') old.signal('SIGSTOP')
        else for (const wire of old.wires) wire.silence()
        leader = await untilLeader(
          nodes.filter((node) => node !== old),
          FAILOVER_TIMEOUT_MS,
        )
        const promotedMs = performance.now()
        return { struckMs, promotedMs, takenOverMs: promotedMs }
      },
      bringBack: async () => {
        if (strike === 'killed') old.start()
        else if (strike === 'frozen') old.signal('SIGCONT')
        else for (const wire of old.wires) wire.speak()
        await Promise.resolve()
      },
      writtenToOld: async () => {
        // It has to follow the new leader, having thrown away what only it had.
        const isFollowing = `select where exists (select from pg_stat_wal_receiver where status = 'streaming')`
        const follows = await untilRow(old, isFollowing).then(
          () => true,
          () => false,
        )
        return follows ? [] : [{ what: 'it does not follow the new leader', at: new Date() }]
      },
      output,
      end,
    }
  } catch (error) {
    await writeFile(LOG_OF_FAILURE, await output())
    await end()
    throw error
  }
}

async function newNode({
  name,
  folder,
  passwords,
  cluster,
  peer,
}: {
  name: string
  folder: string
  passwords: { superuser: string; replication: string }
  cluster: string
  peer: number
}): Promise<Node> {
  const home = join(folder, name)
  await mkdir(home)
  const user = userPostgres()
  await chown(home, user.uid, user.gid)
  const ports = { etcd: await freePort(), rest: await freePort(), postgres: await freePort() }
  const [etcdWire, restWire, postgresWire] = await Promise.all(
    [ports.etcd, ports.rest, ports.postgres].map(startSilentWire),
  )
  if (etcdWire === undefined || restWire === undefined || postgresWire === undefined)
    throw new Error('no wire')
  const etcdUrl = `http://127.0.0.1:${ports.etcd}`
  const etcdEnv = {
    ...(await envFile('deploy/etcd/etcd.env')),
    ETCD_NAME: name,
    ETCD_DATA_DIR: join(home, 'etcd'),
    ETCD_LISTEN_CLIENT_URLS: etcdUrl,
    ETCD_ADVERTISE_CLIENT_URLS: etcdUrl,
    ETCD_LISTEN_PEER_URLS: `http://127.0.0.1:${peer}`,
    ETCD_INITIAL_ADVERTISE_PEER_URLS: `http://127.0.0.1:${peer}`,
    ETCD_INITIAL_CLUSTER: cluster,
  }
  const patroniEnv = {
    ...(await envFile('deploy/patroni/node.env')),
    PATRONI_NAME: name,
    PATRONI_RESTAPI_LISTEN: `127.0.0.1:${ports.rest}`,
    PATRONI_RESTAPI_CONNECT_ADDRESS: `127.0.0.1:${restWire.port}`,
    PATRONI_POSTGRESQL_LISTEN: `127.0.0.1:${ports.postgres}`,
    PATRONI_POSTGRESQL_CONNECT_ADDRESS: `127.0.0.1:${postgresWire.port}`,
    PATRONI_POSTGRESQL_DATA_DIR: join(home, 'data'),
    PATRONI_POSTGRESQL_BIN_DIR: serverFolder() ?? '',
    PATRONI_ETCD_HOSTS: `127.0.0.1:${etcdWire.port}`,
    // It would look up the others' addresses there, and go past the wire.
    PATRONI_ETCD_USE_PROXIES: 'true',
    PATRONI_SUPERUSER_PASSWORD: passwords.superuser,
    PATRONI_REPLICATION_PASSWORD: passwords.replication,
    HOME: home,
  }
  let isUp = false
  const children = new Set<ChildProcess>()
  // As systemd does: Patroni ends when it comes before etcd.
  function keepUp(program: string, args: string[], env: Record<string, string>): void {
    const asPostgres = ['--reuid=postgres', '--regid=postgres', '--clear-groups', program, ...args]
    const child = run('setpriv', asPostgres, env, join(folder, `${name}.${program}.log`))
    children.add(child)
    child.on('exit', () => {
      children.delete(child)
      setTimeout(() => isUp && keepUp(program, args, env), RESTART_MS)
    })
  }
  return {
    url: (database) => `postgres://postgres:${passwords.superuser}@127.0.0.1:${ports.postgres}/${database}`,
    address: `127.0.0.1:${postgresWire.port}`,
    checkPort: restWire.port,
    start: () => {
      isUp = true
      keepUp('etcd', [], etcdEnv)
      keepUp('patroni', ['deploy/patroni/config.yml'], patroniEnv)
    },
    signal: (signal) => {
      if (signal === 'SIGKILL') isUp = false
      signalAll(children, home, signal)
    },
    wires: [etcdWire, restWire, postgresWire],
  }
}

/** All of a node's processes: Patroni starts Postgres, which is known by its folder, and that starts more. */
function signalAll(children: Iterable<ChildProcess>, home: string, signal: NodeJS.Signals): void {
  const all = spawnSync('ps', ['-A', '-o', 'pid=,ppid=,args='])
    .stdout.toString()
    .split('\n')
    .map((line) => /^ *(\d+) +(\d+) (.*)$/.exec(line))
    .map((found) => ({ pid: Number(found?.[1]), parent: Number(found?.[2]), args: found?.[3] ?? '' }))
  const own = new Set([...children].map(({ pid }) => pid))
  for (const { pid, args } of all) if (args.includes(`${home}/`)) own.add(pid)
  // Whoever starts others comes before them.
  for (const { pid, parent } of all) if (own.has(parent)) own.add(pid)
  for (const pid of own) {
    try {
      if (pid !== undefined) process.kill(pid, signal)
    } catch {
      // It has ended meanwhile.
    }
  }
}

function userPostgres(): { uid: number; gid: number } {
  const id = (flag: string) => Number(spawnSync('id', [flag, 'postgres']).stdout.toString())
  return { uid: id('-u'), gid: id('-g') }
}

const running = new Set<ChildProcess>()
process.once('exit', () => running.forEach((child) => child.kill('SIGKILL')))

function run(program: string, args: string[], env: Record<string, string>, log: string): ChildProcess {
  const child = spawn(program, args, {
    env: { PATH: process.env['PATH'], LC_ALL: 'C.UTF-8', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const file = createWriteStream(log, { flags: 'a' })
  child.stdout.pipe(file)
  child.stderr.pipe(file)
  running.add(child)
  child.on('exit', () => running.delete(child))
  return child
}

async function envFile(path: string): Promise<Record<string, string>> {
  const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => /^[A-Z0-9_]+=/.test(line))
  return Object.fromEntries(lines.map((line) => [line.replace(/=.*/, ''), line.replace(/^[^=]*=/, '')]))
}

async function untilLeader(nodes: readonly Node[], timeoutMs: number): Promise<Node> {
  for (const untilMs = performance.now() + timeoutMs; performance.now() < untilMs; await pause(POLL_MS)) {
    const answers = await Promise.all(
      nodes.map(async (node) => ({
        node,
        rows: await rowsOf(node.url('postgres'), 'select where not pg_is_in_recovery()'),
      })),
    )
    const leader = answers.find(({ rows }) => rows?.length === 1)
    if (leader !== undefined) return leader.node
  }
  throw new Error(`Patroni's cluster has no leader after ${timeoutMs / 1_000} s`)
}

async function untilRow(node: Node, statement: string): Promise<void> {
  for (
    const untilMs = performance.now() + START_TIMEOUT_MS;
    performance.now() < untilMs;
    await pause(POLL_MS)
  ) {
    if (((await rowsOf(node.url('postgres'), statement))?.length ?? 0) > 0) return
  }
  throw new Error(`A node of Patroni's does not come to: ${statement}`)
}

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done))
  const { port } = probe.address() as AddressInfo
  await new Promise((done) => probe.close(done))
  return port
}

type SilentWire = Wire & { silence(): void; speak(): void }

/** As a network that drops what is sent: nothing is refused, and what was held comes when it is whole again. */
async function startSilentWire(port: number): Promise<SilentWire> {
  const links = new Set<Link>()
  let isSilent = false
  const wire = await startWire(port, (link) => {
    links.add(link)
    if (isSilent) hold(link)
    return {
      fromClient: (bytes) => link.toServer.pass(bytes),
      fromServer: (bytes) => link.toClient.pass(bytes),
    }
  })
  return {
    ...wire,
    silence: () => {
      isSilent = true
      links.forEach(hold)
    },
    speak: () => {
      isSilent = false
      for (const { toServer, toClient } of links) {
        toServer.release()
        toClient.release()
      }
    },
  }
}

function hold({ toServer, toClient }: Link): void {
  toServer.hold()
  toClient.hold()
}
