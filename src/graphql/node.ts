import {
  discrepancyId,
  eventId,
  operationId,
  paymentId,
  reconciliationId,
  transitionOfEventId,
  uuidOfDiscrepancyId,
  uuidOfOperationId,
  uuidOfPaymentId,
  uuidOfReconciliationId,
} from '../payment/ids.ts'
import type { Delivery } from '../events/deliveries.ts'
import type { Operation, Payment } from '../payment/payment.ts'
import type { Discrepancy } from '../recovery/reconcile/discrepancy.ts'
import type { Reconciliation } from '../recovery/reconcile/runs.ts'
import { EVERYONE, OPERATORS, scopesOf, STAFF } from './audience.ts'
import type { Scopes } from './audience.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { visible } from './customer.ts'
import { loaders } from './loaders.ts'
import {
  DiscrepancyType,
  OperationType,
  PaymentType,
  ReconciliationType,
  WebhookDeliveryType,
} from './nouns.ts'

/**
 * What can be asked for by its id alone. Whoever may not see a thing by the other roads is answered here as if it did
 * not exist: the audience of each is that of the query that leads to it.
 */

builder.nodeRef(PaymentType, {
  id: {
    authScopes: EVERYONE,
    description: '`pay_` and a UUID that sorts by time.',
    resolve: ({ id }: Payment) => paymentId(id),
  },
  loadManyWithoutCache: loading(EVERYONE, uuidOfPaymentId, async (id, context) =>
    visible(context, await loaders(context).payment.load(id)),
  ),
})

builder.nodeRef(OperationType, {
  id: {
    authScopes: STAFF,
    description: '`op_` and a UUID that sorts by time.',
    resolve: ({ id }: Operation) => operationId(id),
  },
  loadManyWithoutCache: loading(STAFF, uuidOfOperationId, (id, context) =>
    loaders(context).operation.load(id),
  ),
})

builder.nodeRef(WebhookDeliveryType, {
  id: {
    authScopes: STAFF,
    description:
      'The same whenever it is sent, in the header `webhook-id`: `evt_`, the UUID of the payment, `_` and the version.',
    resolve: ({ paymentId, version }: Delivery) => eventId(paymentId, version),
  },
  loadManyWithoutCache: loading(STAFF, transitionOfEventId, async ({ paymentId, version }, context) => {
    const deliveries = await loaders(context).deliveries.load(paymentId)
    return deliveries.find((delivery) => delivery.version === version) ?? null
  }),
})

builder.nodeRef(ReconciliationType, {
  id: {
    authScopes: STAFF,
    description: '`rec_` and a UUID that sorts by time.',
    resolve: ({ id }: Reconciliation) => reconciliationId(id),
  },
  loadManyWithoutCache: loading(OPERATORS, uuidOfReconciliationId, (id, context) =>
    loaders(context).reconciliation.load(id),
  ),
})

builder.nodeRef(DiscrepancyType, {
  id: {
    authScopes: STAFF,
    description: '`dis_` and a UUID that sorts by time.',
    resolve: ({ id }: Discrepancy) => discrepancyId(id),
  },
  loadManyWithoutCache: loading(OPERATORS, uuidOfDiscrepancyId, (id, context) =>
    loaders(context).discrepancy.load(id),
  ),
})

/** The loaders gather what is asked for at one time into one statement. */
function loading<Key, Row>(
  audience: Partial<Scopes>,
  keyOf: (id: string) => Key | null,
  load: (key: Key, context: Context) => Promise<Row | null>,
) {
  return async (ids: string[], context: Context): Promise<(Row | null)[]> => {
    const scopes = scopesOf(context)
    const may = Object.keys(audience).some((scope) => scopes[scope as keyof Scopes])
    return await Promise.all(
      ids.map(async (id) => {
        const key = may ? keyOf(id) : null
        return key === null ? null : await load(key, context)
      }),
    )
  }
}
