import { randomUUID } from 'node:crypto'
import postgres from 'postgres'
import { inject } from 'vitest'
import { expect, it } from 'vitest'
import { readAddress } from '../../src/db/address.ts'
import { connect } from '../../src/db/connection.ts'
import { examine } from '../../src/db/examine.ts'
import { sessionSettings } from '../../src/db/session.ts'
import { startSimulator } from '../../src/simulator/simulator.ts'
import { authorized, captured } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { refusedStart } from '../support/gateway-process.ts'
import { startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** Whatever the database's or the role's defaults are, a session of the gateway's is as the code needs it. */

const HOSTILE: Record<string, string> = {
  DateStyle: 'SQL, DMY',
  IntervalStyle: 'sql_standard',
  TimeZone: 'Asia/Kathmandu',
  timezone_abbreviations: 'India',
  bytea_output: 'escape',
  extra_float_digits: '-15',
  standard_conforming_strings: 'off',
  array_nulls: 'off',
  transform_null_equals: 'on',
  row_security: 'off',
  search_path: 'pg_catalog',
  synchronous_commit: 'off',
  default_transaction_isolation: 'serializable',
  default_transaction_deferrable: 'on',
  statement_timeout: '1',
  lock_timeout: '1',
  idle_in_transaction_session_timeout: '1',
  jit: 'on',
  plan_cache_mode: 'force_custom_plan',
  client_encoding: 'LATIN1',
}

/** With the defaults of a hostile administrator. */
async function changed(settings: Record<string, string>, of: 'database' | 'role'): Promise<TestDatabase> {
  const database = await testDatabase()
  const { pathname, username } = new URL(database.url)
  const name = pathname.slice(1)
  const what = of === 'database' ? `database ${name}` : `role ${username} in database ${name}`
  for (const [setting, value] of Object.entries(settings))
    await database.driver.unsafe(`alter ${what} set ${setting} = '${value}'`)
  return database
}

function pool(url: string) {
  const sql = connect(url, { connectionsMax: 1, statementTimeoutMs: 5_000 })
  whenFileEnds(() => sql.end({ timeout: 1 }))
  return sql
}

it.each(['database', 'role'] as const)('hostile defaults of the %s: no session has them', async (of) => {
  const { url } = await changed(HOSTILE, of)
  const settings = sessionSettings(readAddress(url), 5_000)
  // Each of them has its enemy here.
  expect(Object.keys({ ...settings, client_encoding: '' }).toSorted()).toEqual(
    Object.keys(HOSTILE).toSorted(),
  )
  const rows = await pool(url)<{ name: string; setting: string }[]>`
    select name, setting from pg_settings where name = any(string_to_array(${Object.keys(HOSTILE).join()}, ','))`
  expect(Object.fromEntries(rows.map((row) => [row.name, row.setting]))).toEqual({
    ...settings,
    client_encoding: 'UTF8',
  })
  await examine(url, 5_000)
})

it('a payment under hostile defaults has the dates and the text that it has without', async () => {
  const { url } = await changed(HOSTILE, 'database')
  const books = await testDatabase('bank')
  const bank = await startSimulator({
    databaseUrl: books.url,
    port: 0,
    settings: { minLatencyMs: 0, maxLatencyMs: 0, failureRate: 0, authExpiryHours: 168 },
  })
  whenFileEnds(() => bank.close())
  const { client } = startTestGateway({ databaseUrl: url, bankUrl: bank.url })
  const { id } = await captured(client, { orderId: '注文1' })
  const held = await authorized(client, { orderId: 'held' })
  const { payment } = (await client.query(
    `{ payment(by: { id: "${held.id}" }) { authorizedAt authorizationExpiresAt } }`,
  )) as { payment: { authorizedAt: string; authorizationExpiresAt: string } }
  const days = (Date.parse(payment.authorizationExpiresAt) - Date.parse(payment.authorizedAt)) / 86_400_000
  expect(days).toBeCloseTo(7, 2)
  expect(await client.query(`{ paymentsByOrder(orderId: "注文1") { id transitions { toState } } }`)).toEqual({
    paymentsByOrder: [
      { id, transitions: [{ toState: 'PENDING' }, { toState: 'AUTHORIZED' }, { toState: 'CAPTURED' }] },
    ],
  })
})

it('the schema that DATABASE_URL names is the one', async () => {
  const { url, driver } = await testDatabase()
  await driver`create schema "the shop"`
  const [row] = await pool(`${url}?options=-csearch_path%3D"the\\%20shop"`)`select current_schema() as schema`
  expect(row).toEqual({ schema: 'the shop' })
})

const refusal = async (url: string) =>
  await examine(url, 5_000).then(
    () => null,
    (error: unknown) => String(Object(error).message),
  )

it('receipts in a schema where the gateway does not look are not overlooked', async () => {
  const { url, driver } = await testDatabase()
  await driver`alter schema public rename to receipts`
  await driver`create schema public`
  expect(await refusal(url)).toMatch(/receipts in the schema receipts .*options=-csearch_path%3Dreceipts/)
  expect(await refusal(`${url}?options=-csearch_path%3Dreceipts`)).toBe(null)
  expect(await refusal(`${url}?options=-csearch_path%3Dpublic`)).toBe(null)
})

it.each([
  ['session_replication_role', 'replica'],
  ['transaction_timeout', '100'],
  ['idle_session_timeout', '1000'],
])('%s, which a session cannot be told at its start, is refused by name', async (name, value) => {
  const { url } = await changed({ [name]: value }, 'database')
  expect(await refusal(url)).toMatch(new RegExp(`alter role \\w+ set ${name} = `))
})

it.each(['LATIN1', 'SQL_ASCII'])(
  'a database in %s cannot hold every text: refused at the start',
  async (encoding) => {
    const server = inject('serverUrl')
    const name = `latin_${randomUUID().replaceAll('-', '')}`
    const admin = postgres(`${server}postgres`, { max: 1 })
    await admin.unsafe(
      `create database ${name} encoding '${encoding}' template template0 locale 'C' locale_provider libc`,
    )
    whenFileEnds(async () => {
      await admin`drop database ${admin(name)} with (force)`
      await admin.end()
    })
    const { code, said } = await refusedStart({ DATABASE_URL: server + name, BANK_URL: 'http://127.0.0.1:9' })
    expect({ code, said }).toEqual({
      code: 1,
      said: `The database has the encoding ${encoding}, which cannot hold every text. Create one with: create database NAME encoding 'UTF8' template template0. Nothing was started.\n`,
    })
    expect(
      await admin.unsafe(`select from pg_stat_database where datname = '${name}' and tup_inserted > 0`),
    ).toEqual([])
  },
)
