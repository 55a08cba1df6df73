import { LIVE_STATES, MOVES } from '../../src/payment/payment.ts'
import type { Payment, Transition } from '../../src/payment/payment.ts'
import type { FuzzBank } from './bank.ts'
import type { AuditRow, Authorization, Change, OperationRow } from './journal.ts'
import type { Item, Row, Said, Statement } from './session.ts'
import { LEASE_MS } from './time.ts'

/**
 * Plays the journal once more, statement by statement, and says what must not have been. Each rule looks at one change, at
 * the rows before it, and at what was said; none looks at how sql/ does it.
 */
export function judge(
  journal: readonly Change[],
  { statements, failures }: Said,
  bank: FuzzBank,
  doubled: ReadonlySet<string>,
): string[] {
  const wrongs: string[] = []
  const rows = new Receipts()
  const byXid = new Map(statements.map((statement) => [statement.xid, statement]))
  for (const changes of transactionsOf(journal, wrongs)) {
    const statement = byXid.get(changes[0]?.xid ?? '')
    if (statement === undefined) wrongs.push(`${changes[0]?.xid}: nobody was answered for what it wrote`)
    else wrongs.push(...new Transaction(changes, statement, rows, bank).wrongs())
    for (const change of changes) rows.apply(change)
  }
  for (const statement of statements) wrongs.push(...wrongAnswers(statement))
  for (const { name, items, code, message } of failures) {
    const ids = items.map(bankIdOf)
    const isTold = code === '23505' && name === 'settle' && ids.some((id) => id !== null && doubled.has(id))
    if (items.length <= 1 && !isTold) wrongs.push(`${name} failed alone: ${code} ${message}`)
  }
  return [...wrongs, ...atTheEnd(rows, statements, bank, doubled)]
}

/** Whoever writes the rows of a payment has them to itself. */
function transactionsOf(journal: readonly Change[], wrongs: string[]): Change[][] {
  const transactions = new Map<string, Change[]>()
  const writers = new Map<string, string>()
  const over = new Set<string>()
  for (const change of journal) {
    const { xid } = change
    transactions.set(xid, [...(transactions.get(xid) ?? []), change])
    const payment = paymentOf(change)
    const writer = payment && writers.get(payment)
    if (payment === null || writer === xid) continue
    if (over.has(`${xid} ${payment}`))
      wrongs.push(`${xid} and ${writer} wrote payment ${payment} at one time`)
    if (writer !== undefined) over.add(`${writer} ${payment}`)
    writers.set(payment, xid)
  }
  return [...transactions.values()]
}

function paymentOf(change: Change): string | null {
  const row = change.after ?? change.before
  if (row === null) return null
  // One that was refused names a payment, and needs no lock of it: an authorize names its order's.
  if (change.relation === 'operations' && change.before === null && change.after?.status === 'REFUSED')
    return null
  return 'paymentId' in row ? row.paymentId : row.id
}

class Receipts {
  readonly operations = new Map<string, OperationRow>()
  readonly payments = new Map<string, Payment>()
  readonly authorizations = new Map<string, Authorization>()
  readonly transitions: Transition[] = []
  readonly audits: AuditRow[] = []
  /** The claims to send of which nobody has told yet what came: by operation, the token. */
  readonly untold = new Map<string, string | null>()

  apply(change: Change): void {
    if (change.after === null) return
    switch (change.relation) {
      case 'operations': {
        const { id, attemptToken, attemptPurpose } = change.after
        if (change.before?.attemptToken !== attemptToken)
          this.untold.set(id, attemptPurpose === 'SEND' ? attemptToken : null)
        this.operations.set(id, change.after)
        break
      }
      case 'payments':
        this.payments.set(change.after.id, change.after)
        break
      case 'authorizations':
        this.authorizations.set(change.after.authorizationId, change.after)
        break
      case 'transitions':
        this.transitions.push(change.after)
        break
      case 'audit_lines':
        this.audits.push(change.after)
    }
  }

