import { randomUUID } from 'node:crypto'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { isDuplicate } from '../../src/db/persist.ts'
import { derivedId, timeOrderedId } from '../../src/payment/ids.ts'
import { MOVES } from '../../src/payment/payment.ts'
import type { Audit, AuditAction, OperationKind, Payment } from '../../src/payment/payment.ts'
import { pick } from '../support/random.ts'
import type { Deed, FuzzBank } from './bank.ts'
import type { OperationRow } from './journal.ts'
import type { Conclusion, Item, Row, Session } from './session.ts'
import { LEASE_MS, REPLAY_WINDOW_MS, RETRY_MS } from './time.ts'

/**
 * What the hands of all processes know together, and no process does. It keeps them honest: nobody says that something
 * was not done which was, or which still may be, as the lease and the quiet period see to it in the gateway.
 */
export type World = {
  bank: FuzzBank
  random: () => number
  time: () => Date
  orders: readonly [string, ...string[]]
  /** The newest last. */
  payments: Payment[]
  operations: Map<string, { operation: OperationRow; payment: Payment }>
  requests: Item[]
  sessions: Session[]
  /** Claims, and which of them have been passed by another: by the operation's id. */
  claims: Claim[]
  /** The tokens that may yet send. */
  pending: Map<string, Set<string>>
  /** Operations of which an operator is just saying what became of them. */
  words: Set<string>
  /** Ids that the bank has told twice. */
  doubled: Set<string>
  said: Item[]
  wrongs: string[]
}
type Claim = { operation: OperationRow; payment: Payment; token: string; row: Row }

const FOLLOW_UPS = ['CAPTURE', 'VOID', 'REFUND', 'EXPIRE'] as const
const OF_AUTHORIZED = ['CAPTURE', 'VOID', 'CAPTURE', 'VOID', 'EXPIRE'] as const
/** Of the newest payments. */
const HOT = 3

/** Several do something about one payment at one moment. */
async function race(world: World): Promise<void> {
  const payment = hot(world)
  if (payment === undefined) return
  await Promise.all(Array.from({ length: 3 }, () => meddle(world, payment)))
}

async function meddle(world: World, payment: Payment): Promise<void> {
  const session = some(world, world.sessions)
  if (session === undefined) return
  await turn()
  await attempt(() =>
    pick(world.random, [followUp, followUp, followUp, close, closeAsLost])(world, session, payment),
  )
}

/** What failed is kept by the session (said.failures), and judged there. */
async function attempt(act: () => Promise<void>): Promise<void> {
  await act().catch((error: unknown) => {
    if (!(error instanceof Error)) throw error
  })
}

export async function work(world: World, session: Session, until: () => boolean): Promise<void> {
  while (!until()) {
    await attempt(() => pick(world.random, DEEDS)(world, session))
    await breath(world)
  }
}

const DEEDS = [
  authorize,
  followUp, followUp, race, race,
  release, releaseWanted,
  takeOver, takeOver, lateLook, rerun,
  lateFact, staleDoubt, sayAgain, sameKeyAgain,
  word, close, closeAsLost,
] as const // prettier-ignore

const chance = ({ random }: World, p: number) => random() < p
async function breath(world: World) {
  if (chance(world, 0.7)) await turn()
  else await pause(world.random() * (chance(world, 0.1) ? 60 : 2))
}
function some<T>({ random }: World, items: readonly T[], newest = Infinity): T | undefined {
  const from = Math.max(0, items.length - newest)
  return items[from + Math.floor(random() * (items.length - from))]
}
const hot = (world: World) => some(world, world.payments, HOT)
const known = (world: World, newest = 12) => some(world, [...world.operations.values()], newest)

// Clients.

async function authorize(world: World, session: Session) {
  const orderId = pick(world.random, world.orders)
  const input = {
    orderId,
    customerId: 'c',
    amountCents: 100,
    allowAnotherForOrder: chance(world, 0.5),
    cardBrand: 'visa',
    cardLast4: '1111',
    cardExpiryMonth: 12,
    cardExpiryYear: 2030,
  }
  await request(world, session, 'AUTHORIZE', { paymentId: timeOrderedId(), orderId, input })
}

async function followUp(world: World, session: Session, payment = hot(world)) {
  if (payment === undefined) return
  const input = { paymentId: payment.id, expectedAmountCents: null }
  const fitting = payment.state === 'CAPTURED' ? (['REFUND'] as const) : OF_AUTHORIZED
  const kind = pick<OperationKind>(world.random, chance(world, 0.8) ? fitting : FOLLOW_UPS)
  await request(world, session, kind, { paymentId: payment.id, input })
}

