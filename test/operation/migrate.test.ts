import { cp, readFile, symlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { migrate } from '../../src/db/migrate.ts'
import { recording, switchRecording } from '../../src/events/deliveries.ts'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { temporaryFolder } from '../support/temporary.ts'

it('so does a switch of what is recorded for webhooks', async () => {
  const [{ sql, driver, url }, bank] = await Promise.all([testDatabase(), startTestBank()])
  const { client, gateway } = startTestGateway({ databaseUrl: url, bankUrl: bank.url })
  await driver
    .begin(async (dump) => {
      await dump`lock table transitions in access share mode`
      // What a vacuum takes by hand, too.
      await dump`lock table transitions in share update exclusive mode`
      const switched = switchRecording(gateway, true)
      const waiting = () => sql`select from pg_locks where relation = 'transitions'::regclass and not granted`
      while ((await waiting()).length === 0);
      expect(await client.authorize()).toMatchObject({ payment: { state: 'AUTHORIZED' } })
      return { switched }
    })
    .then(({ switched }) => switched)
  expect(await recording(gateway)).toMatchObject({ isOn: true })
})

describe('functions', () => {
  /** Of releases that differ in claim.sql alone; whoever starts one is told what it has left as it was. */
  const releases = async () => {
    const { sql } = await testDatabase()
    const tree = await temporaryFolder('gateway-releases-')
    await Promise.all(
      ['src', 'sql', 'package.json'].map((name) => cp(name, join(tree, name), { recursive: true })),
    )
    await symlink(resolve('node_modules'), join(tree, 'node_modules'))
    const { migrate: migrateThere } = (await import(join(tree, 'src/db/migrate.ts'))) as {
      migrate: typeof migrate
    }
    const text = await readFile('sql/claim.sql', 'utf8')
    return {
      sql,
      start: async (version: string, mark: string, { isProduction = true } = {}) => {
        await writeFile(join(tree, 'package.json'), JSON.stringify({ version, type: 'module' }))
        await writeFile(join(tree, 'sql/claim.sql'), text.replace('begin\n', `begin\n  -- ${mark}\n`))
        return await migrateThere(sql, isProduction)
      },
      inForce: async () => {
        const [row] = await sql<{ mark: string }[]>`
          select substring(prosrc from '-- (text \\w)\n') as mark from pg_proc where proname = 'claim'`
        return row?.mark
      },
    }
  }

  it('a release that takes back a text deploys it, and those before that start again leave it', async () => {
    const { start, inForce } = await releases()
    expect([await start('1.0.0', 'text A'), await inForce()]).toEqual([[], 'text A'])
    expect([await start('1.9.0', 'text B'), await inForce()]).toEqual([[], 'text B'])
    expect([await start('1.0.0', 'text A'), await inForce()]).toEqual([['claim.sql'], 'text B'])
    expect([await start('1.10.0', 'text A'), await inForce()]).toEqual([[], 'text A'])
    expect([await start('1.9.0', 'text B'), await inForce()]).toEqual([['claim.sql'], 'text A'])
    expect([await start('1.0.0', 'text A'), await inForce()]).toEqual([[], 'text A'])
    expect([await start('2.0.0', 'text B'), await inForce()]).toEqual([[], 'text B'])
    expect([await start('1.10.0', 'text A'), await inForce()]).toEqual([['claim.sql'], 'text B'])
  })

  it('of two builds of one version, what was replaced stays so', async () => {
    const { start, inForce } = await releases()
    await start('1.0.0', 'text A')
    await start('1.0.0', 'text B')
    expect([await start('1.0.0', 'text A'), await inForce()]).toEqual([['claim.sql'], 'text B'])
  })

  it('a developer goes back and forth', async () => {
    const { start, inForce } = await releases()
    for (const [version, mark] of [
      ['1.0.0', 'text A'],
      ['1.1.0', 'text B'],
      ['1.0.0', 'text A'],
      ['1.0.0', 'text B'],
    ] as const)
      expect([await start(version, mark, { isProduction: false }), await inForce()]).toEqual([[], mark])
  })

  it('0.1.0, which goes by what was replaced, leaves them too', async () => {
    const { start, sql } = await releases()
    await start('1.0.0', 'text A')
    const [before] = await sql`select checksum from schema_files where name = 'claim.sql'`
    await start('1.1.0', 'text B')
    expect(
      await sql`select checksum from schema_files where name = ${`claim.sql/${before?.['checksum']}`}`,
    ).toEqual([before])
    // What it put there in spite of it, told to go back for good, gives way to the next start.
    await sql`update schema_files set checksum = 'of 0.1.0' where name = 'claim.sql'`
    await sql`insert into schema_files (name, checksum) select 'claim.sql/' || checksum, checksum from schema_function_releases where name = 'claim.sql' on conflict do nothing`
    expect(await start('1.1.0', 'text B')).toEqual([])
  })

  it('many that start at once agree', async () => {
    const { sql } = await testDatabase()
    await sql`update schema_files set checksum = 'before' where name = 'claim.sql'`
    const starts = () => Promise.all(Array.from({ length: 8 }, () => migrate(sql, true)))
    expect((await starts()).flat()).toEqual([])
    await sql.unsafe('drop schema public cascade; create schema public')
    expect((await starts()).flat()).toEqual([])
  })
})

it('a new table form waits for a long read in pieces, and payments go on between them', async () => {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const { sql, driver, url } = database
  const { client } = startTestGateway({ databaseUrl: url, bankUrl: bank.url })
  await sql`delete from schema_files where name = '006_legal_moves.sql'`
  await driver
    .begin(async (dump) => {
      await dump`select count(*) from transitions`
      const migration = migrate(sql)
      const waiting = () => sql`select from pg_locks where relation = 'transitions'::regclass and not granted`
      while ((await waiting()).length === 0);
      expect(await client.authorize()).toMatchObject({ payment: { state: 'AUTHORIZED' } })
      return { migration }
    })
    .then(({ migration }) => migration)
  expect(await sql`select from schema_files where name = '006_legal_moves.sql'`).toHaveLength(1)
})
