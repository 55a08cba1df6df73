import type { ReviewEvidence } from '../payment/payment.ts'
import { builder } from './builder.ts'
import { AuditActionEnum } from './enums.ts'
import { MoneyType } from './money.ts'
import { AuditLineType, OperationType, StrayHoldType } from './nouns.ts'
import { loaders } from './loaders.ts'

/** What operators see of a payment that no rule can settle, and what they did about it. */

type Review = { reason: string; since: Date; evidence: ReviewEvidence[] }
export const ReviewType = builder.objectRef<Review>('Review').implement({
  description: 'Why an operator must look at a payment.',
  fields: (t) => ({
    reason: t.exposeString('reason', { description: 'What no rule could settle first.' }),
    since: t.expose('since', { type: 'DateTime', description: 'Since when.' }),
    evidence: t.field({
      type: [EvidenceType],
      description: 'What each operation brought to it, oldest first; never card data.',
      resolve: ({ evidence }) => evidence,
    }),
  }),
})

const EvidenceType = builder.objectRef<ReviewEvidence>('Evidence').implement({
  description: 'What one operation brought to the review of a payment.',
  fields: (t) => ({
    operationId: t.exposeID('operation', { description: 'The operation that met it.' }),
    reason: t.exposeString('reason', { description: 'What no rule could settle.' }),
    facts: t.field({
      type: [FactType],
      description: 'What the bank said, for instance its id and the amount; by name.',
      resolve: ({ evidence }) => factsOf(evidence),
    }),
  }),
})

export const FactType = builder.objectRef<{ name: string; value: string }>('Fact').implement({
  description: 'One thing that is known about a payment.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What it is, for instance `amountCents`.' }),
    value: t.exposeString('value', { description: 'As text.' }),
  }),
})

StrayHoldType.implement({
  description: 'A hold at the bank that no receipt wants. The gateway releases it by a void.',
  fields: (t) => ({
    authorizationId: t.exposeString('authorizationId', { description: "The bank's id of the hold." }),
    amount: t.field({
      type: MoneyType,
      description: 'What it holds.',
      resolve: ({ amountCents }) => ({ cents: amountCents, currency: 'USD' }),
    }),
    foundAt: t.expose('foundAt', { type: 'DateTime', description: 'When it turned up.' }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      description: 'When it runs out by the bank, which does not release it by that.',
    }),
    releasedAt: t.expose('releasedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was voided; null until then.',
    }),
    operation: t.field({
      type: OperationType,
      nullable: true,
      description: 'The authorization that left it.',
      resolve: ({ operationId }, _, context) => loaders(context).operation.load(operationId),
    }),
  }),
})

AuditLineType.implement({
  description: 'What an operator did about a payment, and why. Written once, never changed.',
  fields: (t) => ({
    at: t.expose('at', { type: 'DateTime', description: 'When it had its effect.' }),
    actor: t.exposeString('actor', { description: 'Who did it: the name of an API client.' }),
    action: t.expose('action', { type: AuditActionEnum, description: 'What was done.' }),
    reason: t.exposeString('reason', { description: 'Why, in the words of whoever did it.' }),
    entered: t.field({
      type: [FactType],
      description: 'What was entered, for instance the outcome or the reference; by name.',
      resolve: ({ detail: { outcome, bankReference, webhook } }) =>
        factsOf({ outcome, bankReference, webhook }),
    }),
    closedReview: t.string({
      nullable: true,
      description: 'The reason of the review that it ended; null when there was none.',
      resolve: ({ detail }) => detail.reviewReason ?? null,
    }),
    closedEvidence: t.field({
      type: [EvidenceType],
      description: 'The evidence of the review that it ended.',
      resolve: ({ detail }) => detail.reviewEvidence ?? [],
    }),
    operation: t.field({
      type: OperationType,
      nullable: true,
      description: 'The operation that it settled or entered; null when it concerned none.',
      resolve: ({ operationId }, _, context) =>
        operationId === null ? null : loaders(context).operation.load(operationId),
    }),
  }),
})

export function factsOf(facts: Record<string, string | number | null | undefined>) {
  return Object.entries(facts)
    .filter(([, value]) => value != null)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, value]) => ({ name, value: String(value) }))
}
