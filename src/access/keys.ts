import { keysFileOf } from '../config.ts'
import { BadKey, KEY_ROLES, makeKey, troubleWithName, writeKey } from './api-keys.ts'
import type { KeyRole } from './api-keys.ts'
import { printable } from '../terminal.ts'
import { appendLine, keysIn, readKeysFile, removeLines } from './keys-file.ts'

/** `npm run keys -- …`: makes, lists and removes API keys in the file that the gateway reads. */

const USAGE = `npm run keys -- add NAME ROLE   makes a key for a client (role: ${KEY_ROLES.join(' or ')}) and prints it, once
npm run keys -- list            the keys that there are: id, role, client
npm run keys -- remove ID       the key with this id, as list and add print it

To rotate a client's key: add a second one, give it to the client, remove the first. Running gateways notice.
`

/** Of the hash: enough to tell one key from another. */
const ID_LENGTH = 12
const idOf = (sha256: Buffer) => sha256.toString('hex').slice(0, ID_LENGTH)

async function run([command, ...rest]: string[], file: string): Promise<string> {
  if (command === 'add' && rest.length === 2) return await add(rest[0] ?? '', rest[1] ?? '', file)
  if (command === 'list' && rest.length === 0) return await list(file)
  if (command === 'remove' && rest.length === 1) return await remove(rest[0] ?? '', file)
  throw new BadKey(USAGE)
}

async function add(client: string, role: string, file: string): Promise<string> {
  const trouble = troubleWithName(client)
  if (trouble !== null) throw new BadKey(trouble)
  if (!isKeyRole(role)) throw new BadKey(`the role is ${KEY_ROLES.join(' or ')}`)
  const { secret, key } = makeKey(client, role)
  await appendLine(file, writeKey(key))
  return `${secret}

The key of ${client} (${role}), id ${idOf(key.sha256)}. It is shown this once; the client sends it as
Authorization: Bearer <key>. Kept in ${file}, and good for API_KEYS too:
${writeKey(key)}
`
}

async function list(file: string): Promise<string> {
  const keys = keysIn((await readKeysFile(file)) ?? '')
  if (keys.length === 0) return `There are no keys in ${file}.\n`
  return keys.map(({ client, role, sha256 }) => `${idOf(sha256)}  ${role.padEnd(7)}  ${client}\n`).join('')
}

async function remove(id: string, file: string): Promise<string> {
  if (!/^[0-9a-f]{8,64}$/.test(id)) throw new BadKey('an id is what `list` prints, 12 characters')
  const gone = await removeLines(file, (line) => !line.startsWith('#') && hashIn(line).startsWith(id))
  if (gone === 0) throw new BadKey(`there is no key with the id ${id} in ${file}`)
  return `The key ${id} is removed; running gateways refuse it within a second or two.\n`
}

const hashIn = (line: string) => line.slice(line.lastIndexOf(':') + 1)
const isKeyRole = (role: string): role is KeyRole => (KEY_ROLES as readonly string[]).includes(role)

try {
  process.stdout.write(printable(await run(process.argv.slice(2), keysFileOf(process.env))))
} catch (error) {
  process.stderr.write(`${printable(error instanceof Error ? error.message : String(error))}\n`)
  process.exitCode = 1
}
