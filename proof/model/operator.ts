import { bankKey } from '../../src/operation/bank-key.ts'
import { isInReview } from '../../src/payment/payment.ts'
import type { Operation, Payment } from '../../src/payment/payment.ts'
import { closeReview, enterBankReference, rerunRecovery } from '../../src/recovery/review.ts'
import type { Process, World } from './process.ts'
import type { Receipts } from './receipts.ts'

/** An operator who is honest and reads the bank's statement: what it shows is what is entered, but by `err`. */

/** Settles the first thing that waits for one; false when there is none. */
export async function settleFirst(process: Process, world: World, receipts: Receipts): Promise<boolean> {
  for (const payment of receipts.payments) {
    const operations = receipts.operations.filter(({ paymentId }) => paymentId === payment.id)
    const waiting = operations.find(isInReview)
    const by = { paymentId: payment.id, actor: 'ops', reason: "as the bank's statement shows" }
    const closing = { ...by, operationId: waiting?.id ?? null, bankReference: null }
    const gateway = process.gateway
    const operation = waiting ?? operations.find((one) => isUntold(one, payment))
    if (operation === undefined) {
      // An operation under way comes first, and may bring more.
      if (payment.reviewReason === null || operations.some(({ status }) => status === 'UNRESOLVED')) continue
      await world.time.live(process, () => closeReview(gateway, { ...closing, outcome: 'NO_CHANGE' }))
      return true
    }
    const made = world.bank.books.find(({ key }) => key === bankKey(operation, payment))
    await world.time.live(process, () => {
      if (made === undefined) return closeReview(gateway, { ...closing, outcome: 'NOT_CARRIED_OUT' })
      return made.endpoint === 'voids'
        ? closeReview(gateway, { ...closing, outcome: 'CARRIED_OUT', bankReference: made.id })
        : enterBankReference(gateway, { ...by, bankReference: made.id })
    })
    return true
  }
  return false
}

export async function rerun(process: Process, world: World, receipts: Receipts): Promise<void> {
  const payment = receipts.payments.at(-1)
  if (payment === undefined) return
  const by = { paymentId: payment.id, operationId: null, actor: 'ops', reason: 'the bank is well again' }
  await world.time.live(process, () => rerunRecovery(process.gateway, by))
}

/** Enters for the newest payment what the bank did for another one. What a hold was for its id does not tell. */
export async function err(process: Process, world: World, receipts: Receipts): Promise<void> {
  const payment = receipts.payments.at(-1)
  const other = world.bank.books.find(
    ({ endpoint, parentId }) =>
      (endpoint === 'captures' && parentId !== payment?.authorizationId) ||
      (endpoint === 'refunds' && parentId !== payment?.captureId),
  )
  if (payment === undefined || other === undefined) return
  const entry = { paymentId: payment.id, actor: 'ops', reason: 'a slip', bankReference: other.id }
  const result = await world.time.live(process, () => enterBankReference(process.gateway, entry))
  if (result.is === 'reviewed') world.errors.push({ msg: `${other.id} was taken for ${payment.id}` })
}

/** Resolved without the bank's word, for good: the sweep looks no more. */
function isUntold({ kind, status, lookAgainAt }: Operation, payment: Payment): boolean {
  if (lookAgainAt !== null) return false
  if (status === 'REFUSED') return kind === 'AUTHORIZE' && payment.possibleOrphanHoldSince !== null
  if (kind === 'CAPTURE') return payment.captureId === null
  return kind === 'REFUND' && payment.refundId === null
}
