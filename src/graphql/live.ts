import { z } from 'zod'
import { follow, TooManyFollowers } from '../events/live.ts'
import type { Payment } from '../payment/payment.ts'
import { NEWEST_FOLLOWED } from '../payment/reads.ts'
import type { Subject } from '../payment/reads.ts'
import { accepts, STREAMS } from './accept.ts'
import { EVERYONE } from './audience.ts'
import { builder } from './builder.ts'
import { isVisible } from './customer.ts'
import { ApiError } from './errors.ts'
import { paymentIdText, VISIBLE_TEXT, visibleText } from './input-rules.ts'
import { PaymentType } from './nouns.ts'

builder.subscriptionType({
  description:
    'What happens, as it happens, as server-sent events (`Accept: text/event-stream`). A stream has no end: it breaks off when the gateway restarts (subscribe again, and nothing is missed), and when its API key is removed or its token expires. `complete` comes only after `errors` that refuse the subscription.',
})

const PaymentUpdatedBy = builder.inputType('PaymentUpdatedBy', {
  isOneOf: true,
  description: 'Which payments to follow: exactly one of these. Null counts as left out.',
  fields: (t) => ({
    paymentId: t.id({ required: false, description: 'This payment, `pay_...`.' }),
    orderId: t.string({
      required: false,
      description: `The payments of FicMart's order, those to come included; the newest ${NEWEST_FOLLOWED}. ${VISIBLE_TEXT}`,
    }),
    customerId: t.string({
      required: false,
      description: `The payments of FicMart's customer, those to come included; the newest ${NEWEST_FOLLOWED}. ${VISIBLE_TEXT}`,
    }),
  }),
})

builder.subscriptionField('paymentUpdated', (t) =>
  t.field({
    type: PaymentType,
    authScopes: EVERYONE,
    description:
      'Each payment as it is now, then again whenever its `version` has grown. Of several changes in quick succession only the last may be told: `transitions` has them all.',
    args: t.validate(
      { by: t.arg({ type: PaymentUpdatedBy, description: 'Which payments.' }) },
      z.object({
        by: z.object({
          paymentId: paymentIdText.nullish(),
          orderId: visibleText.nullish(),
          customerId: visibleText.nullish(),
        }),
      }),
    ),
    subscribe: (_, { by }, context) => {
      const { gateway, client, role, request, until } = context
      if (!accepts(request, STREAMS)) throw new ApiError('NOT_ACCEPTABLE', AS_STREAM)
      const isFor = (payment: Payment) => isVisible(context, payment)
      // A stream would outlive what opened it. (From Node 26 on, AbortSignal.any refuses a request's signal.)
      const gone = [request.signal, until()]
      try {
        const [atMost, leaves] = [STREAMS_MAX[role], role === 'customer' ? LEFT_BY_CUSTOMERS : 0]
        return follow(gateway, { client, subject: subjectOf(by), atMost, leaves, isFor, gone })
      } catch (error) {
        if (!(error instanceof TooManyFollowers)) throw error
        throw new ApiError('TOO_MANY_SUBSCRIPTIONS', TOO_MANY)
      }
    },
    resolve: (payment) => payment,
  }),
)

const AS_STREAM = 'A subscription is answered as a stream: ask for text/event-stream in the header Accept.'
const TOO_MANY =
  'Too many subscriptions are open. Close some, or follow a customer or an order instead of each payment.'

/** Of one client, in this process: so that none, least of all a customer, takes the places of all. */
const STREAMS_MAX = { service: 200, ops: 200, dev: 200, customer: 5 }

/** Of the places of all: customers are many, and each has some. */
const LEFT_BY_CUSTOMERS = 1_000

type By = {
  paymentId?: string | null | undefined
  orderId?: string | null | undefined
  customerId?: string | null | undefined
}

function subjectOf({ paymentId, orderId, customerId }: By): Subject {
  if (paymentId != null) return { by: 'payment', id: paymentId }
  if (orderId != null) return { by: 'order', id: orderId }
  if (customerId != null) return { by: 'customer', id: customerId }
  throw new Error('a @oneOf input has one field')
}
