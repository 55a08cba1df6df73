import { isPassing } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { operationsGone } from '../observe/metrics.ts'
import { operationId, paymentId } from '../payment/ids.ts'
import type { Operation } from '../payment/payment.ts'
import { successorOf } from '../payment/reads.ts'
import { claimRow } from './claim-row.ts'
import { standingOf } from './standing.ts'
import type { Standing } from './standing.ts'

/**
 * The claim was committed and is gone: the database lost its last commits. Whoever still works on the operation knows
 * what was asked for, and claims it once more under the same ids, so that the answer of the bank has a receipt again. Where
 * its client was faster, and has repeated the request, the operation of the repeat stands for it.
 *
 * Throws when it cannot be: another payment has its order, say. The caller's line in the log then has what the bank said.
 */
export async function bringBack(gateway: Gateway, operation: Operation, token: string): Promise<Standing> {
  const { clock, log, settings } = gateway
  const payment = operation.paymentId
  if (payment === null) throw new Error(`operation ${operation.id} was claimed without a payment`)
  const ids = { operationId: operation.id, paymentId: payment, token }
  const about = { alarm: 'operation-gone', operation: operationId(operation.id), payment: paymentId(payment) }
  operationsGone.inc()
  log.error(
    about,
    'the claim of an operation is gone: the database has lost commits; claiming it once more (docs/operations.md, "The receipts lost their last hour")',
  )
  const deadlineMs = clock.monotonicMs() + TRIES_MS
  for (;;) {
    const row = await claimAnew().catch((error: unknown) => {
      if (!isPassing(error)) throw error
      return null
    })
    switch (row?.answer) {
      case 'CLAIMED':
      case 'RESOLVED':
      case 'IN_FLIGHT':
      case 'ABANDONED':
      case 'IN_REVIEW':
        return standingOf(row)
      case 'KEY_REUSED':
        throw new Error('its claim is gone, and its key is used for something else')
      case 'BUSY':
      case 'NOT_ADMITTED':
      case undefined:
        // Another operation on its payment or order ends first, or its payment comes back by a repeat.
        if (clock.monotonicMs() >= deadlineMs)
          throw new Error(`its claim is gone and cannot be made again: ${row?.answer ?? 'no database'}`)
        await clock.sleep(settings.recoverAfterMs)
    }
  }

  async function claimAnew() {
    await gateway.sql`select note_history('OPERATION_GONE', null, ${clock.databaseTime()})`
    ids.paymentId = (await successorOf(gateway, ids.paymentId)) ?? ids.paymentId
    return await claimRow(gateway, operation, ids, { maySend: true, wasSent: true })
  }
}

const TRIES_MS = 120_000