/** As recovery/agenda.ts numbers them. */
async function release(world: World, session: Session) {
  type Due = { authorizationId: string; paymentId: string; tries: number }
  const due = await session.sql<Due[]>`
    select a.authorization_id, a.payment_id, count(o.id)::int as tries
    from authorizations a join operations origin on origin.id = a.operation_id and origin.status <> 'UNRESOLVED'
    left join operations o
      on o.payment_id = a.payment_id and o.kind = 'RELEASE' and o.input ->> 'authorizationId' = a.authorization_id
    where a.role = 'STRAY' and a.released_at is null
    group by 1, 2 having not coalesce(bool_or(o.status = 'UNRESOLVED'), false)`
  const hold = some(world, due)
  if (hold === undefined) return
  const { authorizationId, paymentId, tries } = hold
  const input = { paymentId, authorizationId }
  await request(world, session, 'RELEASE', {
    paymentId,
    input,
    idempotencyKey: `release:${authorizationId}:${tries}`,
  })
}

/** It must be refused. */
async function releaseWanted(world: World, session: Session) {
  const payment = hot(world)
  const hold = some(
    world,
    world.bank.deeds.filter(({ kind }) => kind === 'AUTHORIZE'),
    HOT,
  )
  const own = hold && world.operations.get(hold.operationId)?.payment
  const about = chance(world, 0.5) ? own : payment
  if (about?.state !== 'AUTHORIZED' && about?.state !== 'PENDING') return
  const authorizationId = about.authorizationId ?? hold?.id
  if (authorizationId === undefined) return
  const input = { paymentId: about.id, authorizationId }
  const idempotencyKey = `release:${authorizationId}:0`
  await request(world, session, 'RELEASE', { paymentId: about.id, input, idempotencyKey })
}

async function request(
  world: World,
  session: Session,
  kind: OperationKind,
  about: { paymentId: string; orderId?: string; input: Record<string, unknown>; idempotencyKey?: string },
) {
  const item: Item = {
    idempotencyKey: randomUUID(),
    orderId: null,
    ...about,
    kind,
    client: kind === 'RELEASE' || kind === 'EXPIRE' ? 'gateway' : 'ficmart',
    operationId: derivedId(8),
    token: randomUUID(),
    move: MOVES[kind],
    leaseMs: LEASE_MS,
    maySend: chance(world, 0.97),
    cardIsPast: false,
    wasSent: false,
    history: null,
  }
  world.requests.push(item)
  await claim(world, session, item)
}

async function sameKeyAgain(world: World, session: Session) {
  const first = some(world, world.requests, 10)
  if (first === undefined) return
  await claim(world, session, {
    ...first,
    operationId: derivedId(8),
    token: randomUUID(),
    ...(first.kind === 'AUTHORIZE' ? { paymentId: timeOrderedId() } : {}),
  })
}

async function claim(world: World, session: Session, item: Item) {
  const row = await sayAndKnow(world, session, 'claim', item)
  if (row.answer === 'ABANDONED' && row.operation !== null && row.payment !== null)
    await enter(world, session, row.operation, row.payment, {})
  if (row.answer === 'CLAIMED') await course(world, session, row, item.token)
}

// Recovery.

async function takeOver(world: World, session: Session) {
  const one = known(world)
  if (one?.operation.status === 'UNRESOLVED') await enter(world, session, one.operation, one.payment, {})
}

async function lateLook(world: World, session: Session) {
  const one = known(world)
  if (one !== undefined && one.operation.status !== 'UNRESOLVED')
    await enter(world, session, one.operation, one.payment, { late: true })
}

async function rerun(world: World, session: Session) {
  const one = inReview(world) ?? known(world)
  if (one === undefined) return
  const { status, kind, attempt, lookAgainAt } = one.operation
  const late = status !== 'UNRESOLVED'
  // What was refused here and never claimed is not offered to them (recovery/review.ts).
  if (late && lookAgainAt === null && (kind !== 'AUTHORIZE' || attempt === 0)) return
  await enter(world, session, one.operation, one.payment, {
    late,
    byOperator: true,
    audit: line('RERUN_RECOVERY'),
  })
}

async function enter(
  world: World,
  session: Session,
  operation: OperationRow,
  payment: Payment,
  how: Partial<Item>,
) {
  const row = await claimAgain(world, session, operation, payment, {
    afterToken: null,
    purpose: 'PROBE',
    ambiguous: false,
    ...how,
  })
  if (row?.answer === 'CLAIMED') await course(world, session, row, row.token)
}

