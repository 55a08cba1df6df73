import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chown, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { makeOnce } from './make-once.ts'
import type { Place, User } from './place.ts'

/** The data folder of an embedded server, and what is needed to run it. */
export type Cluster = {
  /** Holds the data and, so that the two cannot be parted, the password. */
  data: string
  log: string
  role: string
  password: string
  native: string
  user: User
}

const ROLE = 'gateway'
/** No PG* variable or locale of the caller's. */
export const CLEAN_ENV = { PATH: process.env['PATH'] ?? '', LC_ALL: 'C', TZ: 'UTC' }

/** Makes the data folder the first time, 1 s. `durable: false` does not wait for the disk. */
export async function openCluster(place: Place, durable: boolean): Promise<Cluster> {
  const data = join(place.folder, 'data')
  await makeOnce(data, (draft) => initialize(place, draft, durable))
  try {
    const password = await readFile(join(data, PASSWORD), 'utf8')
    return { ...place, data, log: join(place.folder, 'postgres.log'), role: ROLE, password }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new Error(
      `The embedded Postgres in ${data} cannot be used (${code}): it is another user's, or incomplete. Start as that ` +
        `user, set DATA_FOLDER to another folder, or set DATABASE_URL to a server of yours.`,
      { cause: error },
    )
  }
}

const PASSWORD = 'password'

async function initialize({ native, user }: Place, draft: string, durable: boolean): Promise<void> {
  const made = join(draft, 'made')
  const password = join(draft, PASSWORD)
  // Read by the server's user, so its own under any umask; in the disk before the data is, or it could not be opened.
  await writeFile(password, randomBytes(24).toString('hex'), { mode: 0o600, flush: durable })
  if (user !== null) for (const path of [draft, password]) await chown(path, user.uid, user.gid)
  const args = [
    `--pgdata=${made}`,
    `--username=${ROLE}`,
    `--pwfile=${password}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    // Postgres's own: no locale of the machine's is asked for.
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    ...(durable ? [] : ['--no-sync']),
  ]
  await promisify(execFile)(join(native, 'bin', 'initdb'), args, {
    cwd: '/',
    env: CLEAN_ENV,
    ...user,
  }).catch((error: { stderr?: string; message: string }) => {
    const said = /initdb: error: (.*)/.exec(error.stderr ?? '')?.[1] ?? error.message.split('\n')[0]
    throw new Error(
      `The embedded Postgres could not be set up: ${said}. Mend that, or set DATABASE_URL to a server of yours.`,
      { cause: error },
    )
  })
  await rename(password, join(made, PASSWORD))
}
