import { readFile } from 'node:fs/promises'
import postgres from 'postgres'
import { describe, expect, it, vi } from 'vitest'
import { examine } from '../../src/db/examine.ts'
import { startSimulator } from '../../src/simulator/simulator.ts'
import { captured } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { refusedStart } from '../support/gateway-process.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { findPgbouncer, NO_PGBOUNCER, startPgbouncer } from '../support/pgbouncer.ts'

/** Behind PgBouncer, as docs/database.md says: session mode works, the others are refused before anything is written. */

const program = await findPgbouncer()
if (program === null) process.stderr.write(`${NO_PGBOUNCER}\n`)

describe.skipIf(program === null)('PgBouncer', () => {
  const behind = async (settings: Record<string, string | number>, { isRoleSet = true } = {}) => {
    const database = await testDatabase()
    const { username, pathname } = new URL(database.url)
    const role = `alter role ${username} in database ${pathname.slice(1)}`
    const { roles } = await documented()
    if (isRoleSet)
      for (const line of roles) await database.driver.unsafe(line.replace('alter role gateway', role))
    return {
      ...database,
      pooled: await startPgbouncer(program ?? '', database.url, {
        ignore_startup_parameters: 'options',
        ...settings,
      }),
    }
  }

  /** What the page tells to do. */
  async function documented(): Promise<{ ini: Record<string, string>; roles: string[] }> {
    const page = await readFile('docs/database.md', 'utf8')
    const [, ini = ''] = /```ini\n([^`]*pool_mode[^`]*)```/.exec(page) ?? []
    return {
      ini: Object.fromEntries([...ini.matchAll(/^(\w+) = (.*)$/gm)].map(([, name, value]) => [name, value])),
      roles: page.match(/^alter role gateway set .*;$/gm) ?? [],
    }
  }

  const refusal = async (url: string) =>
    await examine(url, 5_000).then(
      () => null,
      (error: unknown) => String(Object(error).message),
    )

  it('in session mode, set up as documented, payments, live updates and a column added meanwhile work', async () => {
    const { ini } = await documented()
    expect(ini).toMatchObject({ pool_mode: 'session' })
    const { pooled, driver } = await behind(ini)
    const books = await testDatabase('bank')
    const bank = await startSimulator({
      databaseUrl: books.url,
      port: 0,
      settings: { minLatencyMs: 0, maxLatencyMs: 0, failureRate: 0, authExpiryHours: 168 },
    })
    whenFileEnds(() => bank.close())
    const gateway = await spawnGateway({ DATABASE_URL: pooled, BANK_URL: bank.url })
    expect(await captured(gateway.client)).toMatchObject({ state: 'CAPTURED' })
    await driver`alter table transitions add column added text`
    await Promise.all(Array.from({ length: 20 }, () => captured(gateway.client)))
    // It listens over the pooler, too.
    await vi.waitUntil(async () => {
      const rows =
        await driver`select from pg_stat_activity where query ilike 'listen %' and datname = current_database()`
      return rows.length > 0
    }, 5_000)
    expect(await gateway.end('SIGINT')).toBe(0)
  })

  it.each(['transaction', 'statement'])(
    'in %s mode it is refused at the start, in one line',
    async (mode) => {
      const { pooled, driver } = await behind({ pool_mode: mode })
      const { code, said } = await refusedStart({ DATABASE_URL: pooled, BANK_URL: 'http://127.0.0.1:9' })
      expect({ code, said }).toEqual({
        code: 1,
        said: expect.stringMatching(
          /^DATABASE_URL leads to a pooler in transaction or statement mode: .*\n$/,
        ) as unknown,
      })
      expect(
        await driver`select from pg_stat_activity where query ilike 'listen %' and datname = current_database()`,
      ).toEqual([])
    },
  )

  it('in transaction mode under the load of others, too', async () => {
    const { pooled } = await behind({ pool_mode: 'transaction', default_pool_size: 3 })
    const others = Array.from({ length: 3 }, async () => {
      const sql = postgres(pooled, { max: 1, fetch_types: false, prepare: false })
      const untilMs = performance.now() + 2_000
      while (performance.now() < untilMs) await sql.unsafe('select pg_sleep(0.005)')
      await sql.end()
    })
    for (let times = 0; times < 3; times += 1)
      expect(await refusal(pooled)).toContain('transaction or statement mode')
    await Promise.all(others)
  })

  it('settings that it does not pass on are named', async () => {
    const { pooled } = await behind({ pool_mode: 'session' }, { isRoleSet: false })
    expect(await refusal(pooled)).toMatch(/alter role \w+ set statement_timeout = '5000';/)
  })

  it('without ignore_startup_parameters, and with too small a pool, the line says so', async () => {
    const strict = await behind({ pool_mode: 'session', ignore_startup_parameters: '' })
    const { said } = await refusedStart({ DATABASE_URL: strict.pooled, BANK_URL: 'http://127.0.0.1:9' })
    expect(said).toMatch(/^.*ignore_startup_parameters = options.*\n$/)
    const small = await behind({ pool_mode: 'session', default_pool_size: 1 })
    expect(await refusal(small.pooled)).toContain('default_pool_size')
  })
})
