import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { constants, existsSync } from 'node:fs'
import { access, chmod, mkdir, readFile, realpath, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { findNative } from './native.ts'

/** Where the server lives, what it is run from, and as whom. */
export type Place = { folder: string; native: string; user: User }
/** Null: as we are. */
export type User = { uid: number; gid: number } | null

/**
 * Postgres refuses to run as root: then it runs as the owner of the data that is there, or as a user that every machine
 * has; none is added. That user must be able to enter the folder, which it cannot where the project lies under one that
 * only root may enter, or was cloned under umask 077. Then a folder of the machine's stands in, named after the one
 * asked for. Whichever of the two holds data is it, today and tomorrow, whatever has become of the modes since.
 */
export async function findPlace(wanted: string): Promise<Place> {
  if (process.platform === 'win32')
    throw new Error('The embedded Postgres does not run on Windows. Use WSL, or set DATABASE_URL.')
  // One name for one folder, however it was reached: the stand-in and the server's command line are known by it.
  const folder = await realpath(await makeFolder(resolve(wanted)))
  if (!isRoot) return { folder, native: await findNative(folder, null), user: null }

  const hash = createHash('sha256').update(folder).digest('hex').slice(0, 12)
  const standIn = `/var/lib/ficmart-gateway-${hash}`
  const used = [folder, standIn].find((place) => existsSync(join(place, 'data')))
  const user = await serverUser(used)
  const home = used ?? ((await canEnter(folder, user)) ? folder : await makeFolder(standIn))
  if (!(await canEnter(home, user))) {
    throw new Error(
      `The embedded Postgres keeps its data in ${home}, which its user (${user.uid}, since root may not) cannot enter. ` +
        `Let others enter the folders above it (chmod a+x), or set DATA_FOLDER or DATABASE_URL.`,
    )
  }
  return { folder: home, native: await findNative(home, user), user }
}

const isRoot = process.getuid?.() === 0

/** `used`: where there is data already. */
async function serverUser(used: string | undefined): Promise<{ uid: number; gid: number }> {
  const data = used === undefined ? undefined : join(used, 'data')
  const owner = data === undefined ? undefined : await stat(data)
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid }

  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'))
  const [, , uid, gid] =
    lines.find(([name]) => name === 'nobody') ?? lines.find(([name]) => name === 'postgres') ?? []
  if (uid === undefined || gid === undefined) {
    throw new Error(
      'Postgres does not run as root, and there is no user nobody to run it as. ' +
        'Start as an ordinary user, or set DATABASE_URL to a server of yours.',
    )
  }
  // Root has copied the folder: no server can have run on data of root's.
  if (data !== undefined) await promisify(execFile)('chown', ['-R', `${uid}:${gid}`, data])
  return { uid: Number(uid), gid: Number(gid) }
}

/** Others may enter what we make, whatever the umask says; the data in it is closed to them by Postgres. */
async function makeFolder(folder: string): Promise<string> {
  try {
    const first = (await mkdir(folder, { recursive: true })) ?? folder
    await access(folder, constants.W_OK)
    if (!isRoot) return folder
    for (let made = folder; made.length >= first.length; made = dirname(made)) await chmod(made, 0o755)
    return folder
  } catch (error) {
    throw new Error(
      `The embedded Postgres needs a folder that it can write, and ${folder} is none ` +
        `(${(error as NodeJS.ErrnoException).code}). Set DATA_FOLDER to another, or DATABASE_URL to a server of yours.`,
      { cause: error },
    )
  }
}

/** Tried rather than read from modes, which are not all that decides. */
async function canEnter(folder: string, user: User): Promise<boolean> {
  return await promisify(execFile)('/bin/sh', ['-c', 'cd "$0"', folder], { cwd: '/', ...user }).then(
    () => true,
    () => false,
  )
}
