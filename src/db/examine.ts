import { readAddress } from './address.ts'
import type { Address } from './address.ts'
import { connect } from './connection.ts'
import type { Database } from './connection.ts'
import { DatabaseSilent } from './pool.ts'
import { isSchemaNamed, sessionSettings } from './session.ts'

/** One line, for whoever set DATABASE_URL. */
export class DatabaseUnfit extends Error {}

/**
 * Looks, before anything is written, whether the database and what leads to it are fit for receipts. What is wrong here
 * would show much later, at a name that cannot be stored or a session that is another's.
 */
export async function examine(url: string, statementTimeoutMs: number): Promise<void> {
  const open = () => connect(url, { connectionsMax: 1, statementTimeoutMs })
  const address = readAddress(url)
  const one = open()
  const other = open()
  try {
    if (await isPooled(one)) await refuseSharedSessions(one, other)
    await refuseEncoding(one)
    await refuseSettings(one, sessionSettings(address, statementTimeoutMs))
    await refuseOtherSchema(one, address)
  } finally {
    await Promise.all([one.end({ timeout: 1 }), other.end({ timeout: 1 })])
  }
}

/** Without preparing it: where statements of a session go to several, that alone would fail. */
const backend = (sql: Database) => sql<{ pid: number }[]>`select pg_backend_pid() as pid`.simple()
const pidOf = async (sql: Database) => (await backend(sql))[0]?.pid

/** A pooler makes up the process id that its client is told. */
async function isPooled(sql: Database): Promise<boolean> {
  const rows = await backend(sql)
  return rows[0]?.pid !== rows.state.pid
}

/** Two that are connected at one time have a session each, and keep it. */
async function refuseSharedSessions(one: Database, other: Database): Promise<void> {
  const [ofOne, ofOther] = [new Set(), new Set()]
  for (let times = 0; times < LOOKS; times += 1) {
    ofOne.add(await pidOf(one))
    ofOther.add(await pidOf(other).catch(noSecondSession))
  }
  if (ofOne.size > 1 || ofOther.size > 1 || [...ofOne].some((pid) => ofOther.has(pid)))
    throw new DatabaseUnfit(
      'DATABASE_URL leads to a pooler in transaction or statement mode: settings, prepared statements and LISTEN need a session. Use session mode (pool_mode = session), or connect to Postgres itself.',
    )
}

const LOOKS = 5

function noSecondSession(error: unknown): never {
  if (!(error instanceof DatabaseSilent)) throw error
  throw new DatabaseUnfit(
    'DATABASE_URL leads to a pooler that has no second session for the gateway: its pool must hold DATABASE_CONNECTIONS_MAX and four more for each process (default_pool_size).',
  )
}

async function refuseEncoding(sql: Database): Promise<void> {
  const [row] = await sql<{ server: string; client: string }[]>`
    select current_setting('server_encoding') as server, current_setting('client_encoding') as client`
  if (row?.server !== 'UTF8')
    throw new DatabaseUnfit(
      `The database has the encoding ${row?.server}, which cannot hold every text. Create one with: create database NAME encoding 'UTF8' template template0.`,
    )
  if (row.client !== 'UTF8')
    throw new DatabaseUnfit(`The session has the client_encoding ${row.client}, though UTF8 was asked for.`)
}

/** Servers before Postgres 17, or 14, do not know them: they cannot be set for all. */
const NOT_OURS_TO_SET = {
  transaction_timeout: '0',
  idle_session_timeout: '0',
  session_replication_role: 'origin',
}

async function refuseSettings(sql: Database, settings: Record<string, string>): Promise<void> {
  const wanted = Object.entries({ ...settings, ...NOT_OURS_TO_SET })
  const wrong = await sql<{ name: string; want: string; role: string }[]>`
    select w.name, w.want, quote_ident(session_user) as role
    from json_each_text(${JSON.stringify(Object.fromEntries(wanted))}::text::json) as w (name, want)
    join pg_settings s on lower(s.name) = lower(w.name)
    where s.setting is distinct from w.want
    order by 1`
  if (wrong.length === 0) return
  const role = wrong[0]?.role
  throw new DatabaseUnfit(
    `The sessions that DATABASE_URL leads to lack settings which the gateway needs (a pooler may not pass them on): ${wrong
      .map(
        ({ name, want }) => `alter role ${role} set ${name} = ${want.startsWith('"') ? want : `'${want}'`};`,
      )
      .join(' ')}`,
  )
}

/** Whoever looks past the receipts begins with none, and takes payments a second time. */
async function refuseOtherSchema(sql: Database, address: Address): Promise<void> {
  if (isSchemaNamed(address)) return
  const [row] = await sql<{ schema: string }[]>`
    select relnamespace::regnamespace::text as schema from pg_class as file
    where relname = 'schema_files' and to_regclass('schema_files') is null
      and exists (select from pg_class where relname = 'stray_holds' and relnamespace = file.relnamespace)
    limit 1`
  if (row === undefined) return
  const option = (schema: string) => `options=${encodeURIComponent(`-csearch_path=${schema}`)}`
  throw new DatabaseUnfit(
    `There are receipts in the schema ${row.schema} of this database, where the gateway does not look. If they are its own, DATABASE_URL needs ${option(row.schema)}; if it is another gateway, a database or ${option('SCHEMA')} of its own.`,
  )
}
