import { randomUUID } from 'node:crypto'
import { answered } from '../../db/persist.ts'
import type { Gateway } from '../../gateway.ts'
import { settle } from '../../operation/settle.ts'
import { reconciliationId } from '../../payment/ids.ts'
import { operationsThatCount, paymentsById } from '../../payment/reads.ts'
import { enterBankReference } from '../review.ts'
import { isMendable } from './discrepancy.ts'
import type { Discrepancy } from './discrepancy.ts'

/**
 * Does what is certain: the receipt says that it was done, the bank's statement has it under the receipt's own
 * authorization, and only the id is missing. A capture or refund goes the way of an operator who enters it, so the bank
 * confirms it by GET first; of a void there is no GET, nothing hangs on its id, and it is settled as a late fact.
 * Answers null when it is done, or why not.
 */
export async function mend(
  gateway: Gateway,
  discrepancy: Discrepancy,
  actor: string,
): Promise<string | null> {
  const { id, paymentId, bankReference, bank, reconciliationId: runId } = discrepancy
  if (!isMendable(discrepancy) || paymentId === null || bankReference === null)
    return 'a person must see to it'
  const [payment] = await paymentsById(gateway, [paymentId])
  // Its review would end with the id.
  if (payment === undefined || payment.reviewReason !== null) return 'the payment is under review'
  if (bankReference.startsWith('void_')) {
    const operations = await operationsThatCount(gateway, paymentId)
    const operation = operations.findLast(
      ({ kind, status }) => status === 'SUCCEEDED' && (kind === 'VOID' || kind === 'EXPIRE'),
    )
    if (operation === undefined) return 'it was released as a stray hold'
    const conclusion = {
      is: 'FACT',
      bankId: bankReference,
      bankAt: String(bank?.['at']),
      expiresAt: null,
    } as const
    await settle(gateway, { operation, token: randomUUID() }, { conclusion, ambiguous: false, calls: [] })
  } else {
    const reason = `Found on the bank's statement by reconciliation ${reconciliationId(runId)}.`
    const reviewed = await enterBankReference(gateway, { paymentId, bankReference, actor, reason })
    if (reviewed.is === 'problem') return reviewed.problem.message
  }
  await answered(gateway.sql`update discrepancies set mended_at = clock_timestamp() where id = ${id}`)
  return null
}
