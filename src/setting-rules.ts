import { z } from 'zod'
import { readAddress } from './db/address.ts'

/** What a setting must be, and the words that whoever set it is told. */

/** Whatever is wrong with a number, it is told what it must be. */
function within(what: string, fits: (value: number) => boolean) {
  return (fallback: number, min: number, max = Number.POSITIVE_INFINITY) => {
    const error = `must be ${what}, ${max === Number.POSITIVE_INFINITY ? `${min} or more` : `${min} to ${max}`}`
    const isGood = (value: number) => fits(value) && min <= value && value <= max
    return z.coerce.number({ error }).refine(isGood, { error }).default(fallback)
  }
}
export const number = within('a number', () => true)
export const whole = within('a whole number', Number.isSafeInteger)
export const positive = (fallback: number) => whole(fallback, 1)
/** A day: twice of it, or two of them added, is still far from 2^31 ms, where Node's timers go off at once. */
const DURATION_MAX_MS = 86_400_000
export const milliseconds = (fallback: number) => whole(fallback, 1, DURATION_MAX_MS)
/** A simulated bank's, which may have none. */
export const latency = (fallback: number) => number(fallback, 0, DURATION_MAX_MS)
export const port = (fallback: number) => whole(fallback, 0, 65_535)
const url = (protocols: string[]) =>
  z.string().refine((text) => URL.canParse(text) && protocols.includes(new URL(text).protocol), {
    error: `must be a URL that starts with ${protocols.map((protocol) => `${protocol}//`).join(' or ')}`,
  })
export const databaseUrl = z.string().superRefine((text, context) => {
  try {
    readAddress(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) })
  }
})
/** Who would read a user and a password out of it? They would be dropped in silence. */
export const httpUrl = url(['http:', 'https:']).refine(
  (text) => !URL.canParse(text) || (new URL(text).username === '' && new URL(text).password === ''),
  { error: 'must be without a user and a password: they would not be sent' },
)
/** Paths are put behind it. */
export const baseUrl = httpUrl.refine(
  (text) => !URL.canParse(text) || (new URL(text).search === '' && new URL(text).hash === ''),
  { error: 'must be without a query (?) and a fragment (#): they would not be sent' },
)

export const list = z
  .string()
  .default('')
  .transform((text) =>
    text
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== ''),
  )
export const origin = z.string().refine((text) => URL.canParse(text) && new URL(text).origin === text, {
  error: 'must be origins as browsers send them, https://shop.example, separated by commas',
})
/** A placeholder, not a key: few characters, one part over and over, or a row of the alphabet. */
function isGuessable(secret: string): boolean {
  const codes = Array.from(secret, (character) => character.charCodeAt(0))
  const steps = codes.slice(1).map((code, at) => code - (codes[at] ?? 0))
  const isRepeated = codes.some(
    (_, period) => period > 0 && period <= codes.length / 2 && secret.startsWith(secret.slice(period)),
  )
  return isRepeated || Math.min(new Set(codes).size, new Set(steps).size) < DIFFERENT_LEAST
}
/** Of 32 random hexadecimal digits some 14 are different. */
const DIFFERENT_LEAST = 8

export const jwtSecret = z
  .string()
  // RFC 7518: a key as long as the hash, at least.
  .min(32, 'must have 32 characters or more')
  .refine((text) => !isGuessable(text), {
    error: 'must be random, as `openssl rand -base64 32` makes it: this one can be guessed',
  })
export const webhookSecret = z.string().refine(
  (text) => {
    const bytes = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text)?.[1]
    const { length } = Buffer.from(bytes ?? '', 'base64')
    return length >= 24 && length <= 64
  },
  {
    error:
      'must be whsec_ and 24 to 64 random bytes in base64; two, separated by a comma, while one replaces the other',
  },
)
