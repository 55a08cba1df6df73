import { spawnSync } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { temporaryFolder } from '../support/temporary.ts'

/**
 * docs/deployment.md and the systemd unit. HAProxy and nginx are run with their files in test/http/proxies.test.ts, Postgres in
 * postgres.test.ts, Patroni, etcd and the HAProxy before them by `npm run failover -- --patroni`.
 */

const doc = await readFile('docs/deployment.md', 'utf8')
const unit = await readFile('deploy/systemd/ficmart-gateway.service', 'utf8')
const set = (name: string) => [...unit.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map(([, value]) => value)

it('names each file of deploy/, and each file names it', async () => {
  const files = (await readdir('deploy', { recursive: true, withFileTypes: true })).filter((one) =>
    one.isFile(),
  )
  const paths = files.map(({ parentPath, name }) => join(parentPath, name))
  expect(paths.length).toBeGreaterThan(3)
  for (const path of paths) {
    expect(doc).toContain(`(../${path})`)
    expect(await readFile(path, 'utf8')).toContain('docs/deployment.md')
  }
})

it('the service starts what `npm start` starts, and grants what a stop takes', async () => {
  const { scripts } = JSON.parse(await readFile('package.json', 'utf8')) as { scripts: { start: string } }
  expect(set('ExecStart')).toEqual([scripts.start.replace('exec node', '/usr/bin/node')])
  expect([set('KillSignal'), set('TimeoutStopSec')]).toEqual([['SIGTERM'], ['35']])
})

const isThere = spawnSync('systemd-analyze', ['--version']).status === 0
if (!isThere)
  console.warn(
    'SKIPPED: there is no systemd-analyze (apt-get install systemd): the service was not verified.',
  )
it.skipIf(!isThere)('the service is one that systemd takes', async () => {
  const file = join(await temporaryFolder('gateway-unit-'), 'ficmart-gateway.service')
  // It looks whether the program is there.
  await writeFile(file, unit.replace('/usr/bin/node', process.execPath))
  const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', file], { encoding: 'utf8' })
  expect([stderr.split('\n').filter((line) => line.includes('ficmart-gateway')), status]).toEqual([[], 0])
})
