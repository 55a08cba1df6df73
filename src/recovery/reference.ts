import type { BankEndpoint, ExchangeRecord, Fact, Looked } from '../bank/bank.ts'
import type { Gateway } from '../gateway.ts'
import { paymentId } from '../payment/ids.ts'
import type { Operation, OperationKind, Payment } from '../payment/payment.ts'
import { ownerOf } from '../payment/reads.ts'
import { candidatesFor } from './candidates.ts'
import { lookUntilAnswered } from './look.ts'

/** Whether an id of the bank's is the one that an operation lacks: what our receipts say to it, and what the bank says. */

export type ReferenceKind = {
  prefix: string
  endpoint: Exclude<BankEndpoint, 'voids'>
  of: OperationKind
  isMissing: (operation: Operation, payment: Payment) => boolean
  parentOf: (payment: Payment) => string | null
}

/** What can be looked up at the bank, and what of ours may lack it. */
export const REFERENCES: readonly ReferenceKind[] = [
  {
    prefix: 'auth_',
    endpoint: 'authorizations',
    of: 'AUTHORIZE',
    // Of one that failed it is a stray hold, to be released; only where one may have been left.
    isMissing: ({ status }, { possibleOrphanHoldSince }) =>
      status === 'UNRESOLVED' || (status === 'REFUSED' && possibleOrphanHoldSince !== null),
    parentOf: () => null,
  },
  {
    prefix: 'cap_',
    endpoint: 'captures',
    of: 'CAPTURE',
    isMissing: ({ status }, { captureId }) =>
      status === 'UNRESOLVED' || (status === 'SUCCEEDED' && captureId === null),
    parentOf: ({ authorizationId }) => authorizationId,
  },
  {
    prefix: 'ref_',
    endpoint: 'refunds',
    of: 'REFUND',
    isMissing: ({ status }, { refundId }) =>
      status === 'UNRESOLVED' || (status === 'SUCCEEDED' && refundId === null),
    parentOf: ({ captureId }) => captureId,
  },
]

type Entry = { payment: Payment; operation: Operation; kind: ReferenceKind; bankReference: string }
type Said =
  | { is: 'confirmed'; fact: Fact; calls: ExchangeRecord[] }
  | { is: 'refused'; why: string }
  | { is: 'noAnswer' }

const not = (why: string): Said => ({ is: 'refused', why })

export async function confirm(
  gateway: Gateway,
  { payment, operation, kind, bankReference }: Entry,
): Promise<Said> {
  const owner = await ownerOf(gateway, bankReference, payment.id)
  if (owner !== null) return not(`${paymentId(owner)} has it already`)
  const { found, calls } = await lookTwice(gateway, kind.endpoint, bankReference)
  if (found.is === 'noAnswer') return { is: 'noAnswer' }
  if (found.is === 'notFound') return not('the bank does not know it')
  const unlike = [
    ...(found.amountCents === payment.amountCents ? [] : ['amount']),
    ...(found.currency === payment.currency ? [] : ['currency']),
    ...(found.parentId === kind.parentOf(payment) ? [] : ['authorization or capture']),
  ]
  if (unlike.length > 0) return not(`at the bank it has another ${unlike.join(' and ')}`)
  // What the bank gave it under its own key is its own.
  const isGiven = (payment.reviewEvidence ?? []).some(({ evidence }) => evidence['bankId'] === bankReference)
  const why = operation.kind === 'AUTHORIZE' && !isGiven ? await whyNotOf(gateway, payment, found.fact) : null
  return why === null ? { is: 'confirmed', fact: found.fact, calls } : not(why)
}

/** A hold names no payment: whose it is only its time can contradict, and recovery, which asks by key. */
async function whyNotOf(
  gateway: Gateway,
  payment: Payment,
  { bankId, bankAt }: Fact,
): Promise<string | null> {
  const hold = { id: bankId, amountCents: payment.amountCents, at: bankAt }
  const candidates = (await candidatesFor(gateway, [hold])).get(bankId) ?? []
  if (!candidates.some(({ paymentId }) => paymentId === payment.id))
    return `the bank placed it at ${bankAt}, and not when this payment was asked for by our clock`
  const other = candidates.find((one) => one.paymentId !== payment.id && one.willAsk)
  return other === undefined
    ? null
    : `it may be that of ${paymentId(other.paymentId)}, about which the bank will be asked once more; enter it when that has been done`
}

/** "Not found" is also what a fault of the bank's database looks like: it counts when a healthy bank repeats it. */
export async function lookTwice(gateway: Gateway, endpoint: Exclude<BankEndpoint, 'voids'>, id: string) {
  const first = await lookUntilAnswered(gateway, endpoint, id)
  if (first.found.is !== 'notFound') return first
  const health = await gateway.bank.healthy()
  if (!health.healthy) {
    const found: Looked = { is: 'noAnswer', reason: 'the bank is not healthy' }
    return { found, calls: [...first.calls, ...health.calls] }
  }
  const second = await lookUntilAnswered(gateway, endpoint, id)
  return { found: second.found, calls: [...first.calls, ...health.calls, ...second.calls] }
}