  operationsOf(paymentId: string | null): OperationRow[] {
    return [...this.operations.values()].filter((operation) => operation.paymentId === paymentId)
  }
  strayOf(paymentId: string): boolean {
    return [...this.authorizations.values()].some(
      (one) => one.paymentId === paymentId && one.role === 'STRAY',
    )
  }
}

const msOf = (date: Date | null) => date?.getTime() ?? -Infinity
const bankIdOf = ({ conclusion }: Item): string | null => {
  const evidence = conclusion?.review?.evidence['bankId']
  return conclusion?.is === 'FACT' ? conclusion.bankId : evidence === undefined ? null : String(evidence)
}
const nameOf = ({ kind, id }: OperationRow) => `${kind} ${id}`

/** One statement: what it changed, what it was, and the rows before it. */
class Transaction {
  private readonly changes: readonly Change[]
  private readonly statement: Statement
  private readonly rows: Receipts
  private readonly bank: FuzzBank
  private readonly found: string[] = []

  constructor(changes: readonly Change[], statement: Statement, rows: Receipts, bank: FuzzBank) {
    this.changes = changes
    this.statement = statement
    this.rows = rows
    this.bank = bank
  }

  wrongs(): string[] {
    for (const change of this.changes) {
      if (change.after === null) this.say('a row was deleted', change.relation)
      else if (change.relation === 'operations' && change.before === null) this.begins(change.after)
      else if (change.relation === 'operations' && change.before !== null)
        this.goesOn(change.before, change.after)
      else if (change.relation === 'payments') this.payment(change.before, change.after)
      else if (change.relation === 'authorizations') this.authorization(change.before, change.after)
    }
    return this.found.map((line) => `${this.statement.name} (${this.statement.xid}): ${line}`)
  }

  private say(line: string, about: string) {
    this.found.push(`${line}: ${about}`)
  }
  private must(holds: boolean, line: string, about: string) {
    if (!holds) this.say(line, about)
  }
  private itemsOf(operationId: string): readonly Item[] {
    return 'items' in this.statement
      ? this.statement.items.filter((item) => item.operationId === operationId)
      : []
  }
  /** Of this relation as this statement has left it, or as it was. */
  private paymentAfter(id: string | null): Payment | undefined {
    const change = this.changes.findLast((one) => one.relation === 'payments' && one.after?.id === id)
    return change?.relation === 'payments' && change.after !== null
      ? change.after
      : this.rows.payments.get(id ?? '')
  }
  private hasAudit(paymentId: string): boolean {
    return this.changes.some((one) => one.relation === 'audit_lines' && one.after?.paymentId === paymentId)
  }
  private transitionOf(paymentId: string): Transition[] {
    return this.changes.flatMap((one) =>
      one.relation === 'transitions' && one.after?.paymentId === paymentId ? [one.after] : [],
    )
  }

