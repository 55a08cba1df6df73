import { BANK_KEY_SQL } from '../../proof/support/bank-key.ts'
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { expect } from 'vitest'
import type { TestBank } from './bank.ts'
import type { Answered, Client } from './client.ts'

/** Orders that go on being placed and paid for whatever happens, each with an amount of its own, as FicMart's client should. */

export type Placed = { amountCents: number; paymentId: string }

let nextCents = 1_000

/** Authorized and captured; repeats what it is told to repeat until it is. */
async function placeOrder(client: Client): Promise<Placed> {
  const amountCents = (nextCents += 1)
  const orderId = `order-${randomUUID()}`
  const paymentId = await carriedOut((idempotencyKey) =>
    client.authorize({ idempotencyKey, orderId, amountCents }),
  )
  await carriedOut((idempotencyKey) => client.capture({ idempotencyKey, paymentId }))
  return { amountCents, paymentId }
}

async function carriedOut(ask: (key: string) => Promise<Answered>): Promise<string> {
  let key = randomUUID()
  for (;;) {
    const answer = await ask(key)
    if (answer.code === undefined) return answer.payment.id
    if (answer.retry === 'DO_NOT_RETRY') throw new Error(`${answer.code}: ${answer.message}`)
    if (answer.retry === 'NEW_KEY') key = randomUUID()
    await pause(REPEAT_AFTER_MS)
  }
}

/** Much sooner than the advice says: it is a storm. */
const REPEAT_AFTER_MS = 20

/** So many customers, one order after another, until `finish`, which resolves with all that was placed. */
export function startOrders(client: Client, customers: number) {
  const placed: Placed[] = []
  const over = new AbortController()
  const watchers = new Set<() => void>()
  const placeOne = async () => {
    placed.push(await placeOrder(client))
    watchers.forEach((look) => look())
  }
  const working = Promise.all(
    Array.from({ length: customers }, async () => {
      while (!over.signal.aborted) await placeOne()
    }),
  )
  return {
    placeOne,
    count: () => placed.length,
    /** Resolves when so many have been placed. */
    until: (count: number) =>
      Promise.race([
        working,
        new Promise<void>((resolve) => watchers.add(() => placed.length >= count && resolve())),
      ]),
    finish: async () => {
      over.abort()
      await working
      return placed
    },
  }
}

/** In the bank's books, each of these was held once and charged once. */
export async function expectBookedOnce(bank: TestBank, placed: readonly Placed[]): Promise<void> {
  const booked = new Map<number, string[]>()
  for (const { amount_cents: cents, type } of await bank.transactions())
    booked.set(cents, [...(booked.get(cents) ?? []), type])
  for (const { amountCents } of placed)
    expect([amountCents, booked.get(amountCents)]).toEqual([amountCents, ['AUTHORIZATION', 'CAPTURE']])
}

/** The keys under which the bank was asked and of which no committed operation tells. */
export async function unclaimed(bank: TestBank, receipts: Sql<{ bigint: number }> | Sql): Promise<string[]> {
  const keys = new Set(bank.received.filter(({ method }) => method === 'POST').map(({ key }) => key))
  expect(keys.size).toBeGreaterThan(0)
  const rows = await (receipts as Sql).unsafe<{ key: string }[]>(
    `select ${BANK_KEY_SQL} as key from operations o join payments p on p.id = o.payment_id where o.attempt > 0`,
  )
  const claimed = new Set(rows.map(({ key }) => key))
  return [...keys].filter((key) => !claimed.has(key))
}
