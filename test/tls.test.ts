import { execFileSync } from 'node:child_process'
import { chown, copyFile, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { connect } from '../src/db/connection.ts'
import { privateServer } from './support/private-server.ts'
import type { PrivateServer } from './support/private-server.ts'
import { temporaryFolder } from './support/temporary.ts'

/** DATABASE_URL's sslmode and its like, against a server whose certificate is for `db.example` and 127.0.0.1. */

const folder = await temporaryFolder('gateway-tls-')
const hasOpenssl = (() => {
  try {
    return execFileSync('openssl', ['version']).length > 0
  } catch {
    return false
  }
})()
if (!hasOpenssl) process.stderr.write('There is no openssl here: the tests of TLS were skipped.\n')

function openssl(command: string): void {
  execFileSync('openssl', command.split(' '), { cwd: folder, stdio: 'pipe' })
}

/** NAME.crt and NAME.key, signed by CA.crt. */
async function certificate(name: string, ca: string, subject: string, alternatives: string): Promise<void> {
  openssl(`req -newkey rsa:2048 -nodes -keyout ${name}.key -out ${name}.csr -subj /CN=${subject}`)
  await writeFile(join(folder, `${name}.ext`), `subjectAltName=${alternatives}`)
  openssl(
    `x509 -req -in ${name}.csr -CA ${ca}.crt -CAkey ${ca}.key -CAcreateserial -days 2 -out ${name}.crt -extfile ${name}.ext`,
  )
}

async function serveTls(server: PrivateServer): Promise<void> {
  const data = join(server.folder, 'data')
  const { uid, gid } = await stat(join(data, 'postgresql.conf'))
  for (const file of ['server.crt', 'server.key', 'ca.crt']) {
    await copyFile(join(folder, file), join(data, file))
    await chown(join(data, file), uid, gid)
  }
  const hba = join(data, 'pg_hba.conf')
  await writeFile(
    hba,
    `hostssl certified all all scram-sha-256 clientcert=verify-ca
     hostssl encrypted all all scram-sha-256
     hostnossl encrypted,certified all all reject\n${await readFile(hba, 'utf8')}`,
  )
  const admin = connect(server.url('postgres'), { connectionsMax: 1, statementTimeoutMs: 5_000 })
  for (const setting of ['ssl = on', `ssl_ca_file = 'ca.crt'`])
    await admin.unsafe(`alter system set ${setting}`)
  await admin`select pg_reload_conf()`
  await admin.end()
}

describe.skipIf(!hasOpenssl)('TLS', () => {
  let server: PrivateServer
  let plain: PrivateServer

  beforeAll(async () => {
    for (const ca of ['ca', 'other'])
      openssl(`req -x509 -newkey rsa:2048 -nodes -keyout ${ca}.key -out ${ca}.crt -days 2 -subj /CN=${ca}`)
    await certificate('server', 'ca', 'db.example', 'DNS:db.example,IP:127.0.0.1')
    await certificate('client', 'ca', 'gateway', 'DNS:gateway')
    ;[server, plain] = await Promise.all([privateServer(), privateServer()])
    for (const name of ['gateway', 'encrypted', 'certified']) await server.createDatabase(name)
    await plain.createDatabase('gateway')
    await serveTls(server)
  })

  /** Whether the session is encrypted, or why there is none. */
  async function tls(
    query: string,
    { database = 'gateway', host = '127.0.0.1', at = server } = {},
  ): Promise<unknown> {
    const { username, password, port } = new URL(at.url(''))
    const files = query.replaceAll(/=(\w+\.(crt|key))/g, `=${folder}/$1`)
    const address = host === '127.0.0.1' ? '' : '&hostaddr=127.0.0.1'
    const sql = connect(`postgres://${username}:${password}@${host}:${port}/${database}?${files}${address}`, {
      connectionsMax: 1,
      statementTimeoutMs: 5_000,
    })
    try {
      const [row] = await sql<{ ssl: boolean }[]>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`
      return row?.ssl
    } catch (error) {
      return Object(error).code
    } finally {
      await sql.end({ timeout: 1 })
    }
  }

  it.each([
    ['sslmode=disable', {}, false],
    ['sslmode=allow', {}, true],
    ['sslmode=prefer', {}, true],
    ['sslmode=require', {}, true],
    ['ssl=true', {}, true],
    ['sslmode=require&sslnegotiation=direct', {}, true],
    ['sslmode=require&sslrootcert=ca.crt', {}, true],
    ['sslmode=require&sslrootcert=other.crt', {}, 'SELF_SIGNED_CERT_IN_CHAIN'],
    ['sslmode=verify-ca&sslrootcert=ca.crt', {}, true],
    ['sslmode=verify-ca&sslrootcert=ca.crt', { host: 'elsewhere.example' }, true],
    ['sslmode=verify-ca&sslrootcert=other.crt', {}, 'SELF_SIGNED_CERT_IN_CHAIN'],
    ['sslmode=verify-full&sslrootcert=ca.crt', {}, true],
    ['sslmode=verify-full&sslrootcert=ca.crt', { host: 'db.example' }, true],
    ['sslmode=verify-full&sslrootcert=ca.crt', { host: 'elsewhere.example' }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ['sslmode=verify-full&sslrootcert=ca.crt', { host: '[::1]' }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ['sslmode=verify-full&sslrootcert=other.crt', {}, 'SELF_SIGNED_CERT_IN_CHAIN'],
    ['sslmode=verify-full', {}, 'SELF_SIGNED_CERT_IN_CHAIN'],
    // A server that demands it.
    ['sslmode=disable', { database: 'encrypted' }, '28000'],
    ['sslmode=allow', { database: 'encrypted' }, true],
    ['', { database: 'encrypted', host: 'db.example' }, true],
    ['sslmode=require', { database: 'certified' }, '28000'],
    ['sslmode=require&sslcert=client.crt&sslkey=client.key', { database: 'certified' }, true],
  ] as const)('%s %j: %s', async (query, of, outcome) => {
    expect(await tls(query, of)).toBe(outcome)
  })

  it.each([
    ['sslmode=prefer', false],
    ['sslmode=require', 'NO_TLS'],
    ['sslmode=verify-full&sslrootcert=ca.crt', 'NO_TLS'],
  ])('a server that has none, %s: %s', async (query, outcome) => {
    expect(await tls(query, { at: plain })).toBe(outcome)
  })
})
