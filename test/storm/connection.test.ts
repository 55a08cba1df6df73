import { once } from 'node:events'
import { connect as connectTo, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, it, vi } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import type { Database } from '../../src/db/connection.ts'
import { isPassing } from '../../src/db/persist.ts'
import { testDatabase } from '../support/database.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** What our use of postgres.js does when connections break, hang and are refused: each of these is lost without pool.ts. */

const database = await testDatabase()

function pool(url: string, options: { connectionsMax?: number; statementTimeoutMs?: number } = {}): Database {
  const sql = connect(url, { connectionsMax: 10, statementTimeoutMs: 5_000, ...options })
  whenFileEnds(() => sql.end({ timeout: 0 }))
  return sql
}

/** Of what became of many statements: their rows, or the codes they were rejected with. */
async function outcomes(statements: PromiseLike<readonly object[]>[]): Promise<string[]> {
  return await Promise.all(
    statements.map(async (statement) => {
      try {
        return JSON.stringify(await statement)
      } catch (error) {
        expect([error, isPassing(error)]).toEqual([error, true])
        return String(Object(error).code)
      }
    }),
  )
}

it('a database that would forget commits, or show each transaction its own past, is told otherwise', async () => {
  const own = await testDatabase()
  const name = own.sql(new URL(own.url).pathname.slice(1))
  await own.sql`alter database ${name} set synchronous_commit = off`
  await own.sql`alter database ${name} set default_transaction_isolation = 'repeatable read'`
  const sql = pool(own.url)
  const [row] = await sql`
    select current_setting('synchronous_commit') as commits, current_setting('transaction_isolation') as isolation`
  expect(row).toEqual({ commits: 'on', isolation: 'read committed' })
})

it('rows of a statement that broke off are not counted into the next', async () => {
  const sql = pool(database.url, { connectionsMax: 1 })
  const broken = sql`select 10 / (3 - i) from generate_series(1, 5) as i`
  await expect(broken).rejects.toThrow('division by zero')
  const [row] = await sql`select 1 as one`
  expect(row).toEqual({ one: 1 })
})

it('no statement is lost, answered by another’s rows, or costs a connection while sessions are terminated under it', async () => {
  const sql = pool(database.url)
  const over = new AbortController()
  let next = 0
  const workers = Array.from({ length: 40 }, async () => {
    while (!over.signal.aborted) {
      const mine = (next += 1)
      const startedMs = performance.now()
      const [outcome] = await outcomes([sql`select ${mine}::int as mine, pg_sleep(0.003)::text as slept`])
      // One that is lost is given up after six seconds.
      expect(performance.now() - startedMs).toBeLessThan(5_000)
      if (outcome?.startsWith('[') === true) expect(outcome).toBe(`[{"mine":${mine},"slept":""}]`)
    }
  })
  for (let storm = 0; storm < 25; storm += 1) {
    await database.sql`
      select pg_terminate_backend(pid), pg_sleep(0.03) from pg_stat_activity
      where application_name = 'ficmart-gateway' and pid <> pg_backend_pid() and query like '%as mine%'
      order by random() limit ${1 + (storm % 10)}`
  }
  over.abort()
  await Promise.all(workers)
  // All ten at work at one time: none hangs on a dead connection.
  const together = Array.from({ length: 10 }, () => sql`select pg_sleep(0.5)::text as slept`)
  const startedMs = performance.now()
  await outcomes(together)
  expect(performance.now() - startedMs).toBeLessThan(1_500)
})

it.each<[string, (client: Socket) => void]>([
  ['starts (57P03)', (client) => client.once('data', () => client.end(fatal('57P03')))],
  ['has too many connections (53300)', (client) => client.once('data', () => client.end(fatal('53300')))],
  ['closes the connection', (client) => client.end()],
  ['resets the connection', (client) => client.resetAndDestroy()],
])('a server that %s is asked again ten times a second, not thousands', async (_, turnAway) => {
  const front = await startFront(database.url)
  const sql = pool(front.url)
  let heard = 0
  await sql.listen(`storm`, () => (heard += 1))
  // Connections that were made before are the ones that would spin.
  await outcomes(Array.from({ length: 10 }, () => sql`select pg_sleep(0.05)::text as slept`))
  const untilMs = performance.now() + 1_500
  front.turnAway(turnAway)
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      while (performance.now() < untilMs) {
        await outcomes([sql`select 1 as one`])
        await pause(20)
      }
    }),
  )
  expect(front.turnedAway()).toBeGreaterThan(3)
  expect(front.turnedAway()).toBeLessThan(60)

  front.turnAway(null)
  const backMs = performance.now()
  while ((await outcomes([sql`select 1 as one`]))[0] !== '[{"one":1}]')
    expect(performance.now() - backMs).toBeLessThan(3_000)
  await vi.waitUntil(async () => {
    await sql`select pg_notify('storm', '')`
    return heard > 0
  }, 3_000)
})

