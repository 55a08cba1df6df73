import { z } from 'zod'
import type { BankEndpoint, Fact } from './bank.ts'

/** The bank's endpoints as data: the path, and what a 200 must look like to be believed, to a POST and to a GET alike. */

/** What a 200 says was carried out, in our words. A void echoes neither amount nor currency, an authorize no parent. */
export type Carried = {
  fact: Fact
  amountCents: number | null
  currency: string | null
  parentId: string | null
}

/** Loose behind the prefix (the bank sends a UUID), tight enough that an id can be logged and put in a path. */
const id = (prefix: string) => z.string().regex(new RegExp(`^${prefix}_[0-9A-Za-z-]{1,64}$`))
/** RFC 3339 with any number of decimals; POST answers have nanoseconds and an offset. */
const time = z.iso
  .datetime({ offset: true })
  // What Postgres takes, too: a fact that cannot be written would be asked for again for ever.
  .regex(/^[12]\d{3}-.*(Z|[+-](0\d|1[0-4]):\d\d)$/)
/** Safe integers only: one above 2^53 has lost digits in JSON.parse, and is refused here. */
const money = { amount: z.int(), currency: z.string().regex(/^[A-Z]{3}$/) }

const authorization = z
  .object({
    authorization_id: id('auth'),
    status: z.literal('approved'),
    ...money,
    expires_at: time,
    created_at: time,
  })
  .transform((answer) => ({
    fact: { bankId: answer.authorization_id, bankAt: answer.created_at, expiresAt: answer.expires_at },
    amountCents: answer.amount,
    currency: answer.currency,
    parentId: null,
  }))

const capture = z
  .object({
    capture_id: id('cap'),
    authorization_id: id('auth'),
    status: z.literal('captured'),
    ...money,
    captured_at: time,
  })
  .transform((answer) => ({
    fact: { bankId: answer.capture_id, bankAt: answer.captured_at, expiresAt: null },
    amountCents: answer.amount,
    currency: answer.currency,
    parentId: answer.authorization_id,
  }))

const voided = z
  .object({
    void_id: id('void'),
    authorization_id: id('auth'),
    status: z.literal('voided'),
    voided_at: time,
  })
  .transform((answer) => ({
    fact: { bankId: answer.void_id, bankAt: answer.voided_at, expiresAt: null },
    amountCents: null,
    currency: null,
    parentId: answer.authorization_id,
  }))

const refund = z
  .object({
    refund_id: id('ref'),
    capture_id: id('cap'),
    status: z.literal('refunded'),
    ...money,
    refunded_at: time,
  })
  .transform((answer) => ({
    fact: { bankId: answer.refund_id, bankAt: answer.refunded_at, expiresAt: null },
    amountCents: answer.amount,
    currency: answer.currency,
    parentId: answer.capture_id,
  }))

export const ENDPOINTS = {
  authorizations: { path: '/api/v1/authorizations', answer: authorization },
  captures: { path: '/api/v1/captures', answer: capture },
  voids: { path: '/api/v1/voids', answer: voided },
  refunds: { path: '/api/v1/refunds', answer: refund },
} satisfies Record<BankEndpoint, { path: string; answer: z.ZodType<Carried> }>
