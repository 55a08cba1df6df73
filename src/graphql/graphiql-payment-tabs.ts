/**
 * GraphiQL's tabs about one payment: taking it (for developers), and what became of it. Inputs are written into the
 * documents: variables and headers of a first default tab are neither shown nor sent (graphql/graphiql#3392). A tab is
 * named by its first operation. Nothing in here may hold `</script>`: it is put into the page unescaped.
 */

/** `fresh` is new with each page, so that nobody's first payment is somebody else's replay. */
export const takeAPayment = (fresh: string) => [authorize(fresh), followUps(fresh)]

/** Few enough for a window of 1,280 pixels, with those of the desk beside them. */
export const lookIntoIt = (fresh: string) => [
  [order(fresh), shipment(fresh), operation(fresh), bankCalls(fresh)].join('\n'),
  CUSTOMER,
  LIVE,
]

/** The bank's test card with $10,000. */
const authorize = (fresh: string) => `# Hold $49.99 on a test card. Run it twice: the
# second answer is a replay. A new payment takes a
# new idempotencyKey and a new orderId.
mutation Authorize {
  authorizePayment(
    input: {
      idempotencyKey: "try-authorize-${fresh}"
      orderId: "order-${fresh}"
      customerId: "customer-1"
      amountCents: 4999
      card: {
        number: "4111 1111 1111 1111"
        cvv: "123"
        expiryMonth: 12
        expiryYear: 2030
      }
    }
  ) {
    __typename
    ... on PaymentSuccess {
      replayed
      currentPayment {
        id
        state
        amount { formatted }
        authorizationExpiresAt
      }
    }
    ... on PaymentProblem {
      code
      message
      retry
      payment { id state }
    }
    ... on InvalidInput { fields { path reason } }
  }
}
`

const followUps = (fresh: string) => `# What follows; choose under the Run button. It is
# done with the payment that you authorized last in
# this window: "pay_..." is sent as its id. For
# another one put that one's id.

# The goods leave: charge it.
mutation Capture {
  capturePayment(
    input: {
      paymentId: "pay_..."
      idempotencyKey: "try-capture-${fresh}-pay_..."
      expectedAmountCents: 4999
    }
  ) {
    ...done
  }
}

# The order is cancelled before that: release it.
mutation Void {
  voidPayment(
    input: {
      paymentId: "pay_..."
      idempotencyKey: "try-void-${fresh}-pay_..."
    }
  ) {
    ...done
  }
}

# The goods come back: give the money back.
mutation Refund {
  refundPayment(
    input: {
      paymentId: "pay_..."
      idempotencyKey: "try-refund-${fresh}-pay_..."
    }
  ) {
    ...done
  }
}

fragment done on OperationResult {
  __typename
  ... on PaymentSuccess {
    replayed
    currentPayment { id state }
    transition { fromState toState at bankAt }
  }
  ... on PaymentProblem {
    code
    message
    retry
    payment { id state }
  }
  ... on InvalidInput { fields { path reason } }
}
`

const order = (fresh: string) => `# An order; choose under the Run button. Its
# payments, and what can be done with them.
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

const CUSTOMER = `# A customer's payments with their whole history,
# newest first.
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

const LIVE = `# Every change of a customer's payments, as it
# happens. Run it, and pay in another window.
subscription Live {
  paymentUpdated(by: { customerId: "customer-1" }) {
    id
    orderId
    state
    version
    amount { formatted }
    transitions { version fromState toState at actor }
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

const operation = (fresh: string) => `# What became of one request, by its key. Another
# client's: add its name, client: "order-service".
query Operation {
  operation(idempotencyKey: "try-authorize-${fresh}") {
    id
    kind
    status
    code
    createdAt
    resolvedAt
    attempts
    ambiguous
    result {
      __typename
      ... on PaymentSuccess { transition { version toState at } }
      ... on PaymentProblem { code message retry }
    }
    payment { id orderId state operationInFlight { id kind } }
  }
}
`

const bankCalls = (fresh: string) => `# Every exchange with the bank about an order's
# payments. For one of them alone: payment(by: { id:
# "pay_..." }).
query BankCalls {
  paymentsByOrder(orderId: "order-${fresh}") {
    id
    state
    authorizationId
    captureId
    voidId
    refundId
    operations {
      kind
      status
      client
      idempotencyKey
      sentAt
      bankCalls {
        attempt
        purpose
        endpoint
        startedAt
        durationMs
        httpStatus
        errorCode
        replayed
        conclusion
      }
    }
  }
}
`