it('a server that hangs is given up, and a new one at its place is found', async () => {
  const front = await startFront(database.url)
  const sql = pool(front.url, { connectionsMax: 2, statementTimeoutMs: 300 })
  await outcomes([sql`select 1`, sql`select 1`])
  front.silence()
  const asked = await outcomes(Array.from({ length: 6 }, () => sql`select 1 as one`))
  expect(asked).toContain('CONNECTION_CLOSED')
  expect(asked.filter((outcome) => outcome.startsWith('['))).toEqual([])
  // The old connections still hang.
  const startedMs = performance.now()
  while ((await outcomes([sql`select 1 as one`]))[0] !== '[{"one":1}]')
    expect(performance.now() - startedMs).toBeLessThan(3_000)
})

it('sessions that began while the database was read-only are not kept when it takes writes again', async () => {
  const { url, sql: admin } = await testDatabase()
  const name = new URL(url).pathname.slice(1)
  await admin`create table written (at timestamptz)`
  await admin`alter database ${admin(name)} set default_transaction_read_only = on`
  const sql = pool(url)
  const write = () => outcomes([sql`insert into written values (now())`])
  expect(await write()).toEqual(['25006'])
  await admin`set default_transaction_read_only = off`
  await admin`alter database ${admin(name)} reset default_transaction_read_only`
  const backMs = performance.now()
  while ((await write())[0] !== '[]') {
    expect(performance.now() - backMs).toBeLessThan(4_000)
    await pause(20)
  }
})

it('a statement does not wait for ever for a connection, and leaves nothing behind when it goes', async () => {
  const sql = pool(database.url, { connectionsMax: 1, statementTimeoutMs: 7_000 })
  const long = sql`select pg_sleep(6)::text as slept`
  expect(await outcomes([long, sql`select 1 as one`])).toEqual(['[{"slept":""}]', 'CONNECTION_CLOSED'])
  expect(await outcomes([sql`select 1 as one`])).toEqual(['[{"one":1}]'])
}, 15_000)

/** What stands in front of a server: passes everything on, turns away, or falls silent. */
async function startFront(url: string) {
  const target = new URL(url)
  const serverPort = Number(target.port)
  const links = new Set<[Socket, Socket]>()
  let away: ((client: Socket) => void) | null = null
  let turnedAway = 0
  const server = createServer((client) => {
    client.on('error', () => client.destroy())
    if (away !== null) {
      turnedAway += 1
      away(client)
      return
    }
    const upstream = connectTo(serverPort, '127.0.0.1')
    upstream.on('error', () => client.destroy())
    const link: [Socket, Socket] = [client, upstream]
    links.add(link)
    client.pipe(upstream).pipe(client)
    client.on('close', () => {
      upstream.destroy()
      links.delete(link)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  whenFileEnds(() => {
    server.close()
    for (const [client] of links) client.destroy()
  })
  target.port = String((server.address() as AddressInfo).port)
  return {
    url: target.href,
    turnedAway: () => turnedAway,
    turnAway: (how: typeof away) => {
      away = how
      if (how !== null) for (const [client] of links) client.destroy()
    },
    /** The connections of now stay and pass nothing on. */
    silence: () => {
      for (const [client, upstream] of links) {
        client.unpipe(upstream)
        client.resume()
      }
    },
  }
}

/** As the server says it. */
function fatal(code: string): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${code}\0Mno\0\0`)
  const head = Buffer.alloc(5)
  head.write('E')
  head.writeUInt32BE(fields.length + 4, 1)
  return Buffer.concat([head, fields])
}
