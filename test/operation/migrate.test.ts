import { expect, it } from 'vitest'
import { migrate } from '../../src/db/migrate.ts'
import { recording, switchRecording } from '../../src/events/deliveries.ts'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

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

it('a process of the release before that starts again leaves the functions of the next, unless it is told to go back', async () => {
  const { sql } = await testDatabase()
  const checksums = async () => {
    const rows = await sql<{ name: string; checksum: string }[]>`
      select name, checksum from schema_files where name like 'claim.sql%' order by name`
    return rows.map(({ name, checksum }) => `${name} ${checksum}`)
  }
  const [current = ''] = await checksums()
  const own = current.split(' ')[1] ?? ''
  // As a later release has left it.
  await sql`update schema_files set checksum = 'later' where name = 'claim.sql'`
  await sql`insert into schema_files (name, checksum) values (${`claim.sql/${own}`}, ${own})`
  expect(await migrate(sql, true)).toEqual(['claim.sql'])
  expect(await checksums()).toEqual(['claim.sql later', `claim.sql/${own} ${own}`])

  await sql`delete from schema_files where name like '%.sql/%'`
  expect(await migrate(sql, true)).toEqual([])
  expect(await checksums()).toEqual([`claim.sql ${own}`, 'claim.sql/later later'])
  // A developer goes back and forth.
  await sql`update schema_files set checksum = 'later' where name = 'claim.sql'`
  await sql`update schema_files set name = ${`claim.sql/${own}`}, checksum = ${own} where name = 'claim.sql/later'`
  expect(await migrate(sql)).toEqual([])
  expect(await checksums()).toEqual([`claim.sql ${own}`, 'claim.sql/later later'])
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
