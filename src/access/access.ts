import { setMaxListeners } from 'node:events'
import { isIP } from 'node:net'
import type { Logger } from 'pino'
import { StartRefused } from '../config.ts'
import { BadKey, keyOf, readKey, writeKey } from './api-keys.ts'
import type { ApiKey } from './api-keys.ts'
import { customerTokens, isToken } from './customer-token.ts'
import type { CustomerTokenSettings } from './customer-token.ts'
import { keysIn, linesIn, readKeysFile } from './keys-file.ts'
import type { Who, WhoAsks } from './who.ts'

/**
 * Tells from a request's `Authorization` who asks: by API key, or by a customer's token. Where no key was ever set,
 * everyone is `dev`; that is for a developer's own machine, and production does not start so.
 */
export type AccessSettings = {
  production: boolean
  host: string
  /** Entries as in the file. */
  apiKeys: string[]
  /** Need not exist. One that does, even without a key in it, means that keys are needed. */
  apiKeysFile: string
  /** Without keys: open to whoever reaches it, not only to this machine. */
  openToNetwork: boolean
  customerTokens: CustomerTokenSettings | null
}

/** `isOpen`: at the start. */
export type Access = { whoAsks: WhoAsks; isOpen: boolean; close: () => void }

export async function openAccess(settings: AccessSettings, log: Logger): Promise<Access> {
  const { apiKeysFile: file } = settings
  const fromSetting = keysInSetting(settings.apiKeys)
  let text = await readKeysFile(file).catch((error: NodeJS.ErrnoException) => {
    throw new StartRefused(
      `The file of API keys, ${file}, cannot be read (${error.code}). See API_KEYS_FILE.`,
    )
  })
  let keys = [...fromSetting, ...keysAtStart(text ?? '', file)]
  // Never opened again in this process: whoever removes the last key locks the door.
  let isOpen = fromSetting.length === 0 && text === null
  refuseToBeOpen(settings, isOpen, keys.length)
  const endings = endingsByKey()

  // Looked at rather than watched: a file that is replaced, mounted or on a network tells nobody.
  const look = async () => {
    const now = await readKeysFile(file).catch((error: unknown) => {
      // It is there, so keys are needed, whichever they are.
      if (UNREADABLE.has(String(Object(error).code))) isOpen = false
      throw error
    })
    if (now === text || now === null) return
    text = now
    isOpen = false
    try {
      keys = [...fromSetting, ...keysIn(now)]
    } catch (error) {
      // Whatever else is wrong with the file: a key that was taken out of it is out.
      const lines = linesIn(now).join('\n')
      keys = keys.filter((key) => fromSetting.includes(key) || lines.includes(key.sha256.toString('hex')))
      throw error
    }
    log.info({ keys: summary(keys), file }, 'the file of API keys has changed; its keys are in force')
  }
  const lookNow = async () => {
    await look().catch((error: unknown) => {
      const reason = error instanceof BadKey ? error.message : String(Object(error).code)
      log.error(
        { file, reason },
        'the file of API keys cannot be read; the keys before remain in force, but for those that are not in it',
      )
    })
    if (!isOpen) endings.keep(keys.map(writeKey))
  }
  const timer = setInterval(() => void lookNow(), LOOK_EVERY_MS)
  timer.unref()

  if (isOpen) log.warn(settings.openToNetwork ? `${OPEN} ${BY_NETWORK}` : OPEN)
  else log.info({ keys: summary(keys) }, 'API keys are needed')

  const byToken = settings.customerTokens && customerTokens(settings.customerTokens, log)
  const dev: Who = { client: 'dev', role: 'dev', customer: null, until: endings.until('no key is set') }
  const whoAsks: WhoAsks = async ({ headers }) => {
    const { secret, isBasic } = credential(headers.get('authorization'))
    if (secret !== null && !isOpen) {
      const key = keyOf(secret, keys)
      // A browser sends Basic by itself once it knows it: that is for operators in GraphiQL, not for programs.
      if (key !== null && (key.role === 'ops' || !isBasic)) {
        return { client: key.client, role: key.role, customer: null, until: endings.until(writeKey(key)) }
      }
    }
    if (secret !== null && !isBasic && byToken !== null && isToken(secret))
      return await byToken.whoAsks(secret)
    if (!isOpen) return { refused: 'UNAUTHENTICATED', message: UNKNOWN }
    const name = hostName(headers.get('host'))
    if (LOOPBACK.test(name) || (settings.openToNetwork && isOfNetwork(name))) return dev
    return { refused: 'UNAUTHENTICATED', message: settings.openToNetwork ? OTHER_NAME : ELSEWHERE }
  }
  const close = () => {
    clearInterval(timer)
    byToken?.close()
  }
  return { whoAsks, isOpen, close }
}

