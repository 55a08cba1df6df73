import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { createSecureContext } from 'node:tls'
import { z } from 'zod'
import type { Host, Tls } from './dial.ts'

/** Where the database is and who comes, as DATABASE_URL says it. */
export type Address = {
  hosts: [Host, ...Host[]]
  user: string
  password: string
  database: string
  /** Null: never. */
  tls: Tls | null
  connectTimeoutMs: number
  keepAliveS: number | null
  applicationName: string
  /** As `-c name=value`: see `options` in libpq's manual. */
  options: string
}

/**
 * Reads a URL as libpq does, whose form hosts print (the driver knows no IPv6 address, certificate or second host, and
 * ends on a bare `%`). What cannot be had is an Error of one line, which never repeats a value: it may be the password.
 */
export function readAddress(url: string): Address {
  const [whole, userinfo = '', authority = '', path = '', query = ''] = FORM.exec(url) ?? []
  if (whole === undefined) throw new Error('must be a URL that starts with postgres:// or postgresql://')
  const [user = '', ...password] = userinfo.split(':')
  const { names, ports } = readAuthority(authority)
  const parsed = PARAMETERS.safeParse({
    ...whatIsSet({ user, password: password.join(':'), dbname: path, host: names, port: ports }),
    ...readQuery(query),
  })
  if (!parsed.success) throw new Error(parsed.error.issues.map(inWords).join('; '))
  const p = parsed.data
  const asUser = p.user ?? process.env['PGUSER'] ?? userInfo().username
  const hosts = readHosts(p)
  return {
    hosts,
    user: asUser,
    password: p.password ?? process.env['PGPASSWORD'] ?? '',
    database: p.dbname ?? process.env['PGDATABASE'] ?? asUser,
    tls: readTls(p, hosts),
    connectTimeoutMs: (p.connect_timeout || CONNECT_TIMEOUT_S) * 1_000,
    keepAliveS: p.keepalives === 0 ? null : (p.keepalives_idle ?? KEEP_ALIVE_S),
    applicationName: p.application_name ?? p.fallback_application_name ?? 'ficmart-gateway',
    options: p.options ?? '',
  }
}

