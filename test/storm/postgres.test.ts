import { execFileSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import type { Sql } from 'postgres'
import { beforeEach, expect, it } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { privateServer } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { expectBookedOnce, startOrders, unclaimed } from '../support/orders.ts'

/**
 * Orders go on being placed and paid for while Postgres misbehaves in every way it can. One gateway process lives
 * through all of it, so that what one storm wears out shows in the next. After each: it is the same process, it serves
 * again within five seconds, every order is captured exactly once, and the bank was asked nothing that is not claimed.
 */

/** Few, so that a test can take them all. */
const SESSIONS_MAX = 30
const STATEMENT_TIMEOUT_MS = 1_000

const server = await privateServer(SESSIONS_MAX)
await server.createDatabase('gateway')
const admin = session('postgres')
const receipts = session('gateway')
const bank = await startTestBank({ minLatencyMs: 5, maxLatencyMs: 30 })
await bank.sql`update accounts set balance_cents = 1000000000, available_cents = 1000000000`
const gateway = await spawnGateway({
  DATABASE_URL: server.url('gateway'),
  DATABASE_CONNECTIONS_MAX: '5',
  DATABASE_STATEMENT_TIMEOUT_MS: String(STATEMENT_TIMEOUT_MS),
  BANK_URL: bank.url,
  BANK_ATTEMPT_TIMEOUT_MS: '2000',
  BANK_QUIET_PERIOD_MS: '1500',
  BANK_CONFIRM_AFTER_MS: '100',
  RECOVER_AFTER_MS: '200',
  SWEEP_EVERY_MS: '300',
  REQUEST_DEADLINE_MS: '4000',
})

beforeEach(() => void bank.received.splice(0))

/** Whether a statement was on its way just then is chance; the next ones find no server. */
const DEAD = /CONNECTION_CLOSED|ECONNRESET|ECONNREFUSED|ERR_SOCKET_CLOSED|57P03/
/** Few ask the server itself, and who that is is chance; the others learn from those that nobody gets in (connection.ts). */
const TURNED_AWAY = /53300|ERR_SOCKET_CLOSED/

it.each<[string, RegExp, () => Promise<void>]>([
  ['dies and is restarted', DEAD, () => server.restart()],
  [
    'dies and stays away for three seconds',
    /ECONNREFUSED|ERR_SOCKET_CLOSED/,
    () => server.restart(() => pause(3_000)),
  ],
  [
    'has its sessions terminated one by one',
    /57P01|CONNECTION_CLOSED/,
    async () => {
      for (let times = 0; times < 20; times += 1) await terminate(1)
    },
  ],
  [
    'has its sessions terminated in a storm',
    /57P01|CONNECTION_CLOSED/,
    async () => {
      for (let times = 0; times < 40; times += 1) await terminate(1 + (times % 5))
    },
  ],
  [
    'has a session killed, and resets all of them',
    DEAD,
    async () => {
      const [one] = await admin<{ pid: number }[]>`
        select pid from pg_stat_activity where application_name = 'ficmart-gateway' limit 1`
      if (one !== undefined) process.kill(one.pid, 'SIGKILL')
    },
  ],
  [
    'is too slow: a lock holds up every connection for longer than a statement may take',
    /57014/,
    () => holding(`lock table operations in access exclusive mode`, 3 * STATEMENT_TIMEOUT_MS),
  ],
  [
    'has no connection left',
    TURNED_AWAY,
    async () => {
      const taken = await takeAllSessions()
      await pause(2_000)
      await Promise.all(taken.map((one) => one.end({ timeout: 1 })))
    },
  ],
  [
    'is read-only for every session that begins',
    /25006/,
    async () => {
      await admin`alter database gateway set default_transaction_read_only = on`
      await terminate(SESSIONS_MAX)
      await pause(2_000)
      await admin`alter database gateway reset default_transaction_read_only`
    },
  ],
  [
    'hangs, as when its machine is frozen',
    /CONNECTION_CLOSED/,
    async () => {
      const pids = await serverProcesses()
      for (const pid of pids) process.kill(pid, 'SIGSTOP')
      await pause(3 * STATEMENT_TIMEOUT_MS)
      for (const pid of pids) process.kill(pid, 'SIGCONT')
    },
  ],
])(
  'Postgres %s',
  async (_, noticed, trouble) => {
    const before = gateway.output().length
    const orders = startOrders(gateway.client, 8)
    await orders.until(20)
    await trouble()

    const backMs = performance.now()
    await orders.placeOne()
    const servedAfterMs = performance.now() - backMs
    const placed = await orders.finish()

    expect(servedAfterMs).toBeLessThan(5_000)
    expect(codesLogged(gateway.output().slice(before))).toMatch(noticed)
    expect(gateway.child.exitCode).toBe(null)
    await expectBookedOnce(bank, placed)
    expect(await unclaimed(bank, receipts)).toEqual([])
  },
  60_000,
)

it('leaves nothing unresolved, and nothing in the log that nobody expected', async () => {
  const unresolved = await receipts`select id from operations where status = 'UNRESOLVED'`
  expect(unresolved).toHaveLength(0)
  expect(
    gateway
      .output()
      .split('\n')
      .filter((line) => line.includes('"level":50') || /TypeError|uncaught/i.test(line)),
  ).toEqual([])
})

/** The trouble came to pass: what the money path had to say again, and why. */
function codesLogged(output: string): string {
  return [...output.matchAll(/"code":"(\w+)"[^\n]*saying it again/g)].map(([, code]) => code).join(' ')
}

function session(database: string): Sql {
  const sql = postgres(server.url(database), { max: 1, fetch_types: false, onnotice: () => {} })
  whenFileEnds(() => sql.end({ timeout: 1 }))
  return sql
}

/** Those at work first. */
async function terminate(atMost: number): Promise<void> {
  await admin`
    select pg_terminate_backend(pid), pg_sleep(0.02) from (
      select pid from pg_stat_activity where application_name = 'ficmart-gateway'
      order by state = 'active' desc, random() limit ${atMost}
    ) as chosen`
}

/** Another session holds the lock for so long. */
async function holding(lock: string, forMs: number): Promise<void> {
  await receipts.unsafe(`begin; ${lock}; select pg_sleep(${forMs / 1_000}); commit`)
}

/** Until each that there can be is another's: one of the gateway's that only just begins has no name to end it by. */
async function takeAllSessions(): Promise<Sql[]> {
  const taken: Sql[] = []
  // Ours must be there before there is none left.
  await Promise.all([admin`select 1`, receipts`select 1`])
  for (let others = 0; others < SESSIONS_MAX;) {
    const one = session('postgres')
    taken.push(one)
    await one`select 1`.catch(async (error: unknown) => {
      expect(error).toMatchObject({ code: '53300' })
      await terminate(SESSIONS_MAX)
    })
    const [{ count = 0 } = {}] = await admin<{ count?: number }[]>`
      select count(*)::int from pg_stat_activity
      where application_name in ('postgres.js', 'ficmart-gateway in use')`
    others = count
  }
  return taken
}

/** The postmaster first: what it starts meanwhile would go on. */
async function serverProcesses(): Promise<number[]> {
  const file = await readFile(join(server.folder, 'data', 'postmaster.pid'), 'utf8')
  const postmaster = Number(file.split('\n')[0])
  const children = execFileSync('ps', ['-o', 'pid=', '--ppid', String(postmaster)], { encoding: 'utf8' })
  return [postmaster, ...children.trim().split(/\s+/).map(Number)]
}
