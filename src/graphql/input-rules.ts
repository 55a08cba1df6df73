import { z } from 'zod'
import { mayHoldCard } from '../payment/card-guard.ts'
import { brandOf, passesLuhn } from '../payment/card-number.ts'
import { Card } from '../payment/card.ts'
import {
  transitionOfCursor,
  transitionOfEventId,
  uuidOfCursor,
  uuidOfOperationId,
  uuidOfPaymentId,
  uuidOfReconciliationId,
} from '../payment/ids.ts'

/**
 * What an input must be, and the reasons that a client is told. They are said in our words, each of them: a reason must
 * never hold the value.
 */

const CHARACTERS_MAX = 255
/** Control, format, private and unassigned characters, lone surrogates; separators of lines and paragraphs. */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]/u
/** What stands for bytes that are not UTF-8: two texts that differ in them would be one. */
const REPLACED = '\u{FFFD}'
const BLANK_AT_END = /^\p{Z}|\p{Z}$/u

export const VISIBLE_TEXT =
  '1 to 255 visible characters (Unicode code points): no line breaks, control or zero-width characters, no blank at either end.'

export const visibleText = checked(invisible)

function invisible(text: string): string | null {
  if (text.length === 0) return 'must not be empty'
  if (text.length > 2 * CHARACTERS_MAX || Array.from(text).length > CHARACTERS_MAX) {
    return `must have at most ${CHARACTERS_MAX} characters`
  }
  if (INVISIBLE.test(text)) return 'must not have line breaks, control or invisible characters'
  if (text.includes(REPLACED)) return 'must be UTF-8: it has characters that could not be read'
  if (BLANK_AT_END.test(text)) return 'must not begin or end with a blank'
  return null
}

/** Of a text that is stored, sent on or logged, after all else that it must be. */
export const cardIn = (text: string) => (mayHoldCard(text) ? MAY_BE_CARD : null)
const MAY_BE_CARD =
  'must not hold what could be the number of a card, 13 to 19 digits of an issuer with a right check digit, whatever stands between them. Leave it out. If it is another number, put words between its parts in a reason (of four letters or more), and take another id, a UUID for instance'

export const STORED_TEXT = `${VISIBLE_TEXT} Nothing that could be the number of a card.`
export const storedText = checked((text) => invisible(text) ?? cardIn(text))

const REASON_MAX = 1_000
export const REASON_TEXT = `1 to ${REASON_MAX} characters, not only blanks, and nothing that could be the number of a card.`
export const reasonText = checked((text) => {
  if (text.trim() === '' || text.length > REASON_MAX)
    return `must be 1 to ${REASON_MAX} characters, not only blanks`
  // Postgres takes neither.
  if (/[\0\p{Cs}]/u.test(text)) return 'must not have the character NUL, or half a character'
  return cardIn(text)
})

export const voidReference = checked((text) =>
  /^void_[0-9A-Za-z-]{1,64}$/.test(text) ? cardIn(text) : 'must be the bank\'s id of a void: "void_..."',
)

/** A million dollars less a cent: more is a mistake, not a sale. */
const AMOUNT_CENTS_MAX = 99_999_999
export const AMOUNT_RANGE = `1 to ${AMOUNT_CENTS_MAX} cents ($999,999.99).`

const AMOUNT_REASON = `must be 1 to ${AMOUNT_CENTS_MAX} cents`
export const amountCents = z.number().min(1, AMOUNT_REASON).max(AMOUNT_CENTS_MAX, AMOUNT_REASON)

/** Comes out as the UUID. */
export const paymentIdText = read(uuidOfPaymentId, 'must be a payment\'s id: "pay_" and a UUID in lower case')
const CURSOR_REASON = 'must be a cursor that this API gave: endCursor, or the cursor of an edge'
/** Comes out as the UUID. */
export const cursorText = read(uuidOfCursor, CURSOR_REASON)

/** Comes out as the UUID. */
export const operationIdText = read(
  uuidOfOperationId,
  'must be an operation\'s id: "op_" and a UUID in lower case',
)

export const reconciliationIdText = read(
  uuidOfReconciliationId,
  'must be a reconciliation\'s id: "rec_" and a UUID in lower case',
)

/** Comes out as the payment and version of its transition. */
export const eventIdText = read(
  transitionOfEventId,
  'must be a webhook\'s id: "evt_", a UUID in lower case, "_" and a number',
)
/** Comes out as a transition, too. */
export const eventCursorText = read(transitionOfCursor, CURSOR_REASON)

export const PAGE_MAX = 100
export const PAGE_DEFAULT = 20
const PAGE_REASON = `must be 1 to ${PAGE_MAX}`
export const pageSize = z.number().min(1, PAGE_REASON).max(PAGE_MAX, PAGE_REASON)

/** Blanks and dashes, as printed on cards, are taken out. */
const cardNumber = checked((digits) => {
  if (!/^[0-9]{13,19}$/.test(digits))
    return 'must be 13 to 19 digits; blanks and dashes between them are ignored'
  return passesLuhn(digits) ? null : 'is not a card number: a digit is wrong or missing (Luhn)'
})

const month = 'must be 1 to 12'
const year = 'must be a year with four digits, 2000 to 2099'

/** Comes out as a Card, so that the number goes no further in the open. */
export const card = z
  .object({
    number: z
      .string()
      .transform((number) => number.replaceAll(/[ -]/g, ''))
      .pipe(cardNumber),
    cvv: checked((cvv) => (/^[0-9]{3,4}$/.test(cvv) ? null : 'must be 3 or 4 digits')),
    expiryMonth: z.number().min(1, month).max(12, month),
    expiryYear: z.number().min(2000, year).max(2099, year),
  })
  .transform((fields) => new Card({ ...fields, brand: brandOf(fields.number) }))

/** `reasonAgainst`: null when the text is good. */
function checked(reasonAgainst: (text: string) => string | null) {
  return z.string().superRefine((text, context) => {
    const message = reasonAgainst(text)
    if (message !== null) context.addIssue({ code: 'custom', message })
  })
}

/** `valueIn`: null when there is none. */
function read<Value>(valueIn: (text: string) => Value | null, reason: string) {
  return z.string().transform((text, context) => {
    const value = valueIn(text)
    if (value !== null) return value
    context.addIssue({ code: 'custom', message: reason })
    return z.NEVER
  })
}
