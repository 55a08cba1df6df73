import { z } from 'zod'
import { PAYMENT_STATES } from '../payment/payment.ts'
import { cursorOf } from '../payment/ids.ts'
import { pageOfPayments } from '../payment/page.ts'
import type { PaymentFilter, PaymentPage } from '../payment/page.ts'
import { EVERYONE } from './audience.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { PaymentStateEnum } from './enums.ts'
import { cursorText, PAGE_DEFAULT, pageSize, visibleText } from './input-rules.ts'
import { PaymentType } from './nouns.ts'

/** Lists of payments as Relay connections: newest first, forward only, without a total (which would cost a count). */

export const PaymentConnection = builder.connectionObject(
  {
    type: PaymentType,
    name: 'PaymentConnection',
    description: 'A page of payments, newest first.',
    edgesNullable: { list: false, items: false },
    authScopes: EVERYONE,
  },
  {
    description: 'A payment and its place in the list.',
    nodeField: { description: 'The payment.' },
    authScopes: EVERYONE,
  },
)

export async function connectionOf(
  { gateway, customer }: Context,
  filter: PaymentFilter,
  { first, after = null }: { first: number; after?: string | null | undefined },
) {
  const isOfOthers = customer !== null && customer.id !== filter.customerId
  const page = isOfOthers ? NO_PAYMENTS : await pageOfPayments(gateway, filter, { first, after })
  const { payments, hasMore, end } = page
  const edges = payments.map((payment) => ({ node: payment, cursor: cursorOf(payment.id) }))
  return {
    edges,
    pageInfo: {
      hasNextPage: hasMore,
      hasPreviousPage: after !== null,
      startCursor: edges[0]?.cursor ?? null,
      endCursor: end === null ? null : cursorOf(end),
    },
  }
}

/** What a customer is told of somebody else: as of one who never paid. */
const NO_PAYMENTS: PaymentPage = { payments: [], hasMore: false, end: null }

export const PAGE_ARGS = {
  first: { defaultValue: PAGE_DEFAULT, required: false, description: 'How many at most, 1 to 100.' },
  after: {
    required: false,
    description: "Where to go on: `pageInfo.endCursor` of the page before, or an edge's `cursor`.",
  },
} as const

export const page = {
  first: pageSize.nullish().transform((first) => first ?? PAGE_DEFAULT),
  after: cursorText.nullish(),
}

const states = z.array(z.enum(PAYMENT_STATES)).nullish()
const moment = z.date().nullish()
const flag = z.boolean().nullish()

export const customerFilter = z.object({ states, createdAfter: moment, createdBefore: moment }).nullish()
export const paymentFilter = z
  .object({
    orderId: visibleText.nullish(),
    customerId: visibleText.nullish(),
    states,
    needsReview: flag,
    possibleOrphanHold: flag,
    strayHold: flag,
    operationInFlight: flag,
    expiringBefore: moment,
    createdAfter: moment,
    createdBefore: moment,
  })
  .nullish()

const STATES = 'In one of these states.'
const CREATED_AFTER = 'First asked for at this moment or later.'
const CREATED_BEFORE = 'First asked for before this moment.'

export const CustomerHistoryFilter = builder.inputType('CustomerHistoryFilter', {
  description: 'Which payments of the customer; all that is given must hold.',
  fields: (t) => ({
    states: t.field({ type: [PaymentStateEnum], required: false, description: STATES }),
    createdAfter: t.field({ type: 'DateTime', required: false, description: CREATED_AFTER }),
    createdBefore: t.field({ type: 'DateTime', required: false, description: CREATED_BEFORE }),
  }),
})

export const PaymentFilterInput = builder.inputType('PaymentFilter', {
  description:
    'Which payments; all that is given must hold. What is rare among many is looked for bit by bit: a page may be short, or empty, and yet have a next one.',
  fields: (t) => ({
    orderId: t.string({ required: false, description: 'Of this order.' }),
    customerId: t.string({ required: false, description: 'Of this customer.' }),
    states: t.field({ type: [PaymentStateEnum], required: false, description: STATES }),
    needsReview: t.boolean({ required: false, description: 'Waiting for an operator, or not.' }),
    possibleOrphanHold: t.boolean({
      required: false,
      description: 'Failed with a hold perhaps left at the bank, or not.',
    }),
    strayHold: t.boolean({
      required: false,
      description: 'With a hold at the bank that no payment wants and that is not released yet, or without.',
    }),
    operationInFlight: t.boolean({
      required: false,
      description: 'With an operation under way or of unknown outcome, or without.',
    }),
    expiringBefore: t.field({
      type: 'DateTime',
      required: false,
      description: 'Authorized, with a hold that runs out before this moment.',
    }),
    createdAfter: t.field({ type: 'DateTime', required: false, description: CREATED_AFTER }),
    createdBefore: t.field({ type: 'DateTime', required: false, description: CREATED_BEFORE }),
  }),
})
