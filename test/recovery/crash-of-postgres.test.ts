import { expect, it } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { migrate } from '../../src/db/migrate.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { privateServer } from '../support/private-server.ts'

/** The log that a crash cuts off is that of transactions which nobody was told are committed. */

it('a crash of Postgres that loses no commit is not taken for a loss of receipts', async () => {
  const server = await privateServer()
  whenFileEnds(() => server.stop())
  const open = () => connect(server.url('postgres'), { connectionsMax: 1, statementTimeoutMs: 5_000 })
  const [before, other] = [open(), open()]
  await migrate(before)
  await before.unsafe(`alter system set wal_writer_delay = '10s'`)
  await before`select pg_reload_conf()`
  await other.unsafe('begin; create table never_committed as select generate_series(1, 1000) as n')
  const [known] = await before`select * from look_at_history(null)`

  await server.restart()
  await Promise.all([before, other].map((sql) => sql.end({ timeout: 0 }).catch(() => {})))
  const after = open()
  whenFileEnds(() => after.end({ timeout: 1 }))
  const [now] = await after`select * from look_at_history(${after.json(known as never)})`
  expect(now).toMatchObject({ timeline: known?.['timeline'], lostAt: null })
})
