import { Semaphore } from 'async-mutex'
import type { BankEndpoint, Looked } from '../../bank/bank.ts'
import type { Gateway } from '../../gateway.ts'
import { leastUuidAt } from '../../payment/ids.ts'
import { known, receiptJson, sideOf } from './discrepancy.ts'
import type { DiscrepancyKind, Finding, Judgement, Receipt } from './discrepancy.ts'
import { EndsEarly, rowsOf } from './runs.ts'
import type { Batch, Held } from './runs.ts'

/**
 * Asks the bank for each id that the receipts claim: does it exist, over this amount, in this currency, under this
 * parent? It mostly finds a bank that was reset. There is no GET of a void, and none that tells what became of a hold:
 * only a statement shows those.
 */
export async function nextByGet(gateway: Gateway, run: Held, signal: AbortSignal): Promise<Batch | null> {
  const isFirst = run.checked === 0
  const claims = await claimsAfter(gateway, run, isFirst ? FIRST : BATCH)
  if (claims.length === 0) return null

  const places = new Semaphore(AT_ONCE)
  const silence = new AbortController()
  const stopped = AbortSignal.any([signal, silence.signal])
  const judgements = await Promise.all(
    claims.map((claim) =>
      places.runExclusive(async () => {
        const judgement = await judge(gateway, claim, stopped)
        if (judgement === 'NO_ANSWER') silence.abort()
        return judgement
      }),
    ),
  )
  // What comes after the first that was not answered is asked again when the run goes on.
  const end = judgements.findIndex((one) => one === 'NO_ANSWER' || one === 'NOT_ASKED')
  const kept = (end < 0 ? judgements : judgements.slice(0, end)) as Judgement[]
  const cursor = claims[kept.length - 1]?.operationId
  if (cursor === undefined) throw new EndsEarly(silence.signal.aborted ? 'BANK_SILENT' : 'ASKED')
  const findings = kept.filter((one): one is Finding => typeof one === 'object')
  const matched = kept.filter((one) => one === 'MATCHED').length
  const skipped = kept.filter((one) => one === 'SKIPPED').length
  const knowsNone =
    isFirst &&
    matched === 0 &&
    findings.length >= SUSPICIOUS &&
    findings.every(({ kind }) => kind === 'NOT_AT_BANK')
  return { cursor, matched, skipped, findings, end: knowsNone ? bankWasReset(findings.length) : null }
}

/** Payments come first: never more than a few looks at a time. */
const AT_ONCE = 8
const BATCH = 64
/** A run begins with a few; when the bank knows none of them, it will not know the others. Fewer may be by chance. */
const FIRST = 20
const SUSPICIOUS = 3

/** One id that a receipt has because an operation was carried out. */
type Claim = { operationId: string; kind: Lookable; receipt: Receipt }
type Lookable = 'AUTHORIZE' | 'CAPTURE' | 'REFUND'

/** By operation, and so in the order in which things were asked for, whatever the age of the payment. */
async function claimsAfter(
  gateway: Gateway,
  { cursor, spanFrom, spanTo }: Held,
  atMost: number,
): Promise<Claim[]> {
  const from = cursor ?? leastUuidAt(spanFrom?.getTime() ?? 0)
  return await rowsOf<Claim>(
    gateway,
    'operation_id',
    gateway.sql`
      select o.id as operation_id, o.kind, ${receiptJson(gateway)} as receipt
      from operations o join payments p on p.id = o.payment_id
      where o.id > ${from} and o.id < ${leastUuidAt(spanTo?.getTime() ?? 0)}
        and o.status <> 'REFUSED' and o.kind in ('AUTHORIZE', 'CAPTURE', 'REFUND')
      order by o.id limit ${atMost}`,
  )
}

const LOOKUPS: Record<
  Lookable,
  {
    endpoint: Exclude<BankEndpoint, 'voids'>
    idOf: (receipt: Receipt) => string | null
    parentOf: (receipt: Receipt) => string | null
  }
> = {
  AUTHORIZE: { endpoint: 'authorizations', idOf: (receipt) => receipt.authorizationId, parentOf: () => null },
  CAPTURE: {
    endpoint: 'captures',
    idOf: (receipt) => receipt.captureId,
    parentOf: (receipt) => receipt.authorizationId,
  },
  REFUND: {
    endpoint: 'refunds',
    idOf: (receipt) => receipt.refundId,
    parentOf: (receipt) => receipt.captureId,
  },
}

