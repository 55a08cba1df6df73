import type { Answer, BankEndpoint, BankRequest, DeclineCode, Looked, UsedBy } from './bank.ts'
import { ENDPOINTS } from './endpoints.ts'
import type { Carried } from './endpoints.ts'
import type { Reply } from './http.ts'

/**
 * What may be concluded from what came back: bank-contract's tables as data. A reply that is on no list is ambiguous,
 * whatever its status: the lists were read from the bank's source, so such a reply comes from something else in
 * between or from another bank than we know. Taken for ambiguous it costs a probe; taken for "not done" it could
 * cost a second hold, and taken for "no" a lost payment.
 */

const ambiguous = (reason: string): Answer => ({ is: 'ambiguous', reason })
const notDone = (reason: string): Answer => ({ is: 'notDone', reason })
const misused = (reason: string): Answer => ({ is: 'misused', reason })
const declined = (code: DeclineCode): Answer => ({ is: 'declined', code })
/** The answer to a code that says that somebody was first; some of them say with what. */
export const alreadyUsed = (code: string | null) =>
  ({ is: 'alreadyUsed', by: USED_BY.get(code) ?? null }) as const
const USED_BY = new Map<string | null, UsedBy>([
  ['already_captured', 'CAPTURE'],
  ['already_voided', 'VOID'],
  ['already_refunded', 'REFUND'],
])

type Refusals = Record<string, (message: string) => Answer>

/** By `status code`, whatever the endpoint. */
const REFUSALS_ANYWHERE: Refusals = {
  '500 internal_error': () =>
    notDone("chaos, or a fault of the bank's database: refused before any work, or rolled back"),
  '400 internal_error': (message) =>
    // Only what names a step that is rolled back. "failed to commit" may have been committed.
    /^failed to (start|create|adjust|update|check)\b/.test(message)
      ? notDone("a fault of the bank's database, rolled back")
      : ambiguous("a fault of the bank's database, perhaps after its commit"),
  '400 missing_idempotency_key': () => misused('the bank saw no idempotency key'),
}

const REFUSALS: Record<BankEndpoint, Refusals> = {
  authorizations: {
    // Luhn is final. "card not found or invalid" is also what a fault of the bank's database looks like.
    '400 invalid_card': (message) =>
      message.includes('not found') ? { is: 'doubtful', about: 'card' } : declined('CARD_INVALID'),
    '400 invalid_cvv': () => declined('CVV_INVALID'),
    '400 card_expired': () => declined('CARD_EXPIRED'),
    '402 insufficient_funds': () => declined('INSUFFICIENT_FUNDS'),
    '400 invalid_amount': () => misused('the bank takes no such amount'),
  },
  captures: {
    '400 authorization_not_found': () => ({ is: 'doubtful', about: 'parent' }),
    '400 authorization_already_used': () => alreadyUsed('authorization_already_used'),
    '400 already_captured': () => alreadyUsed('already_captured'),
    '400 already_voided': () => alreadyUsed('already_voided'),
    '400 authorization_expired': () => ({ is: 'holdExpired' }),
    '400 amount_mismatch': () => misused("not the authorization's amount"),
    '400 invalid_amount': () => misused('the bank takes no such amount'),
  },
  // No authorization_expired here: a void works after expiry too, so that answer would not be understood.
  voids: {
    '400 authorization_not_found': () => ({ is: 'doubtful', about: 'parent' }),
    '400 authorization_already_used': () => alreadyUsed('authorization_already_used'),
    '400 already_captured': () => alreadyUsed('already_captured'),
    '400 already_voided': () => alreadyUsed('already_voided'),
  },
  refunds: {
    '400 capture_not_found': () => ({ is: 'doubtful', about: 'parent' }),
    '400 already_refunded': () => alreadyUsed('already_refunded'),
    '400 amount_mismatch': () => misused("not the capture's amount"),
    '400 invalid_amount': () => misused('the bank takes no such amount'),
  },
}

/** All that the bank can say, for the records: a code that is not among them is its text, and is not kept. */
const BANK_CODES: ReadonlySet<string> = new Set([
  ...[REFUSALS_ANYWHERE, ...Object.values(REFUSALS)].flatMap((refusals) =>
    Object.keys(refusals).map((statusAndCode) => statusAndCode.slice(4)),
  ),
  'refund_not_found',
  'not_found',
])

/** The answer to a request that may move money. */
export function readSend(request: BankRequest, reply: Reply): Answer {
  if (!reply.arrived)
    return reply.perhapsSent
      ? ambiguous(`no complete answer: ${reply.code}`)
      : notDone(`nothing was sent: ${reply.code}`)
  const { status } = reply
  if (status === 200) return readDone(request, reply)
  // Our base URL or path is wrong: the request reached no handler.
  if ((status >= 300 && status < 400) || status === 404 || status === 405)
    return misused(`the bank has no such path or method: HTTP ${status}`)

  const refusal = readRefusal(reply.text)
  if (refusal === null)
    return status === 400 && isPlainText(reply)
      ? misused('the bank could not read the request')
      : ambiguous(`not an answer of the bank's: HTTP ${status}`)
  const statusAndCode = `${status} ${refusal.code}`
  const conclude = REFUSALS[request.endpoint][statusAndCode] ?? REFUSALS_ANYWHERE[statusAndCode]
  return conclude?.(refusal.message) ?? ambiguous(`an answer that means nothing here: HTTP ${status}`)
}

