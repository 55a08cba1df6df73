import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { expect, it, vi } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { replicatedServers } from '../support/standby.ts'
import type { Server } from '../support/standby.ts'

/** DATABASE_URL may name several hosts: one of them takes writes, and whatever ails the others holds up nobody. */

function pool(url: string) {
  const sql = connect(url, { connectionsMax: 5, statementTimeoutMs: 5_000 })
  whenFileEnds(() => sql.end({ timeout: 0 }))
  return sql
}

/** Of all of them, with what else is said of one. */
function urlOf({ url }: Server, hosts: string[]): string {
  const { username, password, pathname } = new URL(url)
  return `postgres://${username}:${password}@${hosts.join(',')}${pathname}`
}

/** Takes connections, and never says a word. */
async function startSilent(): Promise<string> {
  const server = createServer(() => {}).listen(0, '127.0.0.1')
  await once(server, 'listening')
  whenFileEnds(() => server.close())
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

const portOf = (sql: postgres.Sql) => sql<{ port: number }[]>`select inet_server_port() as port`
const written = (sql: postgres.Sql, text: string) =>
  sql`insert into written values (${text}) returning inet_server_port() as port`

/** Until the statement is answered; whoever is refused says it again. */
async function withinMs(limitMs: number, statement: () => PromiseLike<readonly object[]>): Promise<unknown> {
  const startedMs = performance.now()
  for (;;) {
    const rows = await Promise.resolve(statement()).catch(() => null)
    expect(performance.now() - startedMs).toBeLessThan(limitMs)
    if (rows !== null) return rows[0]
    await pause(20)
  }
}

it('the one that takes writes is found behind a dead, a silent and a read-only one, in both forms of the URL', async () => {
  const { primary, standby } = await replicatedServers()
  const hosts = ['127.0.0.1:9', await startSilent(), standby.host, primary.host]
  const port = Number(primary.host.split(':')[1])
  const { username, password } = new URL(primary.url)
  for (const url of [
    urlOf(primary, hosts),
    `postgres://${username}:${password}@/gateway?host=${hosts.map((host) => host.split(':')[0]).join(',')}&port=${hosts.map((host) => host.split(':')[1]).join(',')}&target_session_attrs=read-write`,
  ]) {
    const startedMs = performance.now()
    expect(await portOf(pool(url))).toEqual([{ port }])
    expect(performance.now() - startedMs).toBeLessThan(1_000)
  }
  await expect(portOf(pool(urlOf(primary, ['127.0.0.1:9', standby.host])))).rejects.toThrow(
    'no host of DATABASE_URL takes writes',
  )
})

it.each<['killed' | 'frozen', (primary: Server) => unknown]>([
  ['killed', (primary) => primary.kill()],
  ['frozen', (primary) => primary.freeze()],
])(
  'when the primary is %s, writes go to the standby within 5 s of its promotion, and never back',
  async (how, fail) => {
    const { primary, standby } = await replicatedServers()
    const sql = pool(urlOf(primary, [primary.host, standby.host]))
    await sql`create table written (text text)`
    await written(sql, 'before')
    const heard = vi.fn<(text: string) => void>()
    await sql.listen('told', heard)
    const copy = postgres(standby.url, { max: 1 })
    await vi.waitUntil(async () => (await copy`select from pg_class where relname = 'written'`).length > 0)
    await copy.end()
    // Every connection has a statement under way.
    const underWay = Array.from({ length: 5 }, () => sql`select pg_sleep(3)::text`.catch(() => null))
    await pause(100)

    await fail(primary)
    await standby.promote()
    const promoted = { port: Number(standby.host.split(':')[1]) }
    expect(await withinMs(5_000, () => written(sql, 'after'))).toEqual(promoted)
    await Promise.all(underWay)
    await vi.waitUntil(async () => {
      await withinMs(5_000, () => sql`select pg_notify('told', '')`)
      return heard.mock.calls.length > 0
    }, 5_000)

    if (how === 'frozen') primary.thaw()
    for (let times = 0; times < 20; times += 1) expect(await written(sql, 'later')).toEqual([promoted])
    if (how === 'killed') return
    const old = postgres(primary.url, { max: 1 })
    await vi.waitUntil(async () => {
      const ours = await old`select from pg_stat_activity where application_name = 'ficmart-gateway'`
      return ours.length === 0
    }, 5_000)
    expect(await old`select from written where text <> 'before'`).toEqual([])
    await old.end()
  },
)

it('a primary that comes back as a standby on its old place is not even read', async () => {
  const { primary, standby } = await replicatedServers()
  const sql = pool(urlOf(primary, [primary.host, standby.host]))
  await portOf(sql)
  await primary.kill()
  await standby.promote()
  await primary.startAsStandby()
  const promoted = { port: Number(standby.host.split(':')[1]) }
  expect(await withinMs(2_000, () => portOf(sql))).toEqual(promoted)
})

it('a primary that comes back as one is not written to, by who starts anew or has seen the other', async () => {
  const { primary, standby } = await replicatedServers()
  await primary.kill()
  await standby.promote()
  await primary.start()
  const url = urlOf(primary, [primary.host, standby.host])
  const promoted = [{ port: Number(standby.host.split(':')[1]) }]
  const sql = pool(url)
  for (const one of [sql, pool(url), pool(url), pool(url)]) expect(await portOf(one)).toEqual(promoted)
  await standby.kill()
  const answer = () =>
    portOf(sql).then(
      ([row]) => `port ${row?.port}`,
      (error: unknown) => String(error),
    )
  await vi.waitFor(
    async () => expect(await answer()).toBe('Error: no host of DATABASE_URL takes writes'),
    5_000,
  )
})
