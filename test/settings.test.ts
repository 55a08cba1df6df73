import { expect, it } from 'vitest'
import { readConfig } from '../src/config.ts'

/** Settings that would do something else than whoever set them expects are refused, in words of theirs. */

it.each([
  [{ PORT: 'abc' }, 'PORT: must be a whole number, 0 to 65535'],
  [{ PORT: '1.5' }, 'PORT: must be a whole number, 0 to 65535'],
  // Node's timers go off at once beyond it.
  [{ SWEEP_EVERY_MS: '10000000000' }, 'SWEEP_EVERY_MS: must be a whole number, 1 to 2147483647'],
  [{ BANK_QUEUE_MAX: '-1' }, 'BANK_QUEUE_MAX: must be a whole number, 0 or more'],
  [{ FAILURE_RATE: '2' }, 'FAILURE_RATE: must be a number, 0 to 1'],
  [{ NODE_ENV: 'prod' }, 'NODE_ENV: must be development, test or production'],
])('%j', (env, text) => {
  expect(() => readConfig(env)).toThrow(text)
})

it('an empty one is an unset one', () => {
  expect(readConfig({ PORT: '', NODE_ENV: '' })).toMatchObject({ port: 4_000, production: false })
})
