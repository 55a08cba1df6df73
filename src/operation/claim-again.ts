import { randomUUID } from 'node:crypto'
import type { ExchangeRecord } from '../bank/bank.ts'
import { answered, persist } from '../db/persist.ts'
import type { Step } from '../db/persist.ts'
import { together } from '../db/together.ts'
import type { Gateway } from '../gateway.ts'
import { operationId, paymentId } from '../payment/ids.ts'
import type { Audit, Operation, OperationInput, Payment } from '../payment/payment.ts'
import { leaseMs } from './claim-row.ts'
import { bringBack } from './gone.ts'
import { readRow, standingOf } from './standing.ts'
import type { JsonRow, Standing } from './standing.ts'

/**
 * The committed record that this process is about to make one exchange with the bank: the first is claimed with its
 * operation (claim.ts), each further one from the last by its token, or by who takes the operation over.
 */
export type Claim = Standing & {
  payment: Payment
  token: string
  /** When the claim was first asked for: it is at most this old. */
  askedAt: Moment
  /** No attempt that may have been carried out can still be at work in the bank. */
  quiet: boolean
  /** The bank still remembers its answer to the last send, if it gave one. */
  replayable: boolean
}

/**
 * Too old to send under: the lease may be about to pass to another process. By either clock: the monotonic one stands
 * still while the machine is suspended, the wall clock can be set back.
 */
export function isStale(gateway: Gateway, { askedAt }: Claim): boolean {
  const now = momentOf(gateway)
  const ageMs = Math.max(now.monotonicMs - askedAt.monotonicMs, now.wallMs - askedAt.wallMs)
  return ageMs > gateway.settings.claimFreshMs
}

export type Moment = { monotonicMs: number; wallMs: number }
export function momentOf({ clock }: Gateway): Moment {
  return { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() }
}

export const TAKEOVER = { after: null, purpose: 'PROBE', ambiguous: false, calls: [] } as const

/**
 * Claims the next exchange of an operation; `after` null takes it over, which only an expired lease allows. Answers how
 * the operation stands when the claim is not to be had.
 */
export async function claimAgain(
  gateway: Gateway,
  operation: Operation,
  next: {
    after: string | null
    purpose: 'SEND' | 'PROBE'
    ambiguous: boolean
    calls: readonly ExchangeRecord[]
    /** Once more about an operation that was resolved without the bank's word. */
    late?: boolean
    /** An operator may take over what waits in review, and leaves a line. */
    audit?: Audit | null
  },
): Promise<{ claim: Claim } | { lost: Standing }> {
  const askedAt = momentOf(gateway)
  const token = randomUUID()
  const item = {
    ...subject(operation),
    token,
    afterToken: next.after,
    purpose: next.purpose,
    ambiguous: next.ambiguous,
    calls: callsOf(operation, next.calls),
    leaseMs: leaseMs(gateway),
    replayWindowMs: gateway.settings.replayWindowMs,
    late: next.late ?? false,
    keyed: true,
    byOperator: next.audit != null,
    audit: next.audit ?? null,
  }
  const deadlineMs = askedAt.monotonicMs + leaseMs(gateway)
  const claim = await persist(gateway, stepOf('claim again', operation), deadlineMs, async () => {
    const row = await together(gateway, gateway.inFlight.lines.claimAgain, item, (items) =>
      answered(gateway.sql`
        select * from claim_again(${gateway.sql.json(items)}, ${gateway.clock.databaseTime()})`),
    )
    const answer = readRow(row)
    if (row.answer === 'GONE') return null
    if (row.answer !== 'CLAIMED') return { lost: standingOf(answer) }
    return { claim: { ...claimed(answer), token, askedAt, quiet: row.quiet, replayable: row.replayable } }
  })
  if (claim !== null) return claim
  const back = await bringBack(gateway, operation, next.after ?? token)
  if (back.operation.id !== operation.id) return { lost: back }
  return await claimAgain(gateway, operation, {
    ...next,
    ambiguous: next.ambiguous || wasAmbiguous(operation),
  })
}

/** What the lost claim said, the one that stands for it must say again. */
export const wasAmbiguous = ({ ambiguousAt }: Operation): boolean => ambiguousAt !== null

export type ClaimAgainRow = JsonRow<'CLAIMED' | 'RESOLVED' | 'TAKEN' | 'GONE'> & {
  quiet: boolean
  replayable: boolean
}

export function claimed(row: ReturnType<typeof readRow>): Standing & { payment: Payment } {
  const { payment, ...standing } = standingOf(row)
  if (payment === null) throw new Error(`operation ${standing.operation.id} was claimed without a payment`)
  return { ...standing, payment }
}

/** The ids by which sql/ locks and finds an operation. */
export function subject(operation: Operation) {
  return { operationId: operation.id, paymentId: operation.paymentId, orderId: orderOf(operation.input) }
}

/** How a statement about an operation is named in logs and traces. */
export function stepOf(name: string, operation: Operation): Step {
  const payment = operation.paymentId === null ? null : paymentId(operation.paymentId)
  return { name, operation: operationId(operation.id), payment }
}

function orderOf(input: OperationInput): string | null {
  return 'orderId' in input ? input.orderId : null
}

export function callsOf(operation: Operation, calls: readonly ExchangeRecord[]) {
  return calls.map((call) => ({
    ...call,
    attempt: operation.attempt,
    startedAt: call.startedAt.toISOString(),
  }))
}