/** A password holds no `/`, and an `@` in it is not the last. */
const FORM = /^postgres(?:ql)?:\/\/(?:([^@/]*(?:@[^@/?]*)*)@)?([^@/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s
const CONNECT_TIMEOUT_S = 5
const KEEP_ALIVE_S = 60
/** Kernels take no more for an idle connection, and Node's timers not much more. */
const SECONDS_MAX = 32_767

const seconds = z.coerce
  .number({ error: 'must be a number of seconds' })
  .int('must be a number of seconds')
  .max(SECONDS_MAX, `must be ${SECONDS_MAX} at most`)
  .transform((value) => Math.max(value, 0))
const text = z.string().optional()
const oneOf = <const Values extends [string, ...string[]]>(values: Values, reason = '') =>
  z.enum(values, { error: `must be ${values.join(' or ')}${reason}` }).optional()
const version = oneOf(['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'])

/** Those of libpq's that can be had. */
const PARAMETERS = z.strictObject({
  host: text,
  hostaddr: text,
  port: text,
  dbname: text,
  user: text,
  password: text,
  application_name: text,
  fallback_application_name: text,
  options: text,
  client_encoding: z
    .string()
    .regex(/^(utf-?8|auto)$/i, 'must be UTF8')
    .optional(),
  connect_timeout: seconds.optional(),
  target_session_attrs: oneOf(['any', 'read-write', 'primary'], ': the gateway writes'),
  // Their order says nothing: only one takes writes.
  load_balance_hosts: oneOf(['disable', 'random']),
  sslmode: oneOf(['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full']),
  sslnegotiation: oneOf(['postgres', 'direct']),
  sslrootcert: text,
  sslcrl: text,
  sslcert: text,
  sslkey: text,
  sslpassword: text,
  sslsni: oneOf(['0', '1']),
  sslcompression: oneOf(['0']),
  ssl_min_protocol_version: version,
  ssl_max_protocol_version: version,
  channel_binding: oneOf(
    ['disable', 'prefer'],
    ': it cannot be had here, and sslmode=verify-full protects from the same',
  ),
  gssencmode: oneOf(['disable', 'prefer'], ': it cannot be had here'),
  keepalives: seconds.optional(),
  keepalives_idle: seconds.optional(),
  // Every statement and every connection has a time of its own, which is shorter.
  keepalives_interval: text,
  keepalives_count: text,
  tcp_user_timeout: text,
})
type Parameters = z.infer<typeof PARAMETERS>

/** `a:1,[::1]:2` */
function readAuthority(authority: string): { names: string; ports: string } {
  const places = authority.split(',').map((place) => /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/s.exec(place))
  return {
    names: places.map((place) => (place?.[1] ?? '').replace(/^\[(.*)\]$/s, '$1')).join(','),
    // One that does not fit the form is no number either.
    ports: places.map((place) => (place === null ? 'none' : (place[2] ?? ''))).join(','),
  }
}

function readQuery(query: string): Record<string, string> {
  const set: Record<string, string> = {}
  for (const part of query.split('&').filter((text) => text !== '')) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(part) ?? []
    set[decoded(name)] = decoded(value)
  }
  // JDBC's word for it, which libpq takes too.
  const { ssl, ...others } = set
  return ssl === 'true' ? { sslmode: 'require', ...others } : set
}

const whatIsSet = (values: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(values)
      .filter(([, value]) => value.replaceAll(',', '') !== '')
      .map(([name, value]) => [name, decoded(value)]),
  )

/** A `%` that is nothing's code stands for itself: passwords are pasted as they are. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll(/%(?![0-9a-f]{2})/gi, '%25')).replaceAll('\0', '%00')
  } catch {
    return text
  }
}

function readHosts({ host, hostaddr, port }: Parameters): [Host, ...Host[]] {
  const names = (host ?? hostaddr ?? process.env['PGHOST'] ?? 'localhost').split(',')
  const addresses = hostaddr?.split(',') ?? names
  const ports = (port ?? process.env['PGPORT'] ?? '').split(',')
  if (addresses.length !== names.length || (ports.length !== 1 && ports.length !== names.length))
    throw new Error('must name one port, or one for each of its hosts')
  const [first, ...others] = names.map((name, index): Host => {
    const number = Number((ports.length === 1 ? ports[0] : ports[index]) || 5432)
    if (!Number.isInteger(number) || number < 1 || number > 65_535)
      throw new Error('must have a number as its port; in a password / is written %2F, @ %40 and : %3A')
    return name.startsWith('/')
      ? { name: 'localhost', at: { path: `${name}/.s.PGSQL.${number}` } }
      : { name: name || 'localhost', at: { host: addresses[index] || 'localhost', port: number } }
  })
  if (first === undefined) throw new Error('must name a host')
  return [first, ...others]
}

/** A server on this machine is asked for it when the URL says so. */
const isNear = ({ name }: Host) => /^(localhost|127\.[\d.]+|::1)$/i.test(name)

function readTls(p: Parameters, hosts: readonly Host[]): Tls | null {
  const mode =
    p.sslmode ?? (p.sslrootcert === 'system' ? 'verify-full' : hosts.every(isNear) ? 'disable' : 'prefer')
  if (mode === 'disable') return null
  if (p.sslrootcert === 'system' && mode !== 'verify-full')
    throw new Error(
      'sslrootcert=system needs sslmode=verify-full: anybody can have a certificate of some name',
    )
  if (p.sslrootcert === undefined && mode === 'verify-ca')
    throw new Error('sslmode=verify-ca needs sslrootcert, a file with the certificates to trust')
  return {
    isDemanded: mode !== 'prefer' && mode !== 'allow',
    isDirect: p.sslnegotiation === 'direct',
    sendsName: p.sslsni !== '0',
    checksName: mode === 'verify-full',
    // As libpq: a certificate to trust is there to be checked.
    checksChain: mode === 'verify-full' || p.sslrootcert !== undefined,
    context: secureContext(p),
  }
}

function secureContext(p: Parameters) {
  const file = (name: 'sslrootcert' | 'sslcrl' | 'sslcert' | 'sslkey') => {
    const path = p[name]
    if (path === undefined) return {}
    try {
      const text = readFileSync(path)
      // Node takes a file with no certificate in it for one that trusts nobody.
      if (name === 'sslrootcert') void new X509Certificate(text)
      return { [FILES[name]]: text }
    } catch (error) {
      throw new Error(`${name} names a file that cannot be used (${String(Object(error).code)})`, {
        cause: error,
      })
    }
  }
  try {
    return createSecureContext({
      ...(p.sslrootcert === 'system' ? {} : file('sslrootcert')),
      ...file('sslcrl'),
      ...file('sslcert'),
      ...file('sslkey'),
      ...(p.sslpassword === undefined ? {} : { passphrase: p.sslpassword }),
      ...(p.ssl_min_protocol_version && { minVersion: p.ssl_min_protocol_version }),
      ...(p.ssl_max_protocol_version && { maxVersion: p.ssl_max_protocol_version }),
    })
  } catch (error) {
    if (error instanceof Error && error.cause !== undefined) throw error
    throw new Error(`names certificates or keys that cannot be used (${String(Object(error).code)})`, {
      cause: error,
    })
  }
}

const FILES = { sslrootcert: 'ca', sslcrl: 'crl', sslcert: 'cert', sslkey: 'key' } as const

function inWords(issue: z.core.$ZodIssue): string {
  if (issue.code !== 'unrecognized_keys') return `${issue.path.join('.')} ${issue.message}`
  const known = issue.keys.filter((key) => /^\w{1,40}$/.test(key))
  return `has a parameter that the gateway does not know${known.length > 0 ? `: ${known.join(', ')}` : ''}`
}
