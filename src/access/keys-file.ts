import { appendFile, chmod, chown, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { BadKey, readKey } from './api-keys.ts'
import type { ApiKey } from './api-keys.ts'

/** The file of API keys: a line for each, `client:role:sha256`; empty lines and those that begin with # are left alone. */

/** Null when there is no file. */
export async function readKeysFile(file: string): Promise<string | null> {
  return await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
}

/** Each at its place, empty where it says nothing. */
export function linesIn(text: string): string[] {
  return text.split('\n').map((line) => (line.trimStart().startsWith('#') ? '' : line.trim()))
}

/** Throws a BadKey that names the line. */
export function keysIn(text: string): ApiKey[] {
  return linesIn(text).flatMap((entry, at) => {
    if (entry === '') return []
    try {
      return [readKey(entry)]
    } catch (error) {
      if (error instanceof BadKey) throw new BadKey(`line ${at + 1} ${error.message}`)
      throw error
    }
  })
}

/** By one write at the end, so that two who add at one time lose nothing. */
export async function appendLine(file: string, line: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true })
  const before = await readKeysFile(file)
  const start = before === null ? HEADING : /[^\n]$/.test(before) ? '\n' : ''
  await appendFile(file, `${start}${line}\n`, { mode: 0o600 })
  // Made by root beside a gateway that is not: it is for whoever the folder is for.
  if (before === null && process.getuid?.() === 0) {
    const { uid, gid } = await stat(dirname(file))
    await chown(file, uid, gid)
  }
}

const OF_ANOTHER =
  'the file belongs to another user, whose gateway could not read it any more; run this as them. Nothing was removed'
const HEADING =
  '# API keys, client:role:sha256: only their hashes. `npm run keys` adds and removes; a running gateway notices.\n'

/**
 * Answers how many lines went. By renaming, so that a gateway never reads half a file; whose it was, and who may read
 * it, stays.
 */
export async function removeLines(file: string, isGone: (line: string) => boolean): Promise<number> {
  const lines = ((await readKeysFile(file)) ?? '').split('\n')
  const kept = lines.filter((line) => !isGone(line.trim()))
  if (kept.length < lines.length) {
    const { uid, gid, mode } = await stat(file)
    if (![0, uid].includes(process.getuid?.() ?? uid)) throw new BadKey(OF_ANOTHER)
    const next = `${file}.${process.pid}`
    await writeFile(next, kept.join('\n'), { mode: 0o600 })
    if (process.getuid?.() === 0) await chown(next, uid, gid)
    await chmod(next, mode)
    await rename(next, file)
  }
  return lines.length - kept.length
}
