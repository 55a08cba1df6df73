import { z } from 'zod'
import { pageOfDeliveries, resendDelivery, WEBHOOK_STATUSES } from '../events/deliveries.ts'
import type { Delivery } from '../events/deliveries.ts'
import { eventType } from '../events/receiver.ts'
import { problem } from '../operation/problems.ts'
import { cursorOfEvent, eventId, timeOrderedId } from '../payment/ids.ts'
import type { ProblemCode, Transition } from '../payment/payment.ts'
import { OPERATORS, STAFF } from './audience.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { WebhookStatusEnum } from './enums.ts'
import { eventCursorText, eventIdText, paymentIdText, REASON_TEXT, reasonText } from './input-rules.ts'
import { loaders } from './loaders.ts'
import { PaymentType, TransitionType, WebhookDeliveryType } from './nouns.ts'
import { page, PAGE_ARGS } from './pages.ts'
import { problemTypes } from './problems.ts'
import type { ProblemAnswer } from './problems.ts'
import { typesOf } from './results.ts'

/** What operators see of the webhooks, and can do about one that did not get through. */

WebhookDeliveryType.implement({
  description:
    "One transition of a payment, to be told to FicMart's back end: at least once, and after those before it of the same payment.",
  fields: (t) => ({
    type: t.string({
      nullable: true,
      description: 'What it tells, for instance `payment.authorized`.',
      resolve: async (delivery, _, context) => {
        const transition = await transitionOf(delivery, context)
        return transition && eventType(transition.toState)
      },
    }),
    status: t.expose('status', { type: WebhookStatusEnum, description: 'How far it got.' }),
    attempts: t.exposeInt('attempts', { description: 'How often it was sent, or was about to be.' }),
    recordedAt: t.expose('recordedAt', { type: 'DateTime', description: 'When the transition was made.' }),
    lastAttemptAt: t.expose('lastAttemptAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was sent last; null before the first time.',
    }),
    nextAttemptAt: t.expose('dueAt', {
      type: 'DateTime',
      nullable: true,
      description:
        'When it is sent next, at the earliest; null when it is delivered or given up, and while it waits for the one before it of the same payment.',
    }),
    lastHttpStatus: t.exposeInt('lastHttpStatus', {
      nullable: true,
      description: 'What the receiver answered last; null when it did not answer, or was not asked yet.',
    }),
    lastError: t.exposeString('lastError', {
      nullable: true,
      description:
        'Why the last attempt was in vain, for instance `HTTP_500`, `TIMEOUT` or `ECONNREFUSED`; null when it was not.',
    }),
    endedAt: t.expose('endedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was delivered, or given up; null until then.',
    }),
    resentAt: t.expose('resentAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When an operator last had it sent again; `auditLines` of the payment say who and why.',
    }),
    payment: t.field({
      type: PaymentType,
      nullable: true,
      description: 'The payment, as it stands now.',
      resolve: ({ paymentId }, _, context) => loaders(context).payment.load(paymentId),
    }),
    transition: t.field({
      type: TransitionType,
      nullable: true,
      description: 'What it tells of.',
      resolve: (delivery, _, context) => transitionOf(delivery, context),
    }),
  }),
})

const idOf = ({ paymentId, version }: Delivery) => eventId(paymentId, version)

async function transitionOf({ paymentId, version }: Delivery, context: Context): Promise<Transition | null> {
  const transitions = await loaders(context).transitions.load(paymentId)
  return transitions.find((transition) => transition.version === version) ?? null
}

const WebhookDeliveryConnection = builder.connectionObject(
  {
    type: WebhookDeliveryType,
    name: 'WebhookDeliveryConnection',
    description: 'A page of webhooks: those of the newest payments first, of each the newest first.',
    edgesNullable: { list: false, items: false },
  },
  { description: 'A webhook and its place in the list.', nodeField: { description: 'The webhook.' } },
)

