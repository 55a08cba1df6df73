import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { Sql } from 'postgres'
import { inPieces, LOCK_MS } from './in-pieces.ts'

/**
 * Brings the database to what `sql/` says: numbered files once each and in order, the functions (the other files)
 * whenever their text has changed. Several processes may start at once: a lock lets one do it. Every file is sent as
 * one message, which the server runs as one transaction, so a start that is killed half-way repeats cleanly.
 *
 * `neverBack`: functions that others have replaced stay replaced, as when a process of the release before starts again
 * beside those of the next. Answers the names of those files. (A developer goes back and forth.)
 */
export async function migrate(sql: Sql, neverBack = false): Promise<string[]> {
  await sql.unsafe(`
    select pg_advisory_xact_lock(${MIGRATION_LOCK});
    create table if not exists schema_files (
      name text primary key, checksum text not null, applied_at timestamptz not null default clock_timestamp());`)
  const applied = await appliedFiles(sql)
  const newer: string[] = []
  for (const { name, text, checksum } of await sqlFiles()) {
    if (applied.get(name) === checksum) continue
    if (isNumbered(name) && applied.has(name)) {
      throw new Error(
        `sql/${name} was changed after it was applied to this database. Write a new numbered file instead.`,
      )
    }
    if (neverBack && applied.has(replaced(name, checksum))) newer.push(name)
    else await apply(sql, name, text, checksum)
  }
  return newer
}

const SQL_FOLDER = new URL('../../sql/', import.meta.url)
const MIGRATION_LOCK = 4_620_736_941

/** How a text of `name` that another has replaced is kept in `schema_files`. */
const replaced = (name: string, checksum: string) => `${name}/${checksum}`
const isNumbered = (name: string) => /^\d/.test(name)

/** Digits sort before letters: the tables come before the functions. */
async function sqlFiles() {
  const names = (await readdir(SQL_FOLDER)).filter((name) => name.endsWith('.sql')).toSorted()
  return await Promise.all(
    names.map(async (name) => {
      const text = await readFile(new URL(name, SQL_FOLDER), 'utf8')
      return { name, text, checksum: createHash('sha256').update(text).digest('hex') }
    }),
  )
}

async function appliedFiles(sql: Sql): Promise<Map<string, string>> {
  const rows = await sql<{ name: string; checksum: string }[]>`select name, checksum from schema_files`
  return new Map(rows.map((row) => [row.name, row.checksum]))
}

/** The file names and checksums are ours: nothing a caller gives comes into this text. */
async function apply(sql: Sql, name: string, text: string, checksum: string): Promise<void> {
  try {
    await inPieces(() =>
      sql.unsafe(`
        select pg_advisory_xact_lock(${MIGRATION_LOCK}), set_config('lock_timeout', '${LOCK_MS}ms', true);
        insert into schema_files (name, checksum)
          select name || '/' || checksum, checksum from schema_files where name = '${name}' on conflict do nothing;
        delete from schema_files where name = '${replaced(name, checksum)}';
        insert into schema_files (name, checksum) values ('${name}', '${checksum}')
          ${isNumbered(name) ? '' : 'on conflict (name) do update set checksum = excluded.checksum, applied_at = clock_timestamp()'};
        ${text}`),
    )
  } catch (error) {
    // Another process, starting at the same time, was first.
    if (isNumbered(name) && (await appliedFiles(sql)).get(name) === checksum) return
    throw error
  }
}
