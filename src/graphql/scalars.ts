import { Kind } from 'graphql'
import type { ValueNode } from 'graphql'
import { builder } from './builder.ts'
import { ApiError } from './errors.ts'

/** Both refuse a value without repeating it: it may be a card number in the wrong place. */

builder.scalarType('Cents', {
  // The integers that every reader of JSON has alike.
  specifiedByURL: 'https://www.rfc-editor.org/rfc/rfc7493#section-2.2',
  description:
    'An amount in cents (USD): a JSON integer, `4999` for $49.99. Strings (`"4999"`) and fractions (`49.99`) are refused, so that no amount is ever rounded or guessed.',
  serialize: (value) => {
    if (!isWhole(value)) throw new TypeError('an amount is no whole number of cents')
    return value
  },
  parseValue: (value) => {
    if (!isWhole(value)) throw notCents()
    return value
  },
  parseLiteral: (node) => {
    const value = node.kind === Kind.INT ? Number(node.value) : null
    if (!isWhole(value)) throw notCents(node)
    return value
  },
})

builder.scalarType('DateTime', {
  specifiedByURL: 'https://scalars.graphql.org/andimarek/date-time',
  description:
    'A moment in RFC 3339 with its offset, for instance `2026-11-24T09:30:00.000Z`. Answers are in UTC.',
  serialize: (value) => {
    if (!(value instanceof Date)) throw new TypeError('a moment is no Date')
    return value.toISOString()
  },
  parseValue: (value) => momentIn(value),
  parseLiteral: (node) => momentIn(node.kind === Kind.STRING ? node.value : null, node),
})

function isWhole(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value)
}

function notCents(node?: ValueNode): ApiError {
  return new ApiError(
    'BAD_USER_INPUT',
    'Expected Cents: a whole number of cents, not a string or a fraction.',
    node && { nodes: node },
  )
}

/** JavaScript takes 30 February for 2 March. */
function isOnCalendar(moment: string): boolean {
  const [year = 0, month = 0, day = 0] = moment.slice(0, 10).split('-').map(Number)
  return day <= new Date(Date.UTC(year, month, 0)).getUTCDate()
}

const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i

function momentIn(value: unknown, node?: ValueNode): Date {
  const isMoment = typeof value === 'string' && RFC_3339.test(value) && isOnCalendar(value)
  const moment = new Date(isMoment ? value : Number.NaN)
  const year = moment.getUTCFullYear()
  if (!(1 <= year && year <= 9_999)) {
    throw new ApiError(
      'BAD_USER_INPUT',
      'Expected DateTime: RFC 3339 with an offset, as in 2026-11-24T09:30:00Z.',
      node && { nodes: node },
    )
  }
  return moment
}