async function judge(
  gateway: Gateway,
  { kind, receipt }: Claim,
  signal: AbortSignal,
): Promise<Judgement | 'NO_ANSWER' | 'NOT_ASKED'> {
  const { endpoint, idOf, parentOf } = LOOKUPS[kind]
  const id = idOf(receipt)
  // Not known yet, since recovery is at work on it, or lost by the bank.
  if (id === null) return 'SKIPPED'
  const looked = await lookUntilClear(gateway, endpoint, id, signal)
  const about = { paymentId: receipt.id, bankReference: id, ours: sideOf(receipt) }
  switch (looked.is) {
    case 'found': {
      const { amountCents, currency, parentId } = looked
      const differs = difference(looked, receipt, parentOf(receipt))
      return differs === null
        ? 'MATCHED'
        : { ...about, kind: differs, bank: known({ amountCents, currency, parentId }) }
    }
    case 'notFound':
      return { ...about, kind: 'NOT_AT_BANK', bank: null }
    case 'unclear':
      return { ...about, kind: 'UNCLEAR_ANSWER', bank: { reason: looked.reason } }
    case 'noAnswer':
      return 'NO_ANSWER'
    case 'notAsked':
      return 'NOT_ASKED'
  }
}

function difference(
  found: Extract<Looked, { is: 'found' }>,
  receipt: Receipt,
  parentId: string | null,
): DiscrepancyKind | null {
  if (found.amountCents !== receipt.amountCents) return 'AMOUNT_DIFFERS'
  if (found.currency !== receipt.currency) return 'CURRENCY_DIFFERS'
  return found.parentId === parentId ? null : 'PARENT_DIFFERS'
}

type Said = Looked | { is: 'unclear'; reason: string }
type LookedUp = Exclude<BankEndpoint, 'voids'>

/**
 * Every fault of the bank's database is a 404 too: what the bank says against an id counts when it says it twice in a row
 * and is healthy each time. A bank that goes on to say nothing ends the run; nothing is concluded from silence.
 */
async function lookUntilClear(
  gateway: Gateway,
  endpoint: LookedUp,
  id: string,
  signal: AbortSignal,
): Promise<Said | { is: 'notAsked' }> {
  const { clock, settings, random } = gateway
  let before: Said = SILENCE
  for (let tries = 1; tries <= TRIES_MAX; tries += 1) {
    while (!isStopping(gateway, signal) && !hasRoom(gateway)) await clock.sleep(ROOM_POLL_MS)
    if (isStopping(gateway, signal)) return { is: 'notAsked' }
    const said = await look(gateway, endpoint, id, signal)
    if (said.is === 'found' || (said.is !== 'noAnswer' && said.is === before.is)) return said
    before = said
    const backoffMs = random() * Math.min(settings.backoffCapMs, settings.backoffBaseMs * 2 ** tries)
    await clock.sleep(said.is === 'noAnswer' ? backoffMs : Math.max(backoffMs, settings.confirmAfterMs))
  }
  return SILENCE
}

/** Once, in a place of its own at the bank. */
async function look(gateway: Gateway, endpoint: LookedUp, id: string, signal: AbortSignal): Promise<Said> {
  const { bank } = gateway
  return await bank.admit(async (refusal) => {
    if (refusal !== null) return SILENCE
    const { found, calls } = await bank.look(endpoint, id)
    const isUnclear = found.is === 'noAnswer' && calls[0]?.httpStatus === 200
    if (found.is === 'found' || (found.is === 'noAnswer' && !isUnclear)) return found
    if (isStopping(gateway, signal) || !(await bank.healthy()).healthy) return SILENCE
    return found.is === 'noAnswer' ? { ...found, is: 'unclear' } : found
  })
}

const SILENCE = { is: 'noAnswer', reason: 'the bank does not answer' } as const
/** With the default backoff some twenty seconds. */
const TRIES_MAX = 20

/** Payments need less than half of the places. Asked and taken in one turn, or several looks would take the same place. */
function hasRoom({ bank }: Gateway): boolean {
  const { inFlight, inFlightMax, queued } = bank.state()
  return queued === 0 && inFlight * 2 < inFlightMax
}

function isStopping({ inFlight }: Gateway, signal: AbortSignal): boolean {
  return signal.aborted || inFlight.draining
}

const ROOM_POLL_MS = 100

function bankWasReset(ids: number): EndsEarly {
  return new EndsEarly(
    'BANK_RESET',
    `The bank knows none of the first ${ids} ids that the receipts have: it was probably reset, or BANK_URL names another bank. No more were asked for; taken up again the run goes on regardless.`,
  )
}
