import type { Address } from './address.ts'

/**
 * What a session must be like for the code to mean what it says, whatever the defaults of the database and the role are:
 * a day read as a month, a void that waits for ever, a commit that is forgotten after its request was sent.
 */
export function sessionSettings(address: Address, statementTimeoutMs: number): Record<string, string> {
  return {
    DateStyle: 'ISO, MDY',
    IntervalStyle: 'postgres',
    TimeZone: 'UTC',
    timezone_abbreviations: 'Default',
    bytea_output: 'hex',
    extra_float_digits: '1',
    standard_conforming_strings: 'on',
    array_nulls: 'on',
    transform_null_equals: 'off',
    row_security: 'on',
    // Where the tables are is said by DATABASE_URL, so that no default leads a later start to others.
    search_path: schemaOf(address) ?? '"$user", public',
    // A claim that is forgotten after it was sent is a second hold.
    synchronous_commit: 'on',
    // Each statement of a function is to see what the locks' last holder committed.
    default_transaction_isolation: 'read committed',
    default_transaction_deferrable: 'off',
    statement_timeout: String(statementTimeoutMs),
    lock_timeout: '0',
    idle_in_transaction_session_timeout: '0',
    // Statements are short: compiling one takes longer than it runs.
    jit: 'off',
    plan_cache_mode: 'auto',
  }
}

/** Poolers know these, and hand them to the server. */
const REPORTED = new Set(['DateStyle', 'TimeZone', 'standard_conforming_strings'])

/**
 * As a new session is told them. All others go as `options`, so that a pooler has one name to ignore; where one is set
 * twice there, the later counts.
 */
export function startupParameters(address: Address, statementTimeoutMs: number): Record<string, string> {
  const settings = Object.entries({
    ...sessionSettings(address, statementTimeoutMs),
    // A process that is frozen or cut off must not keep its locks: a server that cannot send heeds no other limit.
    tcp_user_timeout: String(statementTimeoutMs),
  })
  const options = settings
    .filter(([name]) => !REPORTED.has(name))
    .map(([name, value]) => `-c ${name}=${value.replaceAll(/[\\\s]/g, String.raw`\$&`)}`)
  return {
    application_name: address.applicationName,
    ...Object.fromEntries(settings.filter(([name]) => REPORTED.has(name))),
    options: [address.options, ...options].join(' ').trim(),
  }
}

export const isSchemaNamed = (address: Address): boolean => schemaOf(address) !== undefined

/** What `options` in DATABASE_URL says of it. */
function schemaOf({ options }: Address): string | undefined {
  return /(?:-c\s*|--)search[_-]path=((?:\\.|\S)*)/.exec(options)?.[1]?.replaceAll(/\\(.)/g, '$1')
}
