/** What the order service asks: small documents, always the same. */

const RESULT = (name: string) =>
  `__typename ... on ${name}Success { replayed payment { id state version authorizationId } transition { toState at } } ` +
  '... on PaymentProblem { code message retry retryAfterMs }'

const mutation = (field: string, name: string) =>
  `mutation ${name}($input: ${name}Input!) { result: ${field}(input: $input) { ${RESULT(name)} } }`

export const DOCUMENTS = {
  authorize: mutation('authorizePayment', 'AuthorizePayment'),
  capture: mutation('capturePayment', 'CapturePayment'),
  refund: mutation('refundPayment', 'RefundPayment'),
} as const

const PAYMENT = 'id orderId customerId state amount { cents } transitions { version fromState toState at }'

/** The size of a page of history, with its transitions. */
export const PAGE = 20

export const READS = {
  payment: `query Payment($id: ID!) { payment(by: { id: $id }) { ${PAYMENT} } }`,
  paymentsByOrder: `query PaymentsByOrder($orderId: String!) { paymentsByOrder(orderId: $orderId) { ${PAYMENT} } }`,
  customerHistory: `query CustomerHistory($customerId: String!) {
    customerHistory(customerId: $customerId, first: ${PAGE}) { edges { node { ${PAYMENT} } } pageInfo { hasNextPage endCursor } } }`,
} as const
