import { execFileSync, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { cp, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import postgres from 'postgres'
import { expect, inject, it, vi } from 'vitest'
import { startTestBank } from './support/bank.ts'
import { succeeded } from './support/client.ts'
import type { Client } from './support/client.ts'
import { spawnGateway } from './support/gateway.ts'
import { whenFileEnds } from './support/leaving.ts'
import { temporaryFolder } from './support/temporary.ts'

/**
 * A rolling upgrade: two processes of one release are under load, one of the next starts, brings the database forward,
 * and takes its part. No request fails, and none is answered without its payment, whoever it was sent to.
 */

/** CHANGELOG.md names each release's commit, since a clone may lack tags. */
const [, released = '', commit = ''] =
  /^## \[(\d[\d.]+)\].*\n+Commit (\w+)/m.exec(await readFile('CHANGELOG.md', 'utf8')) ?? []
const hasHistory = spawnSync('git', ['cat-file', '-e', `${commit}^{commit}`]).status === 0
if (!hasHistory)
  process.stderr.write(
    `SKIPPED: the history of this clone does not have ${commit}, the release ${released} (git fetch --unshallow): the upgrade from it was not tried.\n`,
  )

/** The last release, built with the packages of now. */
async function lastRelease(): Promise<string> {
  const folder = await temporaryFolder('gateway-release-')
  execFileSync('sh', ['-c', `git archive ${commit} | tar -x -C ${folder}`])
  await symlink(resolve('node_modules'), join(folder, 'node_modules'))
  // It writes its output whatever the types say: packages may have gone on.
  spawnSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { cwd: folder })
  return folder
}

/** What is here. */
async function thisTree(): Promise<string> {
  const folder = await temporaryFolder('gateway-tree-')
  await Promise.all(
    ['dist', 'sql', 'package.json'].map((name) => cp(name, join(folder, name), { recursive: true })),
  )
  await symlink(resolve('node_modules'), join(folder, 'node_modules'))
  return folder
}

/** Every table gets columns, and one an index. */
async function withMigration(folder: string): Promise<string> {
  const files = (await readdir('sql')).filter((name) => /^\d/.test(name)).toSorted()
  const sql = (await Promise.all(files.map((name) => readFile(`sql/${name}`, 'utf8')))).join('\n')
  const renamed = new Map(
    [...sql.matchAll(/^alter table (\w+) rename to (\w+);/gm)].map(([, from, to]) => [from, to]),
  )
  const tables = [...sql.matchAll(/^create table (\w+)/gm)].map(([, table]) => renamed.get(table) ?? table)
  const columns = tables.map(
    (table) => `alter table ${table} add column added_text text, add column added_count int default 0;`,
  )
  await writeFile(
    join(folder, 'sql/900_added.sql'),
    [...columns, 'create index added_index on transitions (added_count);'].join('\n'),
  )
  return folder
}

async function emptyDatabase(): Promise<{ url: string; sql: postgres.Sql }> {
  const server = inject('serverUrl')
  const name = `upgrade_${randomUUID().replaceAll('-', '')}`
  const admin = postgres(`${server}postgres`, { max: 1 })
  await admin`create database ${admin(name)}`
  const sql = postgres(server + name, { max: 1, onnotice: () => {} })
  whenFileEnds(async () => {
    await sql.end({ timeout: 1 })
    await admin`drop database if exists ${admin(name)} with (force)`
    await admin.end({ timeout: 1 })
  })
  return { url: server + name, sql }
}

const READ = `query ($orderId: String!, $customerId: String!, $id: ID!) {
  paymentsByOrder(orderId: $orderId) { id state transitions { toState operation { id kind } } operationInFlight { kind } }
  payment(by: { id: $id }) { id state allowedOperations { operation allowed } }
  customerHistory(customerId: $customerId, first: 10) { edges { node { id transitions { toState } } } }
  shipmentCheck(orderId: $orderId, amountCents: 100) { mayShip }
}`

type Failure = { process: string; what: string }

/** Customers who shop one order after another, each step at another of the processes there are. */
function startShopping(processes: { name: string; client: Client }[], customers: number) {
  const failures: Failure[] = []
  const answered = new Map<string, number>()
  const asked = new Map<string, number>()
  const over = new AbortController()
  let turn = 0

  async function ask<Answer>(
    what: string,
    request: (client: Client) => Promise<Answer>,
  ): Promise<Answer | null> {
    const { name, client } = processes[(turn += 1) % processes.length] ?? { name: '', client: null }
    if (client === null) return null
    asked.set(name, (asked.get(name) ?? 0) + 1)
    try {
      return await request(client)
    } catch (error) {
      failures.push({ process: name, what: `${what}: ${String(error)}` })
      return null
    } finally {
      answered.set(name, (answered.get(name) ?? 0) + 1)
    }
  }
  async function shop(customerId: string): Promise<void> {
    const orderId = `order-${randomUUID()}`
    const order = { orderId, customerId, amountCents: 100 }
    const payment = await ask('authorize', async (client) => succeeded(await client.authorize(order)).payment)
    const id = payment?.id
    if (id === undefined) return
    await ask('read', (client) => client.query(READ, { orderId, customerId, id }))
    const end = turn % 2 === 0 ? ('capture' as const) : ('void' as const)
    await ask(end, async (client) => succeeded(await client[end]({ paymentId: id })).payment.id)
    const read = await ask('read', (client) =>
      client.query<{ paymentsByOrder: { transitions: unknown[] }[] }>(READ, { orderId, customerId, id }),
    )
    if (read !== null) expect(read.paymentsByOrder).toMatchObject([{ id, transitions: [{}, {}, {}] }])
  }
  const shoppers = Array.from({ length: customers }, async (_, index) => {
    while (!over.signal.aborted) await shop(`customer-${index}`)
  })
  return {
    failures,
    /** Until each of them has answered so many more. */
    everyone: async (more: number) => {
      const before = new Map(answered)
      await vi.waitUntil(
        () => processes.every(({ name }) => (answered.get(name) ?? 0) - (before.get(name) ?? 0) >= more),
        { timeout: 60_000 },
      )
    },
    /** As a load balancer that takes it out: what it was sent is answered first. */
    leave: async (name: string) => {
      processes.splice(
        processes.findIndex((each) => each.name === name),
        1,
      )
      await vi.waitUntil(() => asked.get(name) === answered.get(name), { timeout: 60_000 })
    },
    end: async () => {
      over.abort()
      await Promise.all(shoppers)
    },
  }
}

async function upgrade(before: string, after: string): Promise<Failure[]> {
  const [{ url, sql }, bank] = await Promise.all([emptyDatabase(), startTestBank()])
  const env = {
    DATABASE_URL: url,
    BANK_URL: bank.url,
    CLIENT_REQUESTS_PER_SECOND_MAX: '100000',
    LOG_LEVEL: 'info',
  }
  const start = async (name: string, folder: string) => ({ name, ...(await spawnGateway(env, folder)) })
  const [first, second] = await Promise.all([start('before', before), start('before too', before)])
  const processes = [first, second]
  const shopping = startShopping(processes, 6)
  await shopping.everyone(25)
  // The database is brought forward under the load of those of before.
  const next = await start('after', after)
  processes.push(next)
  await shopping.everyone(25)
  // And one of before starts again beside it.
  await shopping.leave(first.name)
  expect(await first.end('SIGINT')).toBe(0)
  processes.push(await start('before again', before))
  await shopping.everyone(10)
  await shopping.end()
  expect(await sql`select from schema_files where name = '900_added.sql'`).toHaveLength(1)
  await Promise.all(processes.map((each) => each.end('SIGKILL')))
  return shopping.failures
}

it.skipIf(!hasHistory)(
  `from ${released}, with columns and an index`,
  async () => {
    const [before, after] = await Promise.all([lastRelease(), thisTree()])
    const failures = await upgrade(before, await withMigration(after))
    // 0.1.0 fails itself, once for each statement and connection, when a table that it reads gets a column.
    const isItsOwn = ({ process, what }: Failure) =>
      released === '0.1.0' && process.startsWith('before') && what.includes('INTERNAL_SERVER_ERROR')
    expect(failures.filter((failure) => !isItsOwn(failure))).toEqual([])
  },
  240_000,
)

it('from what is here to what comes next, with columns and an index', async () => {
  const [before, after] = await Promise.all([thisTree(), thisTree()])
  expect(await upgrade(before, await withMigration(after))).toEqual([])
}, 240_000)
