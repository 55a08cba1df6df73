import { setTimeout as pause } from 'node:timers/promises'
import { client } from '../../test/support/client.ts'
import type { Client } from '../../test/support/client.ts'
import { pick } from '../support/random.ts'
import type { Seen } from './clients.ts'
import { orderOf } from './plan.ts'
import type { Life } from './plan.ts'

/** A warehouse that asks all the while whether goods may leave, and once more about every order when all is over. */
export type Warehouse = { lives: Life[]; gatewayUrl: () => string | null; seen: Seen; random: () => number }

export async function askAllAlong(
  { lives, gatewayUrl, seen, random }: Warehouse,
  begun: () => number,
  over: AbortSignal,
): Promise<void> {
  while (!over.aborted) {
    const [first, ...others] = lives.slice(Math.max(0, begun() - RECENT), begun())
    const url = gatewayUrl()
    if (first !== undefined && url !== null) {
      const life = pick(random, [first, ...others])
      const [least = 0, ...more] = life.amountsCents
      await check(client(`${url}/graphql`), life, pick(random, [least, least, ...more]), seen, false).catch(
        () => null,
      )
    }
    await pause(EVERY_MS)
  }
}

export async function askAtTheEnd({ lives, gatewayUrl, seen }: Warehouse): Promise<void> {
  for (const life of lives) {
    for (const cents of life.amountsCents) {
      for (let tries = 0; tries < TRIES_MAX; tries += 1) {
        const url = gatewayUrl()
        if (
          url !== null &&
          (await check(client(`${url}/graphql`), life, cents, seen, true).catch(() => false))
        )
          break
        await pause(EVERY_MS)
      }
    }
  }
}

/** Later ones have ended. */
const RECENT = 100
const EVERY_MS = 50
const TRIES_MAX = 200

async function check(by: Client, life: Life, cents: number, seen: Seen, isLast: boolean): Promise<boolean> {
  const orderId = orderOf(life)
  const askedAt = new Date()
  const { shipmentCheck } = await by.query<{ shipmentCheck: { mayShip: boolean; reason: string } }>(
    'query ($orderId: String!, $cents: Cents!) { shipmentCheck(orderId: $orderId, amountCents: $cents) { mayShip reason } }',
    { orderId, cents },
  )
  seen.checks.push({
    order_id: orderId,
    amount_cents: cents,
    may_ship: shipmentCheck.mayShip,
    reason: shipmentCheck.reason,
    asked_at: askedAt,
    // The clock shows whole milliseconds.
    answered_at: new Date(Date.now() + 1),
    is_last: isLast,
  })
  return true
}
