import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { Sql } from 'postgres'
import { inPieces, LOCK_MS } from './in-pieces.ts'

/**
 * Brings the database to what `sql/` says: numbered files once each and in order, the functions (the other files)
 * whenever their text is another. Several processes may start at once: a lock lets one do it. Every numbered file is sent
 * as one message, and so are all the functions, since they call one another: the server runs each as one transaction. So a
 * start that is killed half-way repeats cleanly, and a claim beside it meets either all new functions or none.
 *
 * `neverBack`: functions of a later release stay, as when a process of the release before starts again beside those of
 * the next; a later release that takes back a text is later all the same. Of two builds of one version neither is known
 * to be later, and what was replaced stays replaced. Answers the names of the files that were left so. (A developer goes
 * back and forth.)
 */
export async function migrate(sql: Sql, neverBack = false): Promise<string[]> {
  await sql.unsafe(`
    select pg_advisory_xact_lock(${MIGRATION_LOCK});
    create table if not exists schema_files (
      name text primary key, checksum text not null, applied_at timestamptz not null default clock_timestamp());
    create table if not exists schema_function_releases (
      name text, checksum text, release int[] not null, primary key (name, checksum));`)
  const files = await sqlFiles()
  const release = await ownRelease()
  await recordRelease(sql, release, files)
  const releases = await releasesInForce(sql, release)
  const applied = await appliedFiles(sql)
  const left: string[] = []
  const functions: Change[] = []
  for (const { name, text, checksum } of files) {
    const current = applied.get(name)
    if (current === checksum) continue
    if (isNumbered(name) && current !== undefined) {
      throw new Error(
        `sql/${name} was changed after it was applied to this database. Write a new numbered file instead.`,
      )
    }
    const isLeft = { LATER: true, SAME: applied.has(replaced(name, checksum)), EARLIER: false }
    if (neverBack && isLeft[releases.get(name) ?? 'EARLIER']) left.push(name)
    else if (!isNumbered(name)) functions.push({ name, text, checksum, current })
    else if (!(await apply(sql, [{ name, text, checksum, current }]))) return await migrate(sql, neverBack)
  }
  return functions.length === 0 || (await apply(sql, functions)) ? left : await migrate(sql, neverBack)
}

const SQL_FOLDER = new URL('../../sql/', import.meta.url)
const MIGRATION_LOCK = 4_620_736_941

/** How a text of `name` that another has replaced is kept in `schema_files`. */
const replaced = (name: string, checksum: string) => `${name}/${checksum}`
const isNumbered = (name: string) => /^\d/.test(name)

type SqlFile = { name: string; text: string; checksum: string }
/** `current`: the checksum of the text that is in force. */
type Change = SqlFile & { current: string | undefined }

/** Digits sort before letters: the tables come before the functions. */
async function sqlFiles(): Promise<SqlFile[]> {
  const names = (await readdir(SQL_FOLDER)).filter((name) => name.endsWith('.sql')).toSorted()
  return await Promise.all(
    names.map(async (name) => {
      const text = await readFile(new URL(name, SQL_FOLDER), 'utf8')
      return { name, text, checksum: createHash('sha256').update(text).digest('hex') }
    }),
  )
}

/** 0.2.1 as [0, 2, 1], which Postgres orders as one does. A test holds that no two releases with other functions have the same. */
async function ownRelease(): Promise<number[]> {
  const { version } = JSON.parse(await readFile(new URL('../package.json', SQL_FOLDER), 'utf8')) as {
    version: string
  }
  return (/^\d+\.\d+\.\d+/.exec(version)?.[0] ?? '0').split('.').map(Number)
}

/** Of each text the latest release that is known to carry it. */
async function recordRelease(sql: Sql, release: number[], files: SqlFile[]): Promise<void> {
  const functions = files
    .filter(({ name }) => !isNumbered(name))
    .map(({ name, checksum }) => ({ name, checksum }))
  await sql`
    insert into schema_function_releases as known (name, checksum, release)
    select name, checksum, ${`{${release.join()}}`}::text::int[]
    from json_to_recordset(${JSON.stringify(functions)}::text::json) as own (name text, checksum text)
    order by name
    on conflict (name, checksum) do update set release = excluded.release where known.release < excluded.release`
}

/** Of each file's text in force. One that no release has recorded is of 0.1.0 or before. */
async function releasesInForce(
  sql: Sql,
  release: number[],
): Promise<Map<string, 'LATER' | 'SAME' | 'EARLIER'>> {
  const rows = await sql<{ name: string; release: 'LATER' | 'SAME' | 'EARLIER' }[]>`
    select name, case when release > own then 'LATER' when release = own then 'SAME' else 'EARLIER' end as release
    from schema_files join schema_function_releases using (name, checksum),
      (select ${`{${release.join()}}`}::text::int[] as own) as this_release`
  return new Map(rows.map((row) => [row.name, row.release]))
}

async function appliedFiles(sql: Sql): Promise<Map<string, string>> {
  const rows = await sql<{ name: string; checksum: string }[]>`select name, checksum from schema_files`
  return new Map(rows.map((row) => [row.name, row.checksum]))
}

/**
 * False when another process, starting at the same time, was first: what it has put there is not to be replaced unseen.
 * The file names and checksums are ours: nothing a caller gives comes into this text. (0.1.0 reads the rows of what was
 * replaced.)
 */
async function apply(sql: Sql, changes: readonly Change[]): Promise<boolean> {
  try {
    await inPieces(() =>
      sql.unsafe(`
        select pg_advisory_xact_lock(${MIGRATION_LOCK}), set_config('lock_timeout', '${LOCK_MS}ms', true);
        ${changes.map(statementsOf).join('\n')}`),
    )
    return true
  } catch (error) {
    if (Object(error).code !== NOT_FIRST) throw error
    return false
  }
}

function statementsOf({ name, text, checksum, current }: Change): string {
  return `
        do $$ begin
          if (select checksum from schema_files where name = '${name}')
             is distinct from ${current === undefined ? 'null' : `'${current}'`} then
            raise exception using errcode = '${NOT_FIRST}';
          end if;
        end $$;
        insert into schema_files (name, checksum)
          select name || '/' || checksum, checksum from schema_files where name = '${name}' on conflict do nothing;
        delete from schema_files where name = '${replaced(name, checksum)}';
        insert into schema_files (name, checksum) values ('${name}', '${checksum}')
          on conflict (name) do update set checksum = excluded.checksum, applied_at = clock_timestamp();
        ${text}`
}

const NOT_FIRST = '40001'
