import { randomUUID } from 'node:crypto'
import type { GraphiQLOptions } from 'graphql-yoga'
import type { Role } from '../access/who.ts'
import { PREFLIGHTED } from './gate.ts'

/**
 * GraphiQL with a few requests ready to run. Its inputs are written into the documents: variables and headers of a first
 * default tab are neither shown nor sent (graphql/graphiql#3392). Nothing here may hold `</script>`: it is put into the
 * page unescaped. The keys are new with each page, so that nobody's first payment is somebody else's replay.
 */
export function graphiqlOptions(role: Role = 'dev'): GraphiQLOptions {
  const fresh = randomUUID().slice(0, 8)
  const payments = role === 'dev' ? [authorize(fresh), capture(fresh)] : []
  return {
    title: 'FicMart payment gateway',
    // It asks for what is live by GET.
    additionalHeaders: { [PREFLIGHTED]: '1' },
    defaultTabs: [...payments, order(fresh), CUSTOMER, REVIEW, shipment(fresh)].map((query) => ({ query })),
  }
}

/** The bank's test card with $10,000. */
const authorize = (
  fresh: string,
) => `# Hold $49.99 on a test card. Run it twice: the second answer is a replay.
# A new payment takes a new idempotencyKey, and a new order.
mutation Authorize {
  authorizePayment(
    input: {
      idempotencyKey: "try-authorize-${fresh}"
      orderId: "order-${fresh}"
      customerId: "customer-1"
      amountCents: 4999
      card: { number: "4111 1111 1111 1111", cvv: "123", expiryMonth: 12, expiryYear: 2030 }
    }
  ) {
    __typename
    ... on PaymentSuccess { replayed payment { id state amount { formatted } authorizationExpiresAt } }
    ... on PaymentProblem { code message retry retryAfterMs payment { id state } }
    ... on InvalidInput { fields { path reason } }
  }
}
`

const capture = (fresh: string) => `# Charge it: put the id of the payment that you authorized.
mutation Capture {
  capturePayment(
    input: { idempotencyKey: "try-capture-${fresh}", paymentId: "pay_...", expectedAmountCents: 4999 }
  ) {
    __typename
    ... on PaymentSuccess { replayed payment { id state capturedAt } transition { fromState toState at bankAt } }
    ... on PaymentProblem { code message retry retryAfterMs payment { id state } }
    ... on InvalidInput { fields { path reason } }
  }
}
`

const order = (fresh: string) => `# The payments of an order, and what can be done with them.
query Order {
  paymentsByOrder(orderId: "order-${fresh}") {
    id
    state
    amount { formatted }
    card { brand last4 }
    operationInFlight { kind createdAt }
    allowedOperations { operation allowed blockedBy }
    transitions { version fromState toState at actor }
  }
}
`

const CUSTOMER = `# A customer's payments with their whole history, newest first.
query Customer {
  customerHistory(customerId: "customer-1", first: 10) {
    edges {
      node {
        id
        orderId
        state
        amount { formatted }
        transitions { version fromState toState at cause actor }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}
`

const REVIEW = `# For operators: what no rule could settle, with every exchange with the bank.
query InReview {
  payments(filter: { needsReview: true }) {
    edges {
      node {
        id
        orderId
        state
        review { reason since evidence { operationId reason facts { name value } } }
        operations {
          kind
          status
          code
          attempts
          ambiguous
          bankCalls { attempt purpose endpoint startedAt durationMs httpStatus errorCode replayed conclusion }
        }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}
`

const shipment = (fresh: string) => `# May the goods of an order leave?
query Shipment {
  shipmentCheck(orderId: "order-${fresh}", amountCents: 4999) {
    mayShip
    reason
    explanation
    holdExpiresAt
    payments { mayShip reason payment { id state amount { formatted } } }
  }
}
`