async function claimAgain(
  world: World,
  session: Session,
  operation: OperationRow,
  payment: Payment,
  next: Partial<Item> & { afterToken: string | null },
): Promise<(Row & { token: string }) | null> {
  const token = randomUUID()
  const row = await sayAndKnow(world, session, 'claim_again', {
    ...subject(operation, payment),
    token,
    calls: [],
    leaseMs: LEASE_MS,
    replayWindowMs: REPLAY_WINDOW_MS,
    late: false,
    keyed: true,
    byOperator: false,
    audit: null,
    ...next,
  })
  return { ...row, token }
}

const subject = (operation: OperationRow, payment: Payment) => ({
  operationId: operation.id,
  paymentId: payment.id,
  orderId: operation.kind === 'AUTHORIZE' ? payment.orderId : null,
})

/** Says it, and perhaps twice: a claim that is answered is ours, and may send until the hand is done with it. */
async function sayAndKnow(
  world: World,
  session: Session,
  name: 'claim' | 'claim_again',
  item: Item,
): Promise<Row> {
  const { operationId, token } = item
  const pending = world.pending.get(operationId) ?? new Set()
  world.pending.set(operationId, pending.add(token))
  try {
    let row = await session.say(name, item)
    if (chance(world, 0.05)) row = await session.say(name, item)
    const { operation, payment } = row
    if (operation !== null && payment !== null) know(world, operation, payment)
    const isOurs = row.answer === 'CLAIMED' && operation !== null && payment !== null
    if (isOurs) world.claims.push({ operation, payment, token, row })
    if (!isOurs || operation.attemptPurpose !== 'SEND') pending.delete(token)
    return row
  } catch (error) {
    pending.delete(token)
    throw error
  }
}

function know(world: World, operation: OperationRow, payment: Payment) {
  world.operations.set(operation.id, { operation, payment })
  const at = world.payments.findIndex(({ id }) => id === payment.id)
  if (at === -1) world.payments.push(payment)
  else world.payments[at] = payment
}

/** Nothing of it was done, and nothing is on its way. */
function isCertain({ bank, pending }: World, operationId: string): boolean {
  return bank.doneBy(operationId) === undefined && (pending.get(operationId)?.size ?? 0) === 0
}

type Heard = 'silence' | 'notDone' | 'lost' | 'notStored' | 'used' | 'unknown' | Deed

/** One exchange after the other under claims of its own, to a conclusion or to its death. */
async function course(world: World, session: Session, claimed: Row, token: string): Promise<void> {
  for (let row = claimed; ;) {
    await breath(world)
    const { operation, payment } = row
    if (operation === null || payment === null) return
    const heard = chance(world, 0.08) ? 'death' : ask(world, operation, payment)
    world.pending.get(operation.id)?.delete(token)
    if (heard === 'death') return
    await breath(world)
    const step = decide(world, row, heard)
    if ('afterSend' in step) {
      const next = { afterToken: token, purpose: step.purpose, ambiguous: step.afterSend }
      const again = await claimAgain(world, session, operation, payment, next)
      if (again?.answer !== 'CLAIMED') return
      row = again
      token = again.token
    } else {
      await settle(world, session, { operation, payment, token }, step)
      return
    }
  }
}

function ask(world: World, operation: OperationRow, payment: Payment): Heard {
  const { bank, words } = world
  if (operation.attemptPurpose !== 'SEND') {
    const deed = bank.doneBy(operation.id)
    if (deed === undefined) return 'notStored'
    return chance(world, 0.8) ? deed : 'silence'
  }
  if (words.has(operation.id) || words.has(payment.id) || chance(world, 0.08)) return 'notDone'
  if (chance(world, 0.08)) return 'lost'
  const parentId = parentOf(operation, payment)
  const order = { operationId: operation.id, kind: operation.kind, parentId }
  const answer = bank.send(order, world.time(), chance(world, 0.05))
  if (answer === 'used' && parentId !== null && !world.doubled.has(parentId)) {
    const before = bank.doneTo(parentId)
    world.wrongs.push(
      `${operation.kind} ${operation.id} was sent for ${parentId}, to which ${before?.operationId} had done ${before?.id}`,
    )
  }
  return typeof answer === 'object' && chance(world, 0.25) ? 'lost' : answer
}

export function parentOf(operation: OperationRow, payment: Payment): string | null {
  if ('authorizationId' in operation.input) return operation.input.authorizationId
  return operation.kind === 'REFUND' ? payment.captureId : payment.authorizationId
}

