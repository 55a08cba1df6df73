import { createClient } from 'graphql-sse'

/** graphql-sse: follows the payments of an order, ORDER_ID, until one of them is captured. */

const url = process.env.GATEWAY_URL ?? 'http://localhost:4000/graphql'
const apiKey = process.env.GATEWAY_API_KEY
const client = createClient({
  url,
  headers: apiKey ? { authorization: `Bearer ${apiKey}` } : {},
  // A stream that breaks is opened again, and begins with each payment as it is by then: nothing is missed.
  retryAttempts: Infinity,
})

// Nothing but these three: the gateway refuses a body with anything else in it.
const updates = client.iterate({
  query:
    'subscription Follow($orderId: String!) { paymentUpdated(by: { orderId: $orderId }) { id state version } }',
  variables: { orderId: process.env.ORDER_ID },
  operationName: 'Follow',
})
for await (const { data, errors } of updates) {
  if (errors) throw new Error(errors[0].message)
  console.log(data.paymentUpdated.state)
  if (data.paymentUpdated.state === 'CAPTURED') break
}
client.dispose()
