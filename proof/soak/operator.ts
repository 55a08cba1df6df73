import { setTimeout as pause } from 'node:timers/promises'
import type { Simulator } from '../../src/simulator/simulator.ts'
import { client } from '../../test/support/client.ts'
import { BANK_KEY_SQL } from '../support/bank-key.ts'
import { actOf } from '../support/acts.ts'
import { rowsOf } from './stage.ts'

/** An operator who reads the bank's statement and settles what waits for one, until told to stop. */
export async function operate(
  { gatewayUrl, receiptsUrl, bank, scale }: Desk,
  over: AbortSignal,
): Promise<{ acts: number }> {
  let acts = 0
  while (!over.aborted) {
    // Not before every request of it has had its time.
    for (const review of (await rowsOf(receiptsUrl, waitingSince(WAIT_MS * scale))) ?? []) {
      const isDone = await settle(review as Review).catch(() => false)
      if (isDone) acts += 1
    }
    await pause(LOOK_MS)
  }
  return { acts }

  async function settle({ payment_id: paymentId, operation_id: operationId, key }: Review): Promise<boolean> {
    const url = gatewayUrl()
    if (url === null) return false
    const by = client(`${url}/graphql`)
    const about = { paymentId, reason: "as the bank's statement shows" }
    const { code } = await (operationId === null
      ? actOf(by, 'closeReview', { ...about, outcome: 'NO_CHANGE' })
      : byStatement())
    return code === undefined

    async function byStatement() {
      const [made] = await bank.sql<{ id: string; type: string }[]>`
        select id, type from transactions where idempotency_key = ${key}`
      const closing = { ...about, operationId }
      if (made === undefined)
        return await actOf(by, 'closeReview', { ...closing, outcome: 'NOT_CARRIED_OUT' })
      return made.type === 'VOID'
        ? await actOf(by, 'closeReview', { ...closing, outcome: 'CARRIED_OUT', voidReference: made.id })
        : await actOf(by, 'enterBankReference', { ...about, bankReference: made.id })
    }
  }
}

export type Desk = {
  gatewayUrl: () => string | null
  receiptsUrl: string
  bank: Simulator
  scale: number
}
type Review = { payment_id: string; operation_id: string | null; key: string | null }

/** Twice a lease. */
const WAIT_MS = 100_000
const LOOK_MS = 1_000

/** Payments under review, each with what waits for a word; what is under way may bring more. */
const waitingSince = (ms: number) => `
  select 'pay_' || p.id as payment_id, 'op_' || o.id as operation_id, ${BANK_KEY_SQL} as key
  from payments p left join operations o on o.payment_id = p.id and o.status = 'UNRESOLVED'
  where p.review_since < now() - ${ms} * interval '1 millisecond'
    and not exists (select from operations w where w.payment_id = p.id and w.status = 'UNRESOLVED' and w.leased_until is not null)`
