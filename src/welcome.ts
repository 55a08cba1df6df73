/** What `npm start` says when it is ready: where everything is, and a first payment to paste. */
export function welcome(places: {
  url: string
  bankUrl: string
  databaseUrl: string
  isSimulated: boolean
  isEmbedded: boolean
  isOpen: boolean
  startedInMs: number
}): string {
  const { url, bankUrl, databaseUrl, isSimulated, isEmbedded, isOpen, startedInMs } = places
  const key = isOpen ? '' : " -H 'authorization: Bearer YOUR_KEY'"
  return `
  FicMart payment gateway, ready in ${(startedInMs / 1000).toFixed(1)} s

    GraphiQL    ${url}/graphql${isOpen ? '' : "   (any name, and an operator's key as the password)"}
    bank        ${bankUrl}${isSimulated ? '/docs   (simulated: it fails at random, and on demand)' : ''}
    database    ${isEmbedded ? `${databaseUrl}   (embedded)` : 'by DATABASE_URL'}
    access      ${isOpen ? 'open: everyone on this machine is `dev` and may do everything' : 'by API key'}

  A first payment, to paste into another terminal:

    curl -s ${url}/graphql -H 'content-type: application/json'${key} -d '{"query":"mutation { authorizePayment(input: { idempotencyKey: \\"first-${Date.now()}\\", orderId: \\"order-${Date.now()}\\", customerId: \\"customer-1\\", amountCents: 4999, card: { number: \\"4111 1111 1111 1111\\", cvv: \\"123\\", expiryMonth: 12, expiryYear: 2030 } }) { __typename ... on AuthorizePaymentSuccess { currentPayment { id state amount { formatted } } } ... on PaymentProblem { code message retry } } }"}'

  Ctrl-C stops all of it; the receipts stay.

`
}
