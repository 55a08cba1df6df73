import type { BankRequest } from '../bank/bank.ts'
import type { Card } from '../payment/card.ts'
import type { Operation, OperationKind, Payment } from '../payment/payment.ts'

/**
 * The operations as data: what each one asks of the bank. Where it takes a payment is in payment/payment.ts (MOVES);
 * the bank's answers read alike for all of them.
 */
export const BANK_REQUESTS: Record<OperationKind, (about: About) => BankRequest> = {
  AUTHORIZE: ({ payment, card }) => ({
    endpoint: 'authorizations',
    body: () => {
      if (card === null)
        throw new Error('an authorize is sent by the request that brought its card, and never again')
      return { ...card.forBank(), amount: payment.amountCents }
    },
    expect: { amountCents: payment.amountCents, parentId: null },
  }),
  CAPTURE: ({ payment }) => ({
    endpoint: 'captures',
    body: () => ({ authorization_id: known(payment.authorizationId), amount: payment.amountCents }),
    expect: { amountCents: payment.amountCents, parentId: known(payment.authorizationId) },
  }),
  VOID: ({ payment }) => voidOf(known(payment.authorizationId)),
  EXPIRE: ({ payment }) => voidOf(known(payment.authorizationId)),
  RELEASE: ({ operation }) =>
    voidOf(known('authorizationId' in operation.input ? operation.input.authorizationId : null)),
  REFUND: ({ payment }) => ({
    endpoint: 'refunds',
    body: () => ({ capture_id: known(payment.captureId), amount: payment.amountCents }),
    expect: { amountCents: payment.amountCents, parentId: known(payment.captureId) },
  }),
}

type About = { operation: Operation; payment: Payment; card: Card | null }

function voidOf(authorizationId: string): BankRequest {
  return {
    endpoint: 'voids',
    body: () => ({ authorization_id: authorizationId }),
    expect: { amountCents: null, parentId: authorizationId },
  }
}

/** The claim has made sure of the ids; were one missing, a request without it must never leave. */
function known(id: string | null): string {
  if (id === null) throw new Error('the receipt lacks the id at the bank that this operation needs')
  return id
}

/** The gateway's own operations are numbered by their keys (recovery/agenda.ts): how many came before, for the same. */
export function vainTriesBefore({ client, idempotencyKey }: Operation): number {
  return client === 'gateway' ? Number(/\d+$/.exec(idempotencyKey)?.[0] ?? 0) : 0
}