type Next = { purpose: 'SEND' | 'PROBE'; afterSend: boolean } | { conclusion: Conclusion; ambiguous: boolean }

function decide(world: World, row: Row, heard: Heard): Next {
  const { operation } = row
  if (operation === null) throw new Error('a claim without its operation')
  const { kind, id } = operation
  const isAmbiguous = operation.ambiguousAt !== null
  const leave = (ambiguous: boolean): Next => ({ conclusion: { is: 'LEAVE' }, ambiguous })
  const no = (code: string, orphan: boolean, review?: NonNullable<Conclusion['review']>): Next => {
    const to = kind === 'AUTHORIZE' ? 'FAILED' : null
    return { conclusion: { is: 'VERDICT', code, to, orphan, ...(review && { review }) }, ambiguous: false }
  }
  if (typeof heard === 'object') return told(world, heard)
  // Of what has its answer nothing is concluded from silence.
  if (operation.status !== 'UNRESOLVED') return leave(false)
  if (kind === 'AUTHORIZE' && !row.replayable) return no('BANK_UNAVAILABLE', true)
  switch (heard) {
    case 'lost':
      return chance(world, 0.5) ? leave(true) : { purpose: 'PROBE', afterSend: true }
    case 'silence':
      return chance(world, 0.5) ? leave(false) : { purpose: 'PROBE', afterSend: false }
    case 'used':
      return { conclusion: { is: 'LEAVE', review: { reason: 'used', evidence: {} } }, ambiguous: false }
    case 'unknown':
      if (!isCertain(world, id)) return leave(false)
      return no('BANK_REFERENCE_MISSING', false, { reason: 'unknown id', evidence: {} })
    case 'notDone':
    case 'notStored': {
      const mayBeSent =
        kind !== 'AUTHORIZE' || (!isAmbiguous && (heard === 'notDone' || operation.sentAt === null))
      if (mayBeSent && chance(world, 0.5)) return { purpose: 'SEND', afterSend: false }
      if (chance(world, 0.1))
        return { conclusion: { is: 'LEAVE', review: { reason: 'odd', evidence: {} } }, ambiguous: false }
      return isCertain(world, id) && chance(world, 0.7)
        ? no('BANK_UNAVAILABLE', isAmbiguous && kind === 'AUTHORIZE')
        : leave(false)
    }
  }
}

/** The bank has done it; now and then its answer does not fit, or names what is another's. */
function told(world: World, deed: Deed): Next {
  const { bank, doubled } = world
  if (chance(world, 0.06)) {
    const more = deed.kind === 'AUTHORIZE' ? { amountCents: 1, expiresAt: deed.expiresAt ?? '' } : {}
    const review = { reason: 'another amount', evidence: { bankId: deed.id, ...more } }
    return { conclusion: { is: 'LEAVE', review }, ambiguous: true }
  }
  const other = some(
    world,
    bank.deeds.filter(({ kind, id }) => kind === 'AUTHORIZE' && id !== deed.id),
    4,
  )
  if (deed.kind === 'AUTHORIZE' && other !== undefined && chance(world, 0.02)) {
    doubled.add(other.id)
    return { conclusion: factOf(other), ambiguous: false }
  }
  return { conclusion: factOf(deed), ambiguous: false }
}

const factOf = ({ id, expiresAt }: Deed): Conclusion => ({ is: 'FACT', bankId: id, bankAt: null, expiresAt })

async function settle(
  world: World,
  session: Session,
  { operation, payment, token }: { operation: OperationRow; payment: Payment; token: string },
  outcome: { conclusion: Conclusion; ambiguous: boolean; audit?: Audit },
): Promise<void> {
  const item: Item = {
    ...subject(operation, payment),
    token,
    calls: [],
    leaseMs: LEASE_MS,
    move: MOVES[operation.kind],
    retryInMs: RETRY_MS,
    replayWindowMs: REPLAY_WINDOW_MS,
    audit: null,
    ...outcome,
  }
  world.said.push(item)
  const meddling = chance(world, 0.3) ? meddle(world, payment) : Promise.resolve()
  try {
    const row = await session.say('settle', item)
    if (row.operation !== null && row.payment !== null) know(world, row.operation, row.payment)
  } catch (error) {
    const { conclusion } = outcome
    if (!isDuplicate(error) || conclusion.is !== 'FACT') throw error
    // As operation/settle.ts does.
    const review = {
      reason: 'The bank gave an id that another payment has',
      evidence: { bankId: conclusion.bankId ?? '' },
    }
    const again = { ...outcome, conclusion: { is: 'LEAVE', review }, ambiguous: true } as const
    await settle(world, session, { operation, payment, token }, again)
  } finally {
    await meddling
  }
}

