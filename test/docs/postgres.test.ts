import { execFile, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it, vi } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, succeeded } from '../support/client.ts'
import { freePort } from '../support/free-port.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { temporaryFolder } from '../support/temporary.ts'

/** Debian's Postgres, set up, backed up and restored by the commands of docs/deployment.md and the files of deploy/postgres. */

const version =
  spawnSync('sh', ['-c', 'ls /usr/lib/postgresql | sort -n | tail -n 1'], {
    encoding: 'utf8',
  }).stdout.trim() || null
const isThere =
  process.getuid?.() === 0 &&
  version !== null &&
  spawnSync('sh', ['-c', 'command -v pg_createcluster openssl runuser']).status === 0
if (!isThere)
  console.warn(
    'SKIPPED: as root with postgresql and openssl (apt-get install postgresql openssl) the gateway would be tried on ' +
      "Debian's Postgres, with its backup and restore.",
  )

const doc = await readFile('docs/deployment.md', 'utf8')
const commands = [...doc.matchAll(/^```sh\n(.*?)^```/gms)].map(([, text = '']) => text)
const commandsWith = (text: string) => commands.find((one) => one.includes(text)) ?? expect.fail(text)

/** A cluster of its own, and the documented commands with its places in them. */
async function debianCluster(release: string) {
  const [folder, port] = await Promise.all([temporaryFolder('gateway-debian-'), freePort()])
  const name = `test-${randomUUID().slice(0, 8)}`
  const places: [string, string][] = [
    ['/etc/postgresql/15/', `${folder}/etc/${release}/`],
    ['/etc/postgresql/tls', `${folder}/tls`],
    ['/var/lib/postgresql/15/main', `${folder}/data`],
    ['/var/backups/receipts', `${folder}/backups`],
    ['10.0.0.0/24', '127.0.0.1/32'],
    ["listen_addresses = '*'", "listen_addresses = '127.0.0.1'"],
    ['15/main', `${release}/${name}`],
    ['15 main', `${release} ${name}`],
    ['/main/', `/${name}/`],
    ['deploy/postgres/', `${folder}/deploy/`],
    ["'\\password gateway'", `"alter role gateway password 'secret'"`],
  ]
  const ours = (text: string) => places.reduce((all, [from, to]) => all.replaceAll(from, to), text)
  const run = async (text: string) => {
    const env = { ...process.env, PG_CLUSTER_CONF_ROOT: join(folder, 'etc'), PGPORT: String(port) }
    const { stdout } = await promisify(execFile)('sh', ['-ec', ours(text)], { env, timeout: 120_000 })
    return stdout
  }
  await Promise.all(['deploy', 'tls', 'etc'].map((each) => mkdir(join(folder, each))))
  for (const file of ['gateway.conf', 'pg_hba.conf', 'roles.sql'])
    await writeFile(join(folder, 'deploy', file), ours(await readFile(join('deploy/postgres', file), 'utf8')))
  await run(`
    cd ${folder}/tls
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=receipts \
      -addext subjectAltName=IP:127.0.0.1 -keyout receipts.key -out receipts.crt 2> openssl.log
    chown postgres receipts.key && chmod 0600 receipts.key
    pg_createcluster -d ${folder}/data -p ${port} --socketdir /tmp -l ${folder}/postgres.log 15 main`)
  whenFileEnds(() => run('pg_ctlcluster 15 main stop -m immediate').catch(() => {}))
  const url = (user: string, query: string) => `postgres://${user}:secret@127.0.0.1:${port}/gateway?${query}`
  return { run, url, verified: `sslmode=verify-full&sslrootcert=${folder}/tls/receipts.crt` }
}

it.skipIf(!isThere)(
  'Postgres as Debian has it carries a gateway by TLS, and its backup brings every receipt back',
  { timeout: 300_000 },
  async () => {
    const [bank, { run, url, verified }] = await Promise.all([startTestBank(), debianCluster(version ?? '')])
    await run(commandsWith('roles.sql'))
    const { client, output } = await spawnGateway({
      DATABASE_URL: url('gateway', verified),
      BANK_URL: bank.url,
    })
    const { id: refunded } = await captured(client)
    expect(succeeded(await client.refund({ paymentId: refunded })).payment.state).toBe('REFUNDED')
    expect(succeeded(await client.void({ paymentId: (await authorized(client)).id })).payment.state).toBe(
      'VOIDED',
    )

    const session = async (user: string, query: string, text: string) => {
      const sql = connect(url(user, query), { connectionsMax: 1, statementTimeoutMs: 5_000 })
      try {
        return (await sql.unsafe(text)).length
      } catch (error) {
        return Object(error).message as unknown
      } finally {
        await sql.end({ timeout: 1 })
      }
    }
    await run(
      `runuser -u postgres -- psql --cluster 15/main -c "alter role gateway_reader password 'secret'"`,
    )
    expect(await session('gateway_reader', verified, 'select * from payments')).toBe(2)
    const write = 'begin read write; update payments set state = state; commit'
    expect(await session('gateway_reader', verified, write)).toMatch(/permission denied/)
    expect(await session('gateway', 'sslmode=disable', 'select')).toMatch(/no pg_hba.conf entry/)

    await run(commandsWith('pg_basebackup'))
    const { id: after } = await authorized(client)
    const asked = async (text: string) =>
      (await run(`runuser -u postgres -- psql --cluster 15/main -Atc "${text}"`)).trim()
    const segment = await asked('select pg_walfile_name(pg_switch_wal())')
    const isArchived = async () =>
      (await asked(`select last_archived_wal >= '${segment}' from pg_stat_archiver`)) === 't'
    await vi.waitUntil(isArchived, { timeout: 60_000, interval: 250 })
    await run(commandsWith('recovery.signal'))
    // The same process goes on, with what was before the backup and what was after it, and says that history may be missing.
    const state = async (id: string) =>
      (
        await client
          .query<{ payment: { state: string } | null }>(`{ payment(by: { id: "${id}" }) { state } }`)
          .catch(() => null)
      )?.payment?.state
    await vi.waitUntil(async () => (await state(after)) === 'AUTHORIZED', { timeout: 120_000, interval: 250 })
    expect(await state(refunded)).toBe('REFUNDED')
    expect(succeeded(await client.capture({ paymentId: after })).payment.state).toBe('CAPTURED')
    await authorized(client)
    await vi.waitUntil(() => output().includes('"alarm":"history-lost"'), { timeout: 60_000 })
  },
)
