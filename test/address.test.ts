import { userInfo } from 'node:os'
import { expect, it } from 'vitest'
import { readAddress } from '../src/db/address.ts'

/** DATABASE_URL as hosts print it and psql takes it. */

const at = (host: string, port = 5432) => ({ name: host, at: { host, port } })
const socket = (path: string) => ({ name: 'localhost', at: { path } })

it.each<[string, object]>([
  ['postgres://u:p@db/x', { hosts: [at('db')], user: 'u', password: 'p', database: 'x' }],
  ['postgresql://u@db:5433', { hosts: [at('db', 5433)], user: 'u', database: 'u' }],
  ['postgres://u@[::1]:5433/x', { hosts: [at('::1', 5433)] }],
  ['postgres://u@[fe80::1%25eth0]/x', { hosts: [at('fe80::1%eth0')] }],
  ['postgres://u:100%@db/x', { password: '100%' }],
  ['postgres://u:50%ff!@db/x', { password: '50%ff!' }],
  ['postgres://u:p%40%2F%25@db/x', { password: 'p@/%' }],
  ['postgres://u:#a?b:c@d@db/x', { user: 'u', password: '#a?b:c@d', hosts: [at('db')] }],
  ['postgres:///x?host=/var/run/postgresql', { hosts: [socket('/var/run/postgresql/.s.PGSQL.5432')] }],
  ['postgres://%2Fvar%2Frun%2Fpostgresql:6/x', { hosts: [socket('/var/run/postgresql/.s.PGSQL.6')] }],
  ['postgres://u:p@/x?host=/cloudsql/a:b:c', { hosts: [socket('/cloudsql/a:b:c/.s.PGSQL.5432')] }],
  ['postgres://u@h1:1,[::2]:2,h3/x', { hosts: [at('h1', 1), at('::2', 2), at('h3')] }],
  ['postgres://u@/x?host=h1,h2&port=1,2', { hosts: [at('h1', 1), at('h2', 2)] }],
  ['postgres://u@/x?host=h1,h2&port=7', { hosts: [at('h1', 7), at('h2', 7)] }],
  ['postgres://db/x?user=u&password=p&dbname=y', { user: 'u', password: 'p', database: 'y' }],
  [
    'postgres://u@db/x?host=db.example&hostaddr=10.0.0.1',
    { hosts: [{ name: 'db.example', at: { host: '10.0.0.1', port: 5432 } }] },
  ],
  [
    'postgres://u@db/x?application_name=pay%20here&options=-c%20search_path%3Dpay&connect_timeout=3',
    { applicationName: 'pay here', options: '-c search_path=pay', connectTimeoutMs: 3_000 },
  ],
  // Neon's, Supabase's and Heroku's forms.
  [
    'postgresql://u:npg_x@ep-a.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=prefer',
    { tls: expect.objectContaining({ isDemanded: true, checksName: false, checksChain: false }) as unknown },
  ],
  ['postgresql://postgres.ref:[PW]@aws-0.pooler.supabase.com:5432/postgres', { password: '[PW]' }],
  [
    'postgres://u:p@ec2-1.compute.amazonaws.com:5432/d',
    { tls: expect.objectContaining({ isDemanded: false }) as unknown },
  ],
  ['postgres://u@db/x?ssl=true', { tls: expect.objectContaining({ isDemanded: true }) as unknown }],
  ['postgres://u@db/x?sslmode=disable', { tls: null }],
  ['postgres://u@localhost/x', { tls: null }],
  ['postgres://u@db/x?sslrootcert=system', { tls: expect.objectContaining({ checksName: true }) as unknown }],
])('%s', (url, address) => {
  expect(readAddress(url)).toMatchObject(address)
})

it('what the URL leaves out is as psql has it', () => {
  expect(readAddress('postgres:///')).toMatchObject({
    hosts: [at(process.env['PGHOST'] ?? 'localhost')],
    user: process.env['PGUSER'] ?? userInfo().username,
    connectTimeoutMs: 5_000,
    applicationName: 'ficmart-gateway',
  })
})
