import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { openAccess } from '../../src/access/access.ts'
import type { AccessSettings } from '../../src/access/access.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { temporaryFolder } from '../support/temporary.ts'

/** Who a request is from, by its Authorization; and when a gateway does not start rather than let everybody in. */

const folder = await temporaryFolder('gateway-access-')
const hash = (key: string) => createHash('sha256').update(key).digest('hex')
const SETTINGS: AccessSettings = {
  production: false,
  host: '127.0.0.1',
  apiKeys: [],
  apiKeysFile: join(folder, 'none'),
  openToNetwork: false,
  customerTokens: null,
}

async function access(settings: Partial<AccessSettings>) {
  const lines: string[] = []
  const log = pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) })
  const { whoAsks, close } = await openAccess({ ...SETTINGS, ...settings }, log)
  whenFileEnds(close)
  const ask = async (authorization?: string, host = 'localhost:4000') => {
    const headers = { host, ...(authorization !== undefined && { authorization }) }
    // A Request of Node's own would drop the name of the host.
    const who = await whoAsks({ headers: new Map(Object.entries(headers)) } as unknown as Request)
    return 'refused' in who ? who.refused : `${who.client} as ${who.role}`
  }
  return { ask, lines }
}
const basic = (user: string, password: string) =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`

describe('by API key', async () => {
  const { ask } = await access({
    apiKeys: [
      `shop:eu:service:${hash('first')}`,
      `shop:eu:service:${hash('second')}`,
      `desk:ops:${hash('desk key')}`,
      `desk:ops:${hash('desk:key')}`,
    ],
  })

  it.each([
    ['Bearer first', 'shop:eu as service'],
    ['bearer second', 'shop:eu as service'],
    [basic('', 'desk:key'), 'desk as ops'],
    [basic('anybody', 'desk key'), 'desk as ops'],
  ])('%s is known', async (authorization, who) => {
    expect(await ask(authorization)).toBe(who)
  })

  it.each([
    undefined,
    '',
    'Bearer',
    'Bearer ',
    'Bearer wrong',
    'Bearer firs',
    'Bearer first second',
    'first',
    'Digest first',
    `Bearer ${hash('first')}`,
    // What a browser sends by itself is for operators in GraphiQL.
    basic('shop', 'first'),
    basic('desk key', ''),
    'Basic !',
    'Basic ZGVzayBrZXk=',
    'Bearer aaaa.bbbb.cccc',
  ])('%j is not', async (authorization) => {
    expect(await ask(authorization)).toBe('UNAUTHENTICATED')
  })
})

describe('with nothing set', () => {
  it('everyone on this machine is dev, and the log says so', async () => {
    const { ask, lines } = await access({})
    for (const host of ['localhost', 'localhost:4000', '127.0.0.1:4000', '[::1]:4000', '127.1.2.3']) {
      expect([host, await ask(undefined, host)]).toEqual([host, 'dev as dev'])
    }
    expect(await ask('Bearer anything')).toBe('dev as dev')
    expect(lines.join('')).toMatch(/"level":40.*No API keys are set.*may do everything/)
  })

  it('a page whose name was made to mean this machine is not let in', async () => {
    const { ask } = await access({})
    for (const host of [
      'evil.example',
      'localhost.evil.example:4000',
      '127.0.0.1.evil.example',
      '10.0.0.1',
      '',
    ]) {
      expect([host, await ask(undefined, host)]).toEqual([host, 'UNAUTHENTICATED'])
    }
    const open = await access({ openToNetwork: true, host: '0.0.0.0' })
    for (const host of ['gateway:4000', 'localhost:4000', '10.0.0.1:4000', '[fe80::1]:4000'])
      expect([host, await open.ask(undefined, host)]).toEqual([host, 'dev as dev'])
    expect(await open.ask(undefined, 'evil.example:4000')).toBe('UNAUTHENTICATED')
    expect(open.lines.join('')).toContain('So is whoever reaches it by the network.')
  })
})

describe('does not start', () => {
  it.each<[string, Partial<AccessSettings>, RegExp]>([
    ['in production without a key', { production: true }, /NODE_ENV is production and there is no API key/],
    [
      'in production without a key, even open to the network',
      { production: true, openToNetwork: true },
      /NODE_ENV is production/,
    ],
    ['beyond loopback without a key', { host: '0.0.0.0' }, /HOST is 0\.0\.0\.0 and there is no API key/],
    ['on another address without a key', { host: '::' }, /OPEN_TO_NETWORK=true allows it/],
    [
      'with the key itself for its hash',
      { apiKeys: ['shop:service:fgk_secret'] },
      /API_KEYS: must be client:role/,
    ],
    ['without a role', { apiKeys: [`shop:${hash('x')}`] }, /must be client:role:sha256/],
    ['with a role that keys have not', { apiKeys: [`shop:dev:${hash('x')}`] }, /service or ops/],
    [
      'with the name of the gateway',
      { apiKeys: [`gateway:ops:${hash('x')}`] },
      /"gateway" is the gateway's own/,
    ],
    ['with the name of a customer', { apiKeys: [`customer:1:service:${hash('x')}`] }, /belong to customers/],
    ['with a name that hides', { apiKeys: [`sh\u200bop:service:${hash('x')}`] }, /a client has 1 to 64/],
  ])('%s', async (_, settings, message) => {
    const refusal = openAccess({ ...SETTINGS, ...settings }, pino({ level: 'silent' }))
    await expect(refusal).rejects.toThrow(message)
    await expect(refusal).rejects.not.toThrow(/fgk_secret/)
  })

  it('with a file that is no list of keys: the line is named, not shown', async () => {
    const file = join(folder, 'bad')
    await writeFile(file, `# keys\nshop:service:${hash('x')}\nshop:service:fgk_secret\n`)
    const refusal = openAccess({ ...SETTINGS, apiKeysFile: file }, pino({ level: 'silent' }))
    await expect(refusal).rejects.toThrow(`${file}: line 3 must be client:role:sha256-in-hex`)
    await expect(refusal).rejects.not.toThrow(/fgk_secret/)
  })

  it('but a file without a key in it means that keys are needed: nobody is let in', async () => {
    const file = join(folder, 'empty')
    await writeFile(file, '# none yet\n')
    const { ask } = await access({ apiKeysFile: file, host: '0.0.0.0' })
    expect(await ask()).toBe('UNAUTHENTICATED')
  })
})
