import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { readConfig } from '../src/config.ts'

/** What keeps the project readable, and its README true. */

const root = fileURLToPath(new URL('..', import.meta.url))
const sources = (await readdir(join(root, 'src'), { recursive: true })).filter((file) => file.endsWith('.ts'))
const folderOf = (file: string) => (file.includes('/') ? (file.split('/')[0] ?? '') : '')

/** Who may import whom. `gateway.ts` is the type that everything is given; only main.ts sees all. */
const MAY_IMPORT: Record<string, string[]> = {
  graphql: ['access', 'recovery', 'operation', 'events', 'payment', 'observe'],
  access: ['config.ts', 'terminal.ts'],
  recovery: ['operation', 'payment', 'bank', 'db', 'observe'],
  operation: ['payment', 'bank', 'db', 'observe'],
  bank: ['payment', 'observe', 'http-connector.ts'],
  events: ['payment', 'db', 'observe', 'http-connector.ts'],
  payment: ['db'],
  db: ['observe'],
  // Told by all, tells nobody: what it knows of the gateway is names and numbers.
  observe: [],
  simulator: ['db', 'config.ts', 'process.ts', 'terminal.ts'],
}

it.each(Object.keys(MAY_IMPORT))('src/%s imports only what lies below it', async (folder) => {
  const allowed = new Set([folder, 'gateway.ts', ...(MAY_IMPORT[folder] ?? [])])
  for (const file of sources.filter((source) => folderOf(source) === folder)) {
    const text = await readFile(join(root, 'src', file), 'utf8')
    for (const [, imported = ''] of text.matchAll(/from '(\.[^']+)'/g)) {
      const path = relative(join(root, 'src'), join(root, 'src', dirname(file), imported))
      expect([file, folderOf(path) || path]).toEqual([
        file,
        expect.toSatisfy((name: string) => allowed.has(name)),
      ])
    }
  }
})

it.each([
  [
    'only bank/ speaks HTTP to the bank, and events/ to FicMart',
    /from '(ofetch|undici)'/,
    ['bank', 'events', 'http-connector.ts'],
  ],
  ['only db/ and the simulator connect to Postgres', /\bpostgres\(/, ['db', 'simulator']],
  ['only the request to the bank reads a card', /\.forBank\(/, ['operation']],
])('%s', async (_, does, folders) => {
  const others: string[] = []
  for (const file of sources.filter((source) => !folders.includes(folderOf(source) || source))) {
    if (does.test(await readFile(join(root, 'src', file), 'utf8'))) others.push(file)
  }
  expect(others).toEqual([])
})

it('no file has grown past what a reader holds', async () => {
  for (const file of sources) {
    const lines = (await readFile(join(root, 'src', file), 'utf8')).split('\n').length
    expect([file, lines]).toEqual([file, expect.toSatisfy((count: number) => count <= 260)])
  }
})

it('the image runs what `npm start` runs', async () => {
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    scripts: { start: string }
  }
  const [, command = '[]'] = /^CMD (.*)$/m.exec(await readFile(join(root, 'Dockerfile'), 'utf8')) ?? []
  expect(`exec ${(JSON.parse(command) as string[]).join(' ')}`).toBe(scripts.start)
})

it('the README lists every setting, with its default, and no other', async () => {
  const readme = await readFile(join(root, 'README.md'), 'utf8')
  const config = await readFile(join(root, 'src/config.ts'), 'utf8')
  const settings = [...config.matchAll(/^ {2}([A-Z][A-Z_]+):/gm)].map((match) => match[1])
  const rows = [...readme.matchAll(/^\| (`[A-Z].*?) \|(.*)$/gm)].flatMap(([row, names = '']) =>
    /`[A-Z]+(_[A-Z]+)*`/.test(names) && !/SAME_KEY|NEW_KEY|WAIT|DO_NOT_RETRY/.test(row)
      ? [...names.matchAll(/`([A-Z_]+)`/g)].map((match) => match[1])
      : [],
  )
  expect(new Set(rows)).toEqual(new Set(settings))
  expect(readConfig({})).toMatchObject({ production: false, port: 4000, databaseUrl: null, bankUrl: null })
})

it('TRADEOFFS.md keeps within 1,000 words', async () => {
  const text = await readFile(join(root, 'TRADEOFFS.md'), 'utf8')
  expect(text.split(/\s+/).filter((word) => word !== '').length).toBeLessThanOrEqual(1_000)
})

it('functions that are not those of a release are of a version that comes after it', async () => {
  const names = (await readdir(join(root, 'sql'))).filter((name) => /^\D.*\.sql$/.test(name)).toSorted()
  const hash = createHash('sha256')
  for (const name of names) hash.update(`${name}\n`).update(await readFile(join(root, 'sql', name)))
  const functions = hash.digest('hex').slice(0, 12)
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
  const changelog = await readFile(join(root, 'CHANGELOG.md'), 'utf8')
  const releases = [...changelog.matchAll(/^## \[(\d+\.\d+\.\d+)\].*\n+Commit \w+, functions (\w{12})\.$/gm)]
  expect(releases.length).toBeGreaterThan(0)
  const newest = [version, ...releases.map(([, release = '']) => release)].toSorted((a, b) =>
    a.localeCompare(b, 'en', { numeric: true }),
  )
  expect(newest.at(-1)).toBe(version)
  const [, , released = functions] = releases.find(([, release]) => release === version) ?? []
  // Else: raise the version in package.json. A process knows by it whether its functions are the later ones (migrate.ts).
  expect(functions).toBe(released)
})
