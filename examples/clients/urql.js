import { randomUUID } from 'node:crypto'
import { Client, fetchExchange, gql } from '@urql/core'
import { cacheExchange } from '@urql/exchange-graphcache'
import { relayPagination } from '@urql/exchange-graphcache/extras'

/** urql with its normalized cache: authorizes a payment, and reads the customer's history page by page. */

const url = process.env.GATEWAY_URL ?? 'http://localhost:4000/graphql'
const apiKey = process.env.GATEWAY_API_KEY
const options = {
  url,
  // It would send queries by GET, which the gateway refuses as what other sites can make a browser send.
  preferGetMethod: false,
  fetchOptions: { headers: apiKey ? { authorization: `Bearer ${apiKey}` } : {} },
}

/** What graphcache wants to know of the schema. Make it when you build, and keep it as a file. */
const SCHEMA = gql`
  query Schema {
    schema: __schema {
      queryType {
        name
      }
      mutationType {
        name
      }
      subscriptionType {
        name
      }
      types {
        kind
        name
        fields(includeDeprecated: true) {
          name
          type {
            ...Type
          }
          args {
            name
            type {
              ...Type
            }
          }
        }
        interfaces {
          name
        }
        possibleTypes {
          name
        }
      }
    }
  }
  fragment Type on __Type {
    kind
    name
    ofType {
      kind
      name
      ofType {
        kind
        name
        ofType {
          kind
          name
        }
      }
    }
  }
`
const { schema } = answered(await new Client({ ...options, exchanges: [fetchExchange] }).query(SCHEMA, {}))

/** What has no id belongs to what it is in, and is not looked for by itself. */
const isPart = ({ kind, fields }) => kind === 'OBJECT' && !fields.some(({ name }) => name === 'id')
const parts = schema.types.filter(isPart).map(({ name }) => [name, () => null])

const client = new Client({
  ...options,
  exchanges: [
    cacheExchange({
      schema: { __schema: schema },
      keys: Object.fromEntries(parts),
      resolvers: {
        Query: {
          customerHistory: relayPagination(),
          node: (_, { id }) => ({ __typename: 'Payment', id }),
        },
      },
    }),
    fetchExchange,
  ],
})

const VIEW = gql`
  fragment View on Payment {
    id
    state
    amount {
      formatted
    }
  }
`
const AUTHORIZE = gql`
  mutation Authorize($input: AuthorizePaymentInput!) {
    authorizePayment(input: $input) {
      ... on PaymentSuccess {
        currentPayment {
          ...View
        }
      }
      ... on PaymentProblem {
        code
        message
        retry
      }
    }
  }
  ${VIEW}
`
const HISTORY = gql`
  query History($customerId: String!, $after: String) {
    customerHistory(customerId: $customerId, first: 1, after: $after) {
      edges {
        node {
          ...View
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
    }
  }
  ${VIEW}
`
const AGAIN = gql`
  query Again($id: ID!) {
    node(id: $id) {
      ...View
    }
  }
  ${VIEW}
`

function answered({ data, error }) {
  if (error) throw error
  return data
}

const GOOD = { number: '4111111111111111', cvv: '123', expiryMonth: 12, expiryYear: 2030 }
const EMPTY = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
const customerId = `urql-${randomUUID()}`
async function authorize(card) {
  const input = {
    idempotencyKey: randomUUID(),
    orderId: randomUUID(),
    customerId,
    amountCents: 4_999,
    card,
  }
  return answered(await client.mutation(AUTHORIZE, { input })).authorizePayment
}

console.log('declined', (await authorize(EMPTY)).code)
const { currentPayment: payment } = await authorize(GOOD)
console.log('authorized', payment.state, payment.amount.formatted)

const first = answered(await client.query(HISTORY, { customerId })).customerHistory
const after = first.pageInfo.endCursor
const all = answered(await client.query(HISTORY, { customerId, after })).customerHistory
console.log('history', all.edges.length)

const again = answered(await client.query(AGAIN, { id: payment.id }, { requestPolicy: 'cache-only' }))
console.log('from the cache', again.node.state)