// Answers that come late, and are said again.

async function lateFact(world: World, session: Session) {
  const deed = some(world, world.bank.deeds, 10)
  const claims = world.claims.filter(({ operation }) => operation.id === deed?.operationId)
  const claim = some(world, claims)
  if (deed === undefined || claim === undefined) return
  const isAnonymous = deed.kind !== 'AUTHORIZE' && chance(world, 0.2)
  const conclusion: Conclusion = isAnonymous
    ? { is: 'FACT', bankId: null, bankAt: null, expiresAt: null }
    : factOf(deed)
  await settle(world, session, claim, { conclusion, ambiguous: false })
}

/** From a claim that has passed to another: whatever it says, nothing may come of it. */
async function staleDoubt(world: World, session: Session) {
  const claim = some(world, world.claims, 20)
  if (claim === undefined) return
  const newest = world.claims.findLast(({ operation }) => operation.id === claim.operation.id)
  if (newest === claim || newest?.token === claim.token) return
  const to = claim.operation.kind === 'AUTHORIZE' ? 'FAILED' : null
  const conclusion = pick<Conclusion>(world.random, [
    { is: 'VERDICT', code: 'BANK_UNAVAILABLE', to, orphan: false },
    { is: 'LEAVE' },
    { is: 'LEAVE', review: { reason: 'a doubt', evidence: {} } },
  ])
  await settle(world, session, claim, { conclusion, ambiguous: true })
}

async function sayAgain(world: World, session: Session) {
  const item = some(world, world.said, 8)
  // A verdict was true when it was said first; an operator's may have been overtaken by another attempt since.
  if (item === undefined || item.audit != null) return
  if (item.conclusion?.is === 'VERDICT' && !isCertain(world, item.operationId)) return
  await session.say('settle', item)
}

// Operators.

const line = (action: AuditAction): Audit => ({
  id: timeOrderedId(),
  action,
  actor: 'ops',
  reason: 'the statement',
  detail: {},
})

function inReview(world: World) {
  const all = [...world.operations.values()]
  return some(
    world,
    all.filter(({ operation }) => operation.status === 'UNRESOLVED' && operation.leasedUntil === null),
  )
}

async function word(world: World, session: Session) {
  const one = inReview(world)
  if (one === undefined || world.words.has(one.operation.id)) return
  const { operation, payment } = one
  await whileNothingIsSent(world, operation.id, async () => {
    const deed = world.bank.doneBy(operation.id)
    if (deed === undefined && !isCertain(world, operation.id)) return
    const to = operation.kind === 'AUTHORIZE' ? 'FAILED' : null
    const conclusion: Conclusion =
      deed === undefined ? { is: 'VERDICT', code: 'BANK_UNAVAILABLE', to, orphan: false } : factOf(deed)
    const audit = line('CLOSE_REVIEW')
    await settle(
      world,
      session,
      { operation, payment, token: randomUUID() },
      { conclusion, ambiguous: false, audit },
    )
  })
}

async function close(world: World, session: Session, payment = hot(world)) {
  if (payment === undefined) return
  const operations = [...world.operations.values()].filter((one) => one.payment.id === payment.id)
  const isSure = operations.every(
    ({ operation }) => operation.kind !== 'AUTHORIZE' || isCertain(world, operation.id),
  )
  await session.close('close_review', {
    payment: payment.id,
    audit: line('CLOSE_REVIEW'),
    more: isSure && chance(world, 0.5),
  })
}

async function closeAsLost(world: World, session: Session, payment = hot(world)) {
  const { authorizationId = null } = payment ?? {}
  if (payment?.state !== 'AUTHORIZED' || authorizationId === null || !chance(world, 0.3)) return
  const { bank, pending, operations } = world
  if (bank.doneTo(authorizationId) !== undefined || world.doubled.has(authorizationId)) return
  await whileNothingIsSent(world, payment.id, async () => {
    const own = [...operations.values()].filter((one) => one.payment.id === payment.id)
    if (own.some(({ operation }) => (pending.get(operation.id)?.size ?? 0) > 0)) return
    bank.lost.add(authorizationId)
    await session.close('close_as_lost', {
      payment: payment.id,
      audit: line('CLOSE_REVIEW'),
      more: timeOrderedId(),
    })
  })
}

async function whileNothingIsSent({ words }: World, id: string, say: () => Promise<void>) {
  if (words.has(id)) return
  words.add(id)
  try {
    await say()
  } finally {
    words.delete(id)
  }
}
