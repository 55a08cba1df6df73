import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, expect, it } from 'vitest'
import { reconcile } from '../../../src/recovery/reconcile.ts'
import { begin } from '../../../src/recovery/reconcile/begin.ts'
import { pageOfDiscrepancies } from '../../../src/recovery/reconcile/reads.ts'
import { takeUp } from '../../../src/recovery/reconcile/runs.ts'
import { startTestBank } from '../../support/bank.ts'
import { authorized, captured, succeeded, TEST_CARD } from '../../support/client.ts'
import { testDatabase } from '../../support/database.ts'
import type { TestDatabase } from '../../support/database.ts'
import { startTestGateway } from '../../support/gateway.ts'
import { temporaryFolder } from '../../support/temporary.ts'

/** The provided bank has no statement: its table is exported as docs/operations.md says, and read as it comes. */

const runbook = await readFile(new URL('../../../docs/operations.md', import.meta.url), 'utf8')
const [, RUNBOOK = 'not in the runbook'] = /\\copy (\(select .*?\)) to /.exec(runbook) ?? []
/** And the whole table, as whoever has not read it would. */
const QUERIES = [RUNBOOK, 'transactions']
const folder = await temporaryFolder('bank-table-')

async function scene() {
  const [database, bank, table] = await Promise.all([testDatabase(), startTestBank(), testDatabase()])
  const { client, gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
  // Its columns, which are not ours: the ids have no prefix, and times no zone.
  await table.driver.unsafe(`
    create table transactions (
      id uuid primary key, account_id uuid not null default gen_random_uuid(), type varchar(20) not null,
      amount_cents bigint not null, currency varchar(3) not null default 'USD', reference_id uuid,
      status varchar(20) not null, expires_at timestamp, metadata jsonb, created_at timestamp not null default now())`)
  /** What the simulated bank has done, as the provided one would have written it. */
  const fill = async () => {
    const rows = await bank.sql<
      {
        id: string
        type: string
        amount_cents: string
        reference_id: string | null
        status: string
        at: string
      }[]
    >`
      select split_part(id, '_', 2) as id, replace(type, 'AUTHORIZATION', 'AUTH_HOLD') as type, amount_cents,
        split_part(reference_id, '_', 2) as reference_id,
        case when type = 'AUTHORIZATION' and status = 'ACTIVE' then 'ACTIVE' else 'COMPLETED' end as status,
        (created_at at time zone 'UTC')::text as at
      from transactions`
    for (const { id, type, amount_cents, reference_id, status, at } of rows)
      await table.driver`
        insert into transactions (id, type, amount_cents, reference_id, status, created_at)
        values (${id}, ${type}, ${amount_cents}, ${reference_id}, ${status}, ${at}::text::timestamp)`
  }
  const compared = async (file: string) => {
    const token = randomUUID()
    const answer = await begin(gateway, { kind: 'STATEMENT', actor: 'test', source: 'bank.csv' }, token)
    if (!('begun' in answer)) throw new Error('another is under way')
    const held = await takeUp(gateway, answer.begun.id, token)
    if (held === null) throw new Error('not taken up')
    const watching = { signal: new AbortController().signal, onProgress: () => {} }
    const run = await reconcile(gateway, held, file, watching)
    return { run, found: await pageOfDiscrepancies(gateway, run.id, { first: 100, after: null }) }
  }
  return { bank, client, table, fill, compared }
}

async function exported(database: Pick<TestDatabase, 'driver'>, query: string): Promise<string> {
  const file = join(folder, `${randomUUID()}.csv`)
  const rows: Readable = await database.driver.unsafe(`copy ${query} to stdout csv header`).readable()
  await pipeline(rows, createWriteStream(file))
  return file
}

describe.each(QUERIES)('%s', (query) => {
  it('agrees with the receipts, line by line and claim by claim', async () => {
    const { client, table, fill, compared } = await scene()
    await authorized(client)
    await captured(client)
    succeeded(await client.refund({ paymentId: (await captured(client)).id }))
    succeeded(await client.void({ paymentId: (await authorized(client)).id }))
    await fill()
    const { run, found } = await compared(await exported(table, query))
    expect(found).toEqual([])
    expect(run).toMatchObject({ lines: 8, checked: 8, matched: 8, skipped: 0 })
  })

  it('tells what differs: a hold used by somebody else, one that nobody knows, and what the bank has not', async () => {
    const { client, bank, table, fill, compared } = await scene()
    const [used, halfUsed, lost] = [
      await authorized(client),
      await authorized(client),
      await captured(client),
    ]
    await fill()
    const uuid = (id: string | null) => String(id).replace(/^\w+_/, '')
    const stranger = randomUUID()
    await table.driver.unsafe(`
      update transactions set status = 'COMPLETED' where id in ('${uuid(used.authorizationId)}', '${uuid(halfUsed.authorizationId)}');
      insert into transactions (id, type, amount_cents, reference_id, status, created_at)
        select gen_random_uuid(), 'VOID', amount_cents, id, 'COMPLETED', now() at time zone 'UTC' from transactions
        where id = '${uuid(used.authorizationId)}';
      insert into transactions (id, type, amount_cents, status, created_at) values
        ('${stranger}', 'AUTH_HOLD', 7, 'ACTIVE', now() at time zone 'UTC' - interval '12 hours'),
        (gen_random_uuid(), 'AUTH_HOLD', 8, 'EXPIRED', now() at time zone 'UTC' + interval '12 hours');
      delete from transactions where id = '${uuid(lost.captureId)}'`)
    const { found } = await compared(await exported(table, query))
    const told = found.map(({ kind, paymentId }) => `${kind} ${paymentId ?? ''}`.trim()).toSorted()
    expect(told).toEqual(
      [
        `STATE_DIFFERS ${used.id.slice(4)}`,
        `STATE_DIFFERS ${halfUsed.id.slice(4)}`,
        `NOT_AT_BANK ${lost.id.slice(4)}`,
        'ORPHAN_HOLD',
        'ORPHAN_HOLD',
      ].toSorted(),
    )
    expect(found.map(({ bankReference }) => bankReference)).toContain(`auth_${stranger}`)
    expect(bank.received.length).toBeGreaterThan(0)
  })

  it('fits the simulated bank’s own ledger, too', async () => {
    const { client, bank, compared } = await scene()
    await captured(client)
    const file = await exported({ driver: bank.sql }, query)
    expect((await compared(file)).run).toMatchObject({ lines: 2, matched: 2, found: 0 })
    if (query === RUNBOOK) expect(await readFile(file, 'utf8')).not.toContain(TEST_CARD.number)
  })
})

it('a time with Postgres’s short offset is read as it says', async () => {
  const { compared } = await scene()
  const file = join(folder, 'offset.csv')
  const line = (at: string) => `AUTH_HOLD,${randomUUID()},,5,ACTIVE,${at}`
  await writeFile(
    file,
    ['type,id,reference_id,amount_cents,status,created_at', line('2026-11-24 09:30:00.5+02')].join('\n'),
  )
  expect((await compared(file)).run).toMatchObject({ spanFrom: new Date('2026-11-24T07:30:00.500Z') })
})
