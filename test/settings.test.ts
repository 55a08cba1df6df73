import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { readConfig } from '../src/config.ts'

const PRODUCTION = { NODE_ENV: 'production', DATABASE_URL: 'postgres://db/x', BANK_URL: 'http://bank' }

/** Settings that would do something else than whoever set them expects are refused, in words of theirs. */

it.each([
  [{ PORT: 'abc' }, 'PORT: must be a whole number, 0 to 65535'],
  [{ PORT: '1.5' }, 'PORT: must be a whole number, 0 to 65535'],
  [{ SWEEP_EVERY_MS: '10000000000' }, 'SWEEP_EVERY_MS: must be a whole number, 1 to 86400000'],
  [{ DATABASE_URL: 'postgres://db/x?connect_timeout=99999999' }, 'connect_timeout must be 32767 at most'],
  [{ BANK_QUEUE_MAX: '-1' }, 'BANK_QUEUE_MAX: must be a whole number, 0 or more'],
  [{ FAILURE_RATE: '2' }, 'FAILURE_RATE: must be a number, 0 to 1'],
  [{ BANK_URL: 'http://shop:secret@bank' }, 'BANK_URL: must be without a user and a password'],
  [{ BANK_URL: 'http://bank/v2?token=secret@' }, 'BANK_URL: must be without a query (?) and a fragment (#)'],
  [{ WEBHOOK_URL: 'https://shop:secret@ficmart' }, 'WEBHOOK_URL: must be without a user and a password'],
  [{ ...PRODUCTION, BANK_ATTEMPT_TIMEOUT_MS: '14999' }, 'BANK_ATTEMPT_TIMEOUT_MS: must be 15000 or more'],
  [{ ...PRODUCTION, BANK_QUIET_PERIOD_MS: '14999' }, 'BANK_QUIET_PERIOD_MS: must be 15000 or more'],
  [{ ...PRODUCTION, BANK_CONFIRM_AFTER_MS: '999' }, 'BANK_CONFIRM_AFTER_MS: must be 1000 or more'],
  [{ ...PRODUCTION, REQUEST_DEADLINE_MS: '10' }, 'REQUEST_DEADLINE_MS: must be 1000 or more'],
  [{ DATABASE_URL: 'mysql://db/x' }, 'DATABASE_URL: must be a URL that starts with postgres://'],
  [{ DATABASE_URL: 'postgres://u:secret/x@db/y' }, 'DATABASE_URL: must have a number as its port'],
  [{ DATABASE_URL: 'postgres://h1,h2/x?port=1,2,3' }, 'DATABASE_URL: must name one port, or one for each'],
  [
    { DATABASE_URL: 'postgres://db/x?schema=public' },
    'has a parameter that the gateway does not know: schema',
  ],
  [{ DATABASE_URL: 'postgres://db/x?channel_binding=require' }, 'channel_binding must be disable or prefer'],
  [{ DATABASE_URL: 'postgres://db/x?target_session_attrs=standby' }, 'must be any or read-write or primary'],
  [{ DATABASE_URL: 'postgres://db/x?client_encoding=LATIN1' }, 'client_encoding must be UTF8'],
  [{ DATABASE_URL: 'postgres://db/x?connect_timeout=soon' }, 'connect_timeout must be a number of seconds'],
  [{ DATABASE_URL: 'postgres://db/x?sslmode=always' }, 'sslmode must be disable or allow or prefer'],
  [{ DATABASE_URL: 'postgres://db/x?sslmode=verify-ca' }, 'sslmode=verify-ca needs sslrootcert'],
  [{ DATABASE_URL: 'postgres://db/x?sslrootcert=system&sslmode=require' }, 'needs sslmode=verify-full'],
  [
    { DATABASE_URL: 'postgres://db/x?sslrootcert=/no/file' },
    'sslrootcert names a file that cannot be used (ENOENT)',
  ],
  [
    { DATABASE_URL: 'postgres://db/x?sslrootcert=package.json' },
    'sslrootcert names a file that cannot be used',
  ],
  [{ NODE_ENV: 'prod' }, 'NODE_ENV: must be development, test or production'],
])('%j', (env, text) => {
  expect(() => readConfig(env)).toThrow(text)
  expect(() => readConfig(env)).not.toThrow('secret')
})

it('the defaults are good for production', () => {
  expect(readConfig(PRODUCTION)).toMatchObject({ production: true })
})

it('an empty one is an unset one', () => {
  expect(readConfig({ PORT: '', NODE_ENV: '' })).toMatchObject({ port: 4_000, production: false })
})

/** Whose value is put into a timer, with what is added to it there. */
const DURATIONS = [...(await readFile('src/config.ts', 'utf8')).matchAll(/^ {2}([A-Z_]+_(MS|HOURS)):/gm)].map(
  ([, name = '']) => name,
)

it.each(DURATIONS)('%s has an upper bound at which no timer goes off at once', (name) => {
  const TIMER_MAX_MS = 2 ** 31 - 1
  const refused = (value: string) => {
    try {
      readConfig({ [name]: value })
      return ''
    } catch (error) {
      return error instanceof Error ? error.message : ''
    }
  }
  for (const value of [String(TIMER_MAX_MS), '1e300', 'Infinity']) {
    const [, max = ''] = / to (\d+)$/.exec(refused(value)) ?? []
    expect([value, Number(max)]).toEqual([
      value,
      expect.toSatisfy((bound) => bound > 0 && bound * 3 < TIMER_MAX_MS),
    ])
    expect(refused(max)).toBe('')
  }
})