  private begins(operation: OperationRow) {
    const { statement, rows } = this
    const about = nameOf(operation)
    if (operation.status === 'REFUSED') return
    if (statement.name === 'close_as_lost') {
      const others = rows.operationsOf(operation.paymentId).filter(({ status, kind, leasedUntil }) =>
        status === 'UNRESOLVED' && kind !== 'RELEASE' && leasedUntil !== null) // prettier-ignore
      this.must(others.length === 0, 'a hold is given up while somebody asks about it', about)
      return
    }
    this.must(statement.name === 'claim' && operation.status === 'UNRESOLVED', 'it begins as no claim', about)
    const item = this.itemsOf(operation.id).find(({ token }) => token === operation.attemptToken)
    this.must(item?.['maySend'] === true, 'it is claimed by nobody who may', about)
    this.must(msOf(operation.leasedUntil) === msOf(statement.at) + LEASE_MS, 'its lease is not whole', about)
    const before = rows.payments.get(operation.paymentId ?? '')
    const others = rows.operationsOf(operation.paymentId).filter(({ status }) => status === 'UNRESOLVED')
    if (operation.kind === 'AUTHORIZE') {
      const payment = this.paymentAfter(operation.paymentId)
      this.must(before === undefined && payment?.state === 'PENDING', 'it is no new payment', about)
      const live = [...rows.payments.values()].filter(({ orderId, state }) =>
        orderId === payment?.orderId && LIVE_STATES.includes(state)) // prettier-ignore
      this.must(
        live.length === 0 || payment?.allowAnotherForOrder === true,
        'its order has a live payment',
        about,
      )
      return
    }
    if ('authorizationId' in operation.input) {
      const hold = rows.authorizations.get(operation.input.authorizationId)
      const origin = rows.operations.get(hold?.operationId ?? '')
      this.must(
        hold?.role === 'STRAY' && hold.paymentId === operation.paymentId,
        'it is no stray hold of it',
        about,
      )
      this.must(
        origin !== undefined && origin.status !== 'UNRESOLVED',
        'its authorize may yet want the hold',
        about,
      )
      return
    }
    this.must(
      before?.state === MOVES[operation.kind].from,
      `it begins on a payment that is ${before?.state}`,
      about,
    )
    this.must(
      others.every(({ kind }) => kind === 'RELEASE'),
      'it begins beside another',
      about,
    )
    if (operation.kind === 'EXPIRE')
      this.must(
        msOf(before?.authorizationExpiresAt ?? null) <= msOf(statement.at),
        'the hold has not expired',
        about,
      )
  }

  private goesOn(before: OperationRow, after: OperationRow) {
    const { statement, rows } = this
    const about = nameOf(after)
    const items = this.itemsOf(after.id)
    this.must(before.ambiguousAt === null || after.ambiguousAt !== null, 'its ambiguity is forgotten', about)
    this.must(before.sentAt === null || after.sentAt !== null, 'that it was sent is forgotten', about)
    if (before.status !== 'UNRESOLVED') {
      const isSame =
        before.status === after.status &&
        before.code === after.code &&
        before.transitionVersion === after.transitionVersion
      this.must(isSame, 'its final answer has changed', about)
      if (before.attemptToken !== after.attemptToken) this.claimedAgain(before, after)
      return
    }
    const payment = this.paymentAfter(after.paymentId)
    if (after.status === 'UNRESOLVED' && after.leasedUntil === null)
      this.must(payment?.reviewReason != null, 'it waits for an operator, and nobody is told', about)
    if (before.attemptToken !== after.attemptToken) {
      this.claimedAgain(before, after)
      return
    }
    const isWord = (item: Item) => item.audit != null && before.leasedUntil === null
    switch (after.status) {
      case 'SUCCEEDED': {
        const facts = items.filter(({ conclusion }) => conclusion?.is === 'FACT')
        this.must(facts.length > 0, 'it succeeded without a fact', about)
        const [moved, ...more] = this.transitionOf(after.paymentId ?? '')
        const { from, to } = MOVES[after.kind]
        const isMoved =
          moved?.operationId === after.id &&
          moved.fromState === from &&
          moved.toState === to &&
          more.length === 0
        this.must(
          after.kind === 'RELEASE' ? moved === undefined || isMoved : isMoved,
          'it moved no payment',
          about,
        )
        break
      }
      case 'REFUSED': {
        const byOperator = statement.name === 'close_as_lost' && before.leasedUntil === null
        const verdicts = items.filter(
          (item) => item.conclusion?.is === 'VERDICT' && (item.token === before.attemptToken || isWord(item)),
        )
        this.must(verdicts.length > 0 || byOperator, 'it was refused by nobody who may', about)
        const orphan = verdicts.every(({ conclusion }) => conclusion?.is === 'VERDICT' && conclusion.orphan)
        if (orphan && !byOperator && !rows.strayOf(after.paymentId ?? ''))
          this.must(
            payment?.possibleOrphanHoldSince != null,
            'the mark of a possible orphan is missing',
            about,
          )
        break
      }
      case 'UNRESOLVED': {
        const left = items.filter(
          (item) => item.conclusion !== undefined && (item.token === before.attemptToken || isWord(item)),
        )
        const isNews = items.some((item) => bankIdOf(item) !== null)
        this.must(left.length > 0 || isNews, 'it was left by nobody who may', about)
        const isAmbiguous = before.ambiguousAt !== null || left.some(({ ambiguous }) => ambiguous)
        const isDoubt = left.every(({ conclusion }) => conclusion?.is === 'LEAVE')
        if (isDoubt)
          this.must((after.ambiguousAt !== null) === isAmbiguous, 'its ambiguity is not what was said', about)
        if (after.leasedUntil !== null && left.length > 0) {
          const quietMs = Math.min(msOf(after.ambiguousAt), msOf(statement.at)) + LEASE_MS
          const isLater = msOf(after.leasedUntil) > msOf(statement.at) && msOf(after.leasedUntil) >= quietMs
          this.must(isLater, 'it may be entered before it is quiet', about)
        }
        if (left.some(({ conclusion }) => conclusion?.review !== undefined))
          this.must(after.leasedUntil === null, 'it was sent to review and does not wait', about)
        if (left.length > 0) rows.untold.set(after.id, null)
      }
    }
  }