const WebhookDeliveryFilter = builder.inputType('WebhookDeliveryFilter', {
  description: 'Which webhooks; all that is given must hold.',
  fields: (t) => ({
    status: t.field({ type: WebhookStatusEnum, required: false, description: 'Only those that got so far.' }),
    paymentId: t.id({ required: false, description: 'Only those of this payment, `pay_...`.' }),
  }),
})

builder.queryField('webhookDeliveries', (t) =>
  t.field({
    type: WebhookDeliveryConnection,
    authScopes: STAFF,
    description: "For operators: the webhooks to FicMart's back end, delivered or not.",
    args: t.validate(
      {
        filter: t.arg({
          type: WebhookDeliveryFilter,
          required: false,
          description: 'Which of them; all when left out.',
        }),
        first: t.arg.int(PAGE_ARGS.first),
        after: t.arg.string(PAGE_ARGS.after),
      },
      z.object({
        first: page.first,
        after: eventCursorText.nullish(),
        filter: z
          .object({ status: z.enum(WEBHOOK_STATUSES).nullish(), paymentId: paymentIdText.nullish() })
          .nullish(),
      }),
    ),
    resolve: async (_, { filter, first, after = null }, { gateway }) => {
      const found = await pageOfDeliveries(gateway, filter ?? {}, { first, after })
      const edges = found
        .slice(0, first)
        .map((delivery) => ({ node: delivery, cursor: cursorOfEvent(idOf(delivery)) }))
      return {
        edges,
        pageInfo: {
          hasNextPage: found.length > first,
          hasPreviousPage: after !== null,
          startCursor: edges[0]?.cursor ?? null,
          endCursor: edges.at(-1)?.cursor ?? null,
        },
      }
    },
  }),
)

type ResentAnswer = { is: 'resent'; delivery: Delivery }
type ResendAnswer = ResentAnswer | ProblemAnswer

const WebhookResent = builder.objectRef<ResentAnswer>('WebhookResent').implement({
  description:
    'It is sent again, now or when those before it of the same payment are through, and has three days anew; it is in the audit lines of the payment.',
  fields: (t) => ({
    delivery: t.field({
      type: WebhookDeliveryType,
      description: 'The webhook, about to be sent.',
      resolve: ({ delivery }) => delivery,
    }),
  }),
})

const CODES = ['WEBHOOK_NOT_FOUND', 'INVALID_INPUT'] as const satisfies ProblemCode[]

const ResendWebhookResult = builder.unionType('ResendWebhookResult', {
  description: 'The answer to `resendWebhook`.',
  types: [WebhookResent, ...typesOf(CODES)],
  resolveType: (answer: ResendAnswer): string =>
    answer.is === 'resent' ? WebhookResent.name : problemTypes[answer.problem.code].name,
})

const ResendWebhookInput = builder
  .inputType('ResendWebhookInput', {
    description: 'A webhook to send again.',
    fields: (t) => ({
      webhookId: t.id({ description: 'The webhook: `evt_...`.' }),
      reason: t.string({ description: `Why, for whoever looks at it later. ${REASON_TEXT}` }),
    }),
  })
  .validate(z.object({ webhookId: eventIdText, reason: reasonText }))

builder.mutationField('resendWebhook', (t) =>
  t.field({
    type: ResendWebhookResult,
    authScopes: OPERATORS,
    description:
      'For operators. Sends a webhook again under the same id, delivered or not. What the payment did after it may have been told already: the receiver goes by `version`.',
    args: { input: t.arg({ type: ResendWebhookInput, description: 'Which one, and why.' }) },
    resolve: async (_, { input: { webhookId, reason } }, { gateway, client }): Promise<ResendAnswer> => {
      const delivery = await resendDelivery(gateway, webhookId, {
        id: timeOrderedId(),
        action: 'RESEND_WEBHOOK',
        actor: client,
        reason,
        detail: { webhook: eventId(webhookId.paymentId, webhookId.version) },
      })
      if (delivery !== null) return { is: 'resent', delivery }
      return { is: 'problem', problem: problem('WEBHOOK_NOT_FOUND'), replayed: false }
    },
  }),
)
