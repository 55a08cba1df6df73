import { setTimeout as pause } from 'node:timers/promises'
import { Semaphore } from 'async-mutex'
import { client } from '../../test/support/client.ts'
import type { Client } from '../../test/support/client.ts'
import { rowsOf } from './stage.ts'

/**
 * What was resolved without the bank's word is asked about again for a day, less and less often. Here an operator asks for
 * it at once. A gateway that was suspended with a request on its way may have sent it when all had been
 * concluded: the hold turns up now, as a stray one, and the sweep releases it.
 */
export async function lookLate(gatewayUrl: () => string | null, receiptsUrl: string): Promise<void> {
  const open = await rowsOf(
    receiptsUrl,
    `select distinct 'pay_' || payment_id as id from operations where look_again_at is not null`,
  )
  const places = new Semaphore(LOOKS_AT_ONCE)
  await Promise.all((open ?? []).map(async ({ id }) => await places.runExclusive(async () => await look(id))))
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    const held = await rowsOf(receiptsUrl, 'select from stray_holds where released_at is null')
    if (held?.length === 0) return
    await pause(RETRY_MS)
  }

  async function look(paymentId: unknown): Promise<void> {
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      const url = gatewayUrl()
      const problem = url === null ? 'no gateway' : await rerun(client(`${url}/graphql`), paymentId)
      // What recovery did in the meantime needs no look any more.
      if (problem === null || problem === 'NOTHING_TO_SETTLE') return
      await pause(RETRY_MS)
    }
  }
}

const LOOKS_AT_ONCE = 20
const TRIES_MAX = 300
const RETRY_MS = 200

async function rerun(by: Client, paymentId: unknown): Promise<string | null> {
  const document = /* GraphQL */ `
    mutation ($input: RerunRecoveryInput!) {
      result: rerunRecovery(input: $input) {
        ... on PaymentProblem {
          code
        }
      }
    }
  `
  const input = { paymentId, reason: 'The soak is over: is there a hold?' }
  try {
    const { result } = await by.query<{ result: { code?: string } }>(document, { input })
    return result.code ?? null
  } catch (error) {
    // Postgres may be coming back from its last fault.
    if (String(error).includes('DATABASE_UNAVAILABLE')) return 'DATABASE_UNAVAILABLE'
    throw error
  }
}