  private claimedAgain(before: OperationRow, after: OperationRow) {
    const { statement, rows } = this
    const about = nameOf(after)
    const item = this.itemsOf(after.id).find(({ token }) => token === after.attemptToken)
    if (statement.name !== 'claim_again' || item === undefined) {
      this.say('its claim was changed by nobody', about)
      return
    }
    const isOver = (at: Date | null) => at !== null && msOf(at) <= msOf(statement.at)
    const isAhead = msOf(before.lookAgainAt) > msOf(statement.at) + 2 * 3_600_000
    if (item.late === true) {
      this.must(before.status !== 'UNRESOLVED', 'a late look at what is under way', about)
      this.must(
        item.byOperator === true || isOver(before.lookAgainAt) || isAhead,
        'a late look that is not due',
        about,
      )
      this.must(
        after.leasedUntil === null && msOf(after.lookAgainAt) > msOf(statement.at),
        'a late look takes no lease',
        about,
      )
    } else {
      this.must(before.status === 'UNRESOLVED', 'an answer was claimed again', about)
      const isFree = isOver(before.leasedUntil) || (item.byOperator === true && before.leasedUntil === null)
      const isNext = item.afterToken === null ? isFree : item.afterToken === before.attemptToken
      this.must(isNext, 'its claim was taken from who has it', about)
      this.must(msOf(after.leasedUntil) === msOf(statement.at) + LEASE_MS, 'its lease is not whole', about)
    }
    const isTaken = item.afterToken === null && item.late !== true
    const isAmbiguous =
      before.ambiguousAt !== null || item.ambiguous === true || (isTaken && rows.untold.get(after.id) != null)
    this.must((after.ambiguousAt !== null) === isAmbiguous, 'its ambiguity is not what is known', about)
    this.must(after.attempt === before.attempt + 1, 'an attempt is not counted', about)
    if (after.attemptPurpose === 'SEND')
      this.must(msOf(after.sentAt) === msOf(statement.at), 'a send is not dated', about)
  }