/**
 * The answer to a probe: done or mismatch (a replay), or notStored. Whatever else the bank answers, a chaos 500 and a
 * dropped connection included, says nothing about the request that was asked after: ambiguous.
 */
export function readProbe(request: BankRequest, reply: Reply): Answer {
  if (!reply.arrived) return ambiguous(`no complete answer to the probe: ${reply.code}`)
  // An empty body cannot be carried out, so a 200 that is no replay is not an answer of the bank's.
  if (reply.status === 200 && reply.replayed) return readDone(request, reply)
  if (isDecodeError(reply)) return { is: 'notStored' }
  return ambiguous(`the probe says nothing: HTTP ${reply.status}`)
}

/** The answer to a GET by id. Every fault of the bank's database is a 404 too, so `notFound` never proves absence. */
export function readLook(endpoint: Exclude<BankEndpoint, 'voids'>, id: string, reply: Reply): Looked {
  if (!reply.arrived) return { is: 'noAnswer', reason: `no complete answer: ${reply.code}` }
  if (reply.status === 404) return { is: 'notFound' }
  const read = ENDPOINTS[endpoint].answer.safeParse(readJson(reply.text))
  if (reply.status !== 200 || !read.success || read.data.fact.bankId !== id)
    return { is: 'noAnswer', reason: `not an answer of the bank's: HTTP ${reply.status}` }
  return { is: 'found', ...read.data }
}

export function isHealthy(reply: Reply): boolean {
  return (
    reply.arrived &&
    reply.status === 200 &&
    (readJson(reply.text) as { status?: unknown } | null)?.status === 'healthy'
  )
}

/** What the circuit breaker counts: the bank does not answer, or answers that it fails. A refusal is an answer. */
export function isFault(reply: Reply): boolean {
  return !reply.arrived || reply.status >= 500
}

/** The bank's own code or the transport's, for the records; null when there is none that we know. */
export function errorCodeOf(reply: Reply): string | null {
  if (!reply.arrived) return reply.code
  const code = readRefusal(reply.text)?.code
  return code !== undefined && BANK_CODES.has(code) ? code : null
}

function readDone(request: BankRequest, reply: Reply & { arrived: true }): Answer {
  const read = ENDPOINTS[request.endpoint].answer.safeParse(readJson(reply.text))
  if (!read.success) return ambiguous('HTTP 200 with a body that is not the answer asked for')
  const carried: Carried = read.data
  const { expect } = request
  const unlike = [
    ...(expect.amountCents !== null && carried.amountCents !== expect.amountCents ? ['amount'] : []),
    ...(carried.currency !== null && carried.currency !== 'USD' ? ['currency'] : []),
    ...(expect.parentId !== null && carried.parentId !== expect.parentId ? ['parent id'] : []),
  ]
  if (unlike.length === 0) return { is: 'done', fact: carried.fact, replayed: reply.replayed }
  return {
    is: 'mismatch',
    reason: `the bank carried it out with another ${unlike.join(' and ')}`,
    evidence: {
      bankId: carried.fact.bankId,
      bankAt: carried.fact.bankAt,
      expiresAt: carried.fact.expiresAt,
      amountCents: carried.amountCents,
      currency: carried.currency,
      parentId: carried.parentId,
      expectedAmountCents: expect.amountCents,
      expectedParentId: expect.parentId,
    },
  }
}

/**
 * The plain text that says that an empty body is no JSON ("can't decode JSON body: EOF"). The bank refuses a missing,
 * empty or doubled key in plain text as well, and that says nothing about what is stored.
 */
function isDecodeError(reply: Reply & { arrived: true }): boolean {
  return (
    reply.status === 400 &&
    isPlainText(reply) &&
    readJson(reply.text) === null &&
    /decod|json|body|eof/i.test(reply.text) &&
    !/idempotency/i.test(reply.text)
  )
}

function isPlainText(reply: Reply & { arrived: true }): boolean {
  return /^text\/plain\b/i.test(reply.contentType)
}

/** The bank's `{ error, message }`, or null when the text is not that. */
function readRefusal(text: string): { code: string; message: string } | null {
  const { error, message } = Object(readJson(text)) as { error?: unknown; message?: unknown }
  return typeof error === 'string'
    ? { code: error, message: typeof message === 'string' ? message : '' }
    : null
}

/** Strict: trailing bytes, HTML or half a body are no JSON. Null when it is none, which no answer of the bank's is. */
function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