const LOOK_EVERY_MS = 1_000
const UNREADABLE = new Set(['EACCES', 'EPERM', 'EISDIR'])
const OPEN =
  'No API keys are set: everyone on this machine is the client "dev" and may do everything. `npm run keys -- add NAME ROLE` makes a key, and from then on keys are needed.'
const BY_NETWORK = 'So is whoever reaches it by the network.'
const UNKNOWN = 'Send a valid API key: Authorization: Bearer <key>.'
const ELSEWHERE = 'Without API keys the gateway answers only to localhost, by that name.'
const OTHER_NAME =
  'Without API keys the gateway answers only to localhost, to an IP address and to names without a dot.'

/** What goes on under a key that is in force, until it is not. */
function endingsByKey() {
  const endings = new Map<string, AbortController>()
  return {
    until: (key: string) => {
      const { signal } = endings.get(key) ?? opened(key)
      return () => signal
    },
    keep: (inForce: readonly string[]) => {
      for (const [key, ending] of endings) {
        if (inForce.includes(key)) continue
        endings.delete(key)
        ending.abort()
      }
    },
  }

  function opened(key: string) {
    const ending = new AbortController()
    // One for each stream.
    setMaxListeners(0, ending.signal)
    endings.set(key, ending)
    return ending
  }
}

function refuseToBeOpen({ production, host, openToNetwork }: AccessSettings, isOpen: boolean, keys: number) {
  const how =
    'Make a key with `npm run keys -- add NAME ROLE` (in the image: `node dist/access/keys.js add NAME ROLE`), or set API_KEYS (see README.md).'
  if (production && keys === 0)
    throw new StartRefused(`NODE_ENV is production and there is no API key. ${how} Nothing was started.`)
  if (isOpen && !openToNetwork && !LOOPBACK.test(host))
    throw new StartRefused(
      `HOST is ${host} and there is no API key: whoever reaches it could move money. ${how} OPEN_TO_NETWORK=true allows it, for development. Nothing was started.`,
    )
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|::1)$/i

/** It is looked at, too: a page of another site whose name has been made to mean this machine must not get in (DNS rebinding). */
function hostName(host: string | null): string {
  return (host ?? '').replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')
}

/** No site on the internet has such a name. */
function isOfNetwork(name: string): boolean {
  return isIP(name) !== 0 || !name.includes('.')
}

/** `Bearer <secret>`; or `Basic`, where the secret is the password and the user's name does not matter. */
function credential(authorization: string | null): { secret: string | null; isBasic: boolean } {
  const [, scheme = '', value = null] = /^(Bearer|Basic) +(\S+)$/i.exec(authorization ?? '') ?? []
  if (value === null || scheme.toLowerCase() !== 'basic') return { secret: value, isBasic: false }
  const [, password = ''] = /^[^:]*:(.*)$/s.exec(Buffer.from(value, 'base64').toString()) ?? []
  return { secret: password, isBasic: true }
}

function keysInSetting(entries: readonly string[]): ApiKey[] {
  try {
    return entries.map(readKey)
  } catch (error) {
    if (error instanceof BadKey) throw new StartRefused(`API_KEYS: ${error.message}, separated by commas.`)
    throw error
  }
}

function keysAtStart(text: string, file: string): ApiKey[] {
  try {
    return keysIn(text)
  } catch (error) {
    if (error instanceof BadKey) throw new StartRefused(`${file}: ${error.message}.`)
    throw error
  }
}

function summary(keys: readonly ApiKey[]): string[] {
  return keys.map(({ client, role }) => `${client}:${role}`)
}