  private payment(before: Payment | null, after: Payment) {
    const about = `payment ${after.id}`
    const moved = this.transitionOf(after.id)
    if (before === null) return
    if (before.state === after.state)
      this.must(before.version === after.version && moved.length === 0, 'a version without a move', about)
    else {
      const [one, ...more] = moved
      const isOne =
        one?.fromState === before.state && one.toState === after.state && one.version === after.version
      this.must(
        isOne && more.length === 0 && after.version === before.version + 1,
        `it became ${after.state} without a line`,
        about,
      )
    }
    for (const id of ['authorizationId', 'captureId', 'voidId', 'refundId'] as const) {
      if (before[id] !== null) this.must(before[id] === after[id], `its ${id} has changed`, about)
      else if (after[id] !== null)
        this.must(
          this.bank.deeds.some((deed) => deed.id === after[id]),
          `its ${id} was never told`,
          about,
        )
    }
    if (before.reviewReason !== null && after.reviewReason === null) {
      this.must(this.hasAudit(after.id), 'a review ended without a line', about)
      const waits = this.rows.operationsOf(after.id).filter(({ id, status, leasedUntil }) =>
        status === 'UNRESOLVED' && leasedUntil === null && !this.changes.some((one) =>
          one.relation === 'operations' && one.after?.id === id)) // prettier-ignore
      this.must(waits.length === 0, 'a review ended while an operation waits for a word', about)
    }
    if (before.reviewReason !== null && after.reviewReason !== null) {
      const kept = JSON.stringify(after.reviewEvidence).startsWith(
        JSON.stringify(before.reviewEvidence).slice(0, -1),
      )
      this.must(kept && before.reviewReason === after.reviewReason, 'evidence was lost', about)
    }
    if (before.possibleOrphanHoldSince !== null && after.possibleOrphanHoldSince === null) {
      const isFound = this.changes.some(
        (one) => one.relation === 'authorizations' && one.after?.paymentId === after.id,
      )
      // Or it was told, and is another payment's by now.
      const isTold =
        'items' in this.statement &&
        this.statement.items.some((item) => item.paymentId === after.id && bankIdOf(item) !== null)
      const isKnown = isFound || isTold || this.rows.strayOf(after.id) || this.hasAudit(after.id)
      this.must(isKnown, 'a mark is gone', about)
    }
  }

  private authorization(before: Authorization | null, after: Authorization) {
    const about = `authorization ${after.authorizationId}`
    if (before === null) return
    const releases = [...this.rows.operations.values()].filter(({ input, attempt }) =>
      attempt > 0 && 'authorizationId' in input && input.authorizationId === after.authorizationId) // prettier-ignore
    this.must(before.paymentId === after.paymentId, 'it passed to another payment', about)
    if (before.role !== after.role) {
      const isAdopted = after.role === 'WANTED' && before.releasedAt === null && releases.length === 0
      this.must(isAdopted, `it became ${after.role} after ${releases.map(nameOf).join(', ')}`, about)
    }
    if (before.releasedAt === null && after.releasedAt !== null) {
      const isDone = this.changes.some((one) => one.relation === 'operations' && one.after?.status === 'SUCCEEDED' &&
        releases.some(({ id }) => id === one.after?.id)) // prettier-ignore
      this.must(isDone, 'it was released by nobody', about)
    }
  }
}

/** What is answered is what is written. */
function wrongAnswers(statement: Statement): string[] {
  if (!('items' in statement)) return []
  const { name, items, rows, xid, at } = statement
  const wrong = (row: Row | undefined, item: Item): string | null => {
    if (row === undefined) return 'an item without its answer'
    const { answer, operation } = row
    if (operation === null) return ['NOT_ADMITTED'].includes(answer) ? null : `${answer} without an operation`
    const isMine = operation.attemptToken === item.token
    if (answer === 'CLAIMED' && (!isMine || (operation.status !== 'UNRESOLVED' && item.late !== true)))
      return 'a claim that is not ours'
    if (name === 'claim_again') {
      const isQuiet = operation.ambiguousAt === null || msOf(operation.ambiguousAt) + LEASE_MS <= msOf(at)
      if (row.quiet !== isQuiet) return `quiet: ${row.quiet}`
    }
    if (name === 'settle' && answer === 'SETTLED' && operation.status === 'UNRESOLVED')
      return 'settled, and unresolved'
    return null
  }
  return items.flatMap((item, index) => {
    const line = wrong(rows[index], item)
    return line === null
      ? []
      : [`${name} (${xid}) of ${item.operationId} answered ${rows[index]?.answer}: ${line}`]
  })
}

