import { expect, it } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import type { Database } from '../../src/db/connection.ts'
import { startSimulator } from '../../src/simulator/simulator.ts'
import { captured } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** A column is added beside a running process: its prepared `select *` must be planned anew, with the same parameters. */

const database = await testDatabase()
await database.sql`create table kept (id int)`
await database.sql`insert into kept values (1)`

const AT = new Date('2026-12-06T10:11:12.345Z')
const ID = '0193a5b0-0000-7000-8000-000000000001'

it.each<[string, (sql: Database) => PromiseLike<readonly object[]>, unknown]>([
  ['text', (sql) => sql`select *, ${'a"\\b'}::text as value from kept`, 'a"\\b'],
  ['a number', (sql) => sql`select *, ${7}::int as value from kept`, 7],
  ['cents', (sql) => sql`select *, ${sql.types.bigint(2 ** 53 - 1)}::bigint as value from kept`, 2 ** 53 - 1],
  ['true', (sql) => sql`select *, ${true}::boolean as value from kept`, true],
  ['false', (sql) => sql`select *, ${false}::boolean as value from kept`, false],
  ['null', (sql) => sql`select *, ${null}::text as value from kept`, null],
  ['a time', (sql) => sql`select *, ${AT}::timestamptz as value from kept`, AT],
  ['bytes', (sql) => sql`select *, ${Buffer.from('\\x00')}::bytea as value from kept`, Buffer.from('\\x00')],
  ['JSON', (sql) => sql`select *, ${sql.json({ a: ['b'] })}::jsonb as value from kept`, { a: ['b'] }],
  ['a text as JSON', (sql) => sql`select *, ${sql.json('{}')}::jsonb as value from kept`, '{}'],
  ['texts', (sql) => sql`select *, to_json(${['{a}', '"']}::text[]) as value from kept`, ['{a}', '"']],
  ['ids', (sql) => sql`select *, to_json(${[ID]}::uuid[]) as value from kept`, [ID]],
  ['an identifier beside', (sql) => sql`select *, ${true}::boolean as value from ${sql('kept')}`, true],
])('%s', async (kind, select, value) => {
  const sql = connect(database.url, { connectionsMax: 1, statementTimeoutMs: 5_000 })
  whenFileEnds(() => sql.end({ timeout: 1 }))
  expect(await select(sql)).toMatchObject([{ id: 1, value }])
  for (const times of ['once', 'again']) {
    await database.sql`alter table kept add column ${database.sql(`${kind} ${times}`)} text`
    expect(await select(sql)).toMatchObject([{ id: 1, value }])
  }
})

it('a running gateway answers with the payments and their transitions', async () => {
  const { url, driver } = await testDatabase()
  const books = await testDatabase('bank')
  const bank = await startSimulator({
    databaseUrl: books.url,
    port: 0,
    settings: { minLatencyMs: 0, maxLatencyMs: 0, failureRate: 0, authExpiryHours: 168 },
  })
  whenFileEnds(() => bank.close())
  const { client, gateway } = startTestGateway({ databaseUrl: url, bankUrl: bank.url })
  await gateway.sql.end()
  gateway.sql = connect(url, { connectionsMax: 1, statementTimeoutMs: 5_000 })
  const tables = await driver<{ name: string }[]>`
    select relname as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace`
  const READ = `{ paymentsByOrder(orderId: "o") { state operationInFlight { kind } transitions { toState operation { id } } } }`
  await captured(client, { orderId: 'o' })
  const before = await client.query(READ)
  for (const column of ['first_added', 'second_added']) {
    for (const { name } of tables) await driver`alter table ${driver(name)} add column ${driver(column)} text`
    expect(await client.query(READ)).toEqual(before)
    expect(await captured(client, { orderId: `after ${column}` })).toMatchObject({ state: 'CAPTURED' })
  }
  await gateway.sql.end({ timeout: 1 })
})
