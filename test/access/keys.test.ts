import { spawn } from 'node:child_process'
import { appendFile, chmod, chown, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'
import type { GatewayProcess } from '../support/gateway-process.ts'
import { subscribe } from '../support/stream.ts'
import { temporaryFolder } from '../support/temporary.ts'

/** `npm run keys`, and a gateway that notices what it does. */

const program = fileURLToPath(new URL('../../dist/access/keys.js', import.meta.url))
const folder = await temporaryFolder('gateway-keys-')
const KEY = /^fgk_[A-Za-z0-9_-]{43}$/m

async function keys(env: Record<string, string>, ...args: string[]) {
  const child = spawn(process.execPath, [program, ...args], { env: { PATH: process.env['PATH'], ...env } })
  let [out, err] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()))
  const code = await new Promise((resolve) => child.once('close', resolve))
  return { code, out, err }
}
async function added(env: Record<string, string>, name: string, role: string) {
  const { out, err } = await keys(env, 'add', name, role)
  const [key] = KEY.exec(out) ?? []
  const [, id] = /, id ([0-9a-f]{12})\./.exec(out) ?? []
  if (key === undefined || id === undefined) throw new Error(`no key in ${out}${err}`)
  return { key, id }
}

describe('npm run keys', () => {
  it('adds a key, prints it once and keeps its hash; several of a client; removes one by its id', async () => {
    const file = join(folder, 'new', 'folder', 'keys')
    const env = { API_KEYS_FILE: file }
    expect(await keys(env, 'list')).toMatchObject({ code: 0, out: `There are no keys in ${file}.\n` })
    const [first, second, desk] = [
      await added(env, 'shop', 'service'),
      await added(env, 'shop', 'service'),
      await added(env, 'desk', 'ops'),
    ]
    expect(new Set([first.key, second.key, desk.key]).size).toBe(3)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    const kept = await readFile(file, 'utf8')
    for (const { key } of [first, second, desk]) expect(kept).not.toContain(key.slice(4))
    expect((await keys(env, 'list')).out).toBe(
      `${first.id}  service  shop\n${second.id}  service  shop\n${desk.id}  ops      desk\n`,
    )
    expect(await keys(env, 'remove', first.id)).toMatchObject({ code: 0 })
    expect((await keys(env, 'list')).out).toBe(`${second.id}  service  shop\n${desk.id}  ops      desk\n`)
    expect(await readFile(file, 'utf8')).toMatch(/^# API keys/)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  it.runIf(process.getuid?.() === 0)('run by root leaves the file to whoever runs the gateway', async () => {
    const theirs = join(folder, 'theirs')
    const env = { API_KEYS_FILE: join(theirs, 'keys') }
    await mkdir(theirs)
    await chown(theirs, 1_234, 1_234)
    const { id } = await added(env, 'shop', 'service')
    await chmod(env.API_KEYS_FILE, 0o640)
    expect(await stat(env.API_KEYS_FILE)).toMatchObject({ uid: 1_234, gid: 1_234 })
    expect(await keys(env, 'remove', id)).toMatchObject({ code: 0 })
    const { uid, gid, mode } = await stat(env.API_KEYS_FILE)
    expect([uid, gid, mode & 0o777]).toEqual([1_234, 1_234, 0o640])
  })

  it('keeps them in the data folder when no file is named', async () => {
    const { id } = await added({ DATA_FOLDER: folder }, 'shop', 'service')
    expect(await readFile(join(folder, 'api-keys'), 'utf8')).toContain(`shop:service:${id}`)
  })

  it('eight at one time lose none', async () => {
    const env = { API_KEYS_FILE: join(folder, 'many') }
    await Promise.all(Array.from({ length: 8 }, (_, at) => added(env, `shop-${at}`, 'service')))
    expect((await keys(env, 'list')).out.trim().split('\n')).toHaveLength(8)
  })

  it.each([
    [[], /npm run keys -- add NAME ROLE/],
    [['add', 'shop'], /npm run keys -- add NAME ROLE/],
    [['add', 'shop', 'admin'], /the role is service or ops/],
    [['add', 'shop', 'dev'], /the role is service or ops/],
    [['add', 'gateway', 'service'], /the gateway's own/],
    [['add', 'Customer:1', 'service'], /belong to customers/],
    [['add', 'a b', 'service'], /1 to 64 of the characters/],
    [['add', 'a,b', 'service'], /1 to 64 of the characters/],
    [['add', 'x'.repeat(65), 'service'], /1 to 64 of the characters/],
    [['remove', 'shop'], /an id is what `list` prints/],
    [['remove', '0123456789ab'], /there is no key with the id 0123456789ab/],
  ])('%j is refused in one line, and changes nothing', async (args, message) => {
    const file = join(folder, 'unchanged')
    await writeFile(file, 'old:service:' + 'a'.repeat(64) + '\n')
    const { code, out, err } = await keys({ API_KEYS_FILE: file }, ...args)
    expect([code, out]).toEqual([1, ''])
    expect(err).toMatch(message)
    expect(await readFile(file, 'utf8')).toBe('old:service:' + 'a'.repeat(64) + '\n')
  })
})

describe('a running gateway', () => {
  const status = async ({ url }: GatewayProcess, key?: string) =>
    (
      await fetch(`${url}/graphql`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(key !== undefined && { authorization: `Bearer ${key}` }),
        },
        body: '{"query":"{ paymentsByOrder(orderId: \\"x\\") { id } }"}',
      })
    ).status
  /** What becomes of an order that has no payment: nothing is told before the stream ends. */
  const follow = async ({ url }: GatewayProcess, key: string) => {
    const stream = await subscribe(`${url}/graphql`, FOLLOWED, {}, { authorization: `Bearer ${key}` })
    onTestFinished(() => stream.close())
    expect(stream.status).toBe(200)
    return stream
  }
  const FOLLOWED = 'subscription { paymentUpdated(by: { orderId: "x" }) { id } }'
  /** Of the whole output, from `from` on. */
  async function says(gateway: GatewayProcess, text: RegExp, from = 0): Promise<number> {
    const isSaid = () => text.test(gateway.output().slice(from))
    await new Promise<void>((resolve, reject) => {
      const look = () => isSaid() && resolve()
      gateway.child.stdout?.on('data', () => setImmediate(look))
      gateway.child.once('exit', () => reject(new Error(gateway.output())))
      look()
    })
    return gateway.output().length
  }
  const CHANGED = /the file of API keys has changed/

  it('lets new keys in and removed ones no more, without a restart', async () => {
    const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
    const file = join(folder, 'rotated')
    const env = { API_KEYS_FILE: file }
    const old = await added(env, 'shop', 'service')
    const gateway = await spawnGateway({
      NODE_ENV: 'production',
      HOST: '0.0.0.0',
      DATABASE_URL: database.url,
      BANK_URL: bank.url,
      ...env,
    })
    expect([await status(gateway), await status(gateway, old.key)]).toEqual([401, 200])

    const next = await added(env, 'shop', 'service')
    let seen = await says(gateway, CHANGED)
    expect([await status(gateway, old.key), await status(gateway, next.key)]).toEqual([200, 200])
    const [byOld, byNext] = await Promise.all([follow(gateway, old.key), follow(gateway, next.key)])
    let isOver = false
    const over = byNext.next().then(() => (isOver = true))

    await keys(env, 'remove', old.id)
    seen = await says(gateway, CHANGED, seen)
    expect(await byOld.next()).toBeNull()
    expect([await status(gateway, old.key), await status(gateway, next.key)]).toEqual([401, 200])

    // A mistake in the file, or its loss, locks nobody out; what is put right counts.
    await appendFile(file, 'shop:service:oops\n')
    seen = await says(gateway, /cannot be read; the keys before remain in force/, seen)
    expect(gateway.output()).not.toContain('oops')
    const kept = await readFile(file, 'utf8')
    await rm(file)
    expect(await status(gateway, next.key)).toBe(200)
    // But a key that is taken out is out, whatever else the file holds.
    expect(isOver).toBe(false)
    const off = kept.replaceAll('shop:', '# shop:')
    expect(off).not.toBe(kept)
    await writeFile(file, `${off}shop:service:again\n`)
    seen = await says(gateway, /cannot be read; the keys before remain in force/, seen)
    expect(await status(gateway, next.key)).toBe(401)
    await over
    await writeFile(file, '# all gone\n')
    await says(gateway, CHANGED, seen)
    expect([await status(gateway, next.key), await status(gateway)]).toEqual([401, 401])
  })

  it('that was open is so no more from a file on that it cannot read', async () => {
    const database = await testDatabase()
    const file = join(folder, 'unreadable')
    const env = { DATABASE_URL: database.url, BANK_URL: 'http://127.0.0.1:9', API_KEYS_FILE: file }
    const gateway = await spawnGateway(env)
    expect(await status(gateway)).toBe(200)
    await mkdir(file)
    await says(gateway, /the file of API keys cannot be read/)
    expect(await status(gateway)).toBe(401)
  })

  it('that was open is so no more from the first key on', async () => {
    const database = await testDatabase()
    const file = join(folder, 'late')
    const gateway = await spawnGateway({
      DATABASE_URL: database.url,
      BANK_URL: 'http://127.0.0.1:9',
      API_KEYS_FILE: file,
    })
    expect(await status(gateway)).toBe(200)
    const { key } = await added({ API_KEYS_FILE: file }, 'shop', 'service')
    await says(gateway, CHANGED)
    expect([await status(gateway), await status(gateway, key)]).toEqual([401, 200])
  })
})