/** The rows as they stand, and the bank. */
function atTheEnd(
  rows: Receipts,
  statements: readonly Statement[],
  bank: FuzzBank,
  doubled: ReadonlySet<string>,
): string[] {
  const wrongs: string[] = []
  const must = (holds: boolean, line: string) => {
    if (!holds) wrongs.push(`in the end ${line}`)
  }
  for (const payment of rows.payments.values()) {
    const own = rows.transitions.filter(({ paymentId }) => paymentId === payment.id)
    const isChain = own.every(({ version, fromState }, at) =>
      version === at + 1 && fromState === (own[at - 1]?.toState ?? null)) // prettier-ignore
    const last = own.at(-1)
    must(
      isChain && last?.toState === payment.state && last.version === payment.version,
      `payment ${payment.id} is ${payment.state} v${payment.version} after ${own.map(({ toState }) => toState).join(' ')}`,
    )
    const open = rows.operationsOf(payment.id).filter(({ status }) => status === 'UNRESOLVED')
    must(
      open.filter(({ kind }) => kind !== 'RELEASE').length <= 1,
      `payment ${payment.id} has several operations in flight`,
    )
    for (const { leasedUntil, kind, id } of open)
      must(
        leasedUntil !== null || payment.reviewReason !== null,
        `${kind} ${id} waits for an operator, and nobody is told`,
      )
    const id = payment.authorizationId
    if (id === null) continue
    const role = rows.authorizations.get(id)?.role
    must(
      role === (own.some(({ toState }) => toState === 'AUTHORIZED') ? 'WANTED' : 'STRAY'),
      `${id} of payment ${payment.id} is ${role}`,
    )
    if (open.length > 0 || payment.reviewReason !== null || doubled.has(id)) continue
    const states = statesAtBank(bank, id)
    must(
      states.includes(payment.state),
      `payment ${payment.id} is ${payment.state}, and at the bank ${states.join(' or ')}`,
    )
  }
  // An authorization that was told is in the table; one that was not is looked for, or marked.
  for (const { id, operationId } of bank.deeds.filter(({ kind }) => kind === 'AUTHORIZE')) {
    const operation = rows.operations.get(operationId)
    const payment = rows.payments.get(operation?.paymentId ?? '')
    // One that was told under another's name is not known by its own.
    const isKnown =
      rows.authorizations.has(id) || doubled.has(id) || doubled.has(payment?.authorizationId ?? '')
    // Of two that were placed at one time the one hides the other, which no client can help: the gateway sends none so.
    if (bank.deeds.filter((deed) => deed.operationId === operationId).length > 1) continue
    must(
      isKnown || operation?.status === 'UNRESOLVED' || payment?.possibleOrphanHoldSince != null,
      `${id} of ${operation?.code} ${operationId} is known to nobody`,
    )
  }
  for (const statement of statements) {
    if (!('items' in statement)) continue
    for (const item of statement.items) {
      const id = bankIdOf(item)
      const operation = rows.operations.get(item.operationId)
      if (id !== null && operation !== undefined && operation.kind !== 'RELEASE')
        must(
          isKept(rows, id, item),
          `${id}, which ${operation.kind} ${item.operationId} has brought, is kept nowhere`,
        )
    }
  }
  return wrongs
}

function statesAtBank(bank: FuzzBank, authorizationId: string): Payment['state'][] {
  const next = bank.doneTo(authorizationId)
  if (next === undefined) return bank.lost.has(authorizationId) ? ['AUTHORIZED', 'EXPIRED'] : ['AUTHORIZED']
  switch (next.kind) {
    case 'CAPTURE':
      return bank.doneTo(next.id) === undefined ? ['CAPTURED'] : ['REFUNDED']
    case 'EXPIRE':
      return ['EXPIRED']
    default:
      return ['VOIDED']
  }
}

function isKept(rows: Receipts, id: string, { paymentId }: Item): boolean {
  const payment = rows.payments.get(paymentId)
  if (payment === undefined) return false
  const ids = [payment.authorizationId, payment.captureId, payment.voidId, payment.refundId]
  const audits = rows.audits.filter((line) => line.paymentId === paymentId)
  const evidence = [payment.reviewEvidence, ...audits.map(({ detail }) => detail.reviewEvidence)].flatMap(
    (list) => list ?? [],
  )
  return (
    ids.includes(id) ||
    rows.authorizations.get(id)?.paymentId === paymentId ||
    evidence.some((one) => one.evidence['bankId'] === id)
  )
}
