import { resultOf } from '../operation/result.ts'
import { OperationKindEnum, OperationStatusEnum, ProblemCodeEnum } from './enums.ts'
import { loaders } from './loaders.ts'
import { BankCallType, OperationType, PaymentType, TransitionType } from './nouns.ts'
import { OperationResult } from './results.ts'
import type { Context } from './context.ts'
import type { Operation } from '../payment/payment.ts'

OperationType.implement({
  description:
    'One authorize, capture, void or refund that was asked for, known for ever by its client and idempotency key.',
  fields: (t) => ({
    client: t.exposeString('client', { description: 'Who asked: the name of an API client, or `gateway`.' }),
    idempotencyKey: t.exposeString('idempotencyKey', {
      description: 'The key it was asked under, unique per client.',
    }),
    kind: t.expose('kind', { type: OperationKindEnum, description: 'What it does.' }),
    status: t.expose('status', {
      type: OperationStatusEnum,
      description: 'Whether it has its final answer.',
    }),
    code: t.expose('code', {
      type: ProblemCodeEnum,
      nullable: true,
      description: 'Why it was refused; null otherwise.',
    }),
    result: t.field({
      type: OperationResult,
      nullable: true,
      description:
        "What a repeat of its mutation would be answered now, without asking anything of the bank: the original answer once there is one, PaymentOutcomeUnknown until then. Null for the gateway's own operations, which have no mutation.",
      resolve: async (operation, _, context) => {
        if (operation.kind === 'EXPIRE' || operation.kind === 'RELEASE') return null
        return resultOf({ operation, ...(await outcomeOf(operation, context)) }, true)
      },
    }),
    attempts: t.exposeInt('attempt', {
      description: 'How often the bank was to be asked, probes included; 0 when it was refused before.',
    }),
    ambiguous: t.boolean({
      description:
        'Some attempt ended in a way that the bank may have carried it out (a timeout, a broken answer).',
      resolve: ({ ambiguousAt }) => ambiguousAt !== null,
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was first asked for.' }),
    sentAt: t.expose('sentAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the last request that can move money was about to leave; null when there was none.',
    }),
    resolvedAt: t.expose('resolvedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it got its final answer; null while it is unresolved.',
    }),
    leasedUntil: t.expose('leasedUntil', {
      type: 'DateTime',
      nullable: true,
      description:
        'Until then one gateway process works on it; past it another may take over. Null when resolved, and when only an operator can settle it.',
    }),
    lookAgainAt: t.expose('lookAgainAt', {
      type: 'DateTime',
      nullable: true,
      description:
        'When the bank is asked once more about what was resolved without its word: an authorization that failed and may have left a hold, or something whose id at the bank is missing. Null when there is nothing to look for, or the bank has forgotten by now.',
    }),
    payment: t.field({
      type: PaymentType,
      nullable: true,
      description: 'The payment it concerns; null when it was refused before there was one.',
      resolve: ({ paymentId }, _, context) =>
        paymentId === null ? null : loaders(context).payment.load(paymentId),
    }),
    transition: t.field({
      type: TransitionType,
      nullable: true,
      description: 'The line that it wrote in the history of its payment, a decline included.',
      resolve: async (operation, _, context) => (await outcomeOf(operation, context)).transition,
    }),
    bankCalls: t.field({
      type: [BankCallType],
      description: 'Its exchanges with the bank, oldest first; at most the newest hundred.',
      resolve: ({ id }, _, context) => loaders(context).bankCalls.load(id),
    }),
  }),
})

async function outcomeOf({ paymentId, transitionVersion }: Operation, context: Context) {
  if (paymentId === null) return { payment: null, transition: null }
  const { payment, transitions } = loaders(context)
  const [found, history] = await Promise.all([
    payment.load(paymentId),
    transitionVersion === null ? [] : transitions.load(paymentId),
  ])
  return { payment: found, transition: history.find(({ version }) => version === transitionVersion) ?? null }
}
