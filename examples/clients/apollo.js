import { randomUUID } from 'node:crypto'
import { ApolloClient, gql, HttpLink, InMemoryCache } from '@apollo/client'
import { relayStylePagination } from '@apollo/client/utilities'

/** Apollo Client: authorizes a payment, reads the customer's history page by page, and finds the payment in its cache. */

const url = process.env.GATEWAY_URL ?? 'http://localhost:4000/graphql'
const apiKey = process.env.GATEWAY_API_KEY
const link = new HttpLink({ uri: url, headers: apiKey ? { authorization: `Bearer ${apiKey}` } : {} })

/**
 * Which types stand behind an interface or a union. Apollo cannot know it from an answer: without it `... on PaymentSuccess`
 * fits nothing, the card is charged and the answer reads `{}`. Make it when you build, and keep it as a file.
 */
async function possibleTypes() {
  const { data } = await new ApolloClient({ link, cache: new InMemoryCache() }).query({
    query: gql`
      query PossibleTypes {
        schema: __schema {
          types {
            name
            possibleTypes {
              name
            }
          }
        }
      }
    `,
  })
  const abstract = data.schema.types.filter((type) => type.possibleTypes !== null)
  return Object.fromEntries(abstract.map((type) => [type.name, type.possibleTypes.map(({ name }) => name)]))
}

const client = new ApolloClient({
  link,
  cache: new InMemoryCache({
    possibleTypes: await possibleTypes(),
    typePolicies: {
      Query: {
        fields: {
          customerHistory: relayStylePagination(['customerId', 'filter']),
          // What was read by another road is found by its id, too.
          node: (_, { args, toReference, canRead }) => {
            const payment = toReference({ __typename: 'Payment', id: args.id })
            return canRead(payment) ? payment : undefined
          },
        },
      },
    },
  }),
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
        cursor
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

const GOOD = { number: '4111111111111111', cvv: '123', expiryMonth: 12, expiryYear: 2030 }
const EMPTY = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }
const customerId = `apollo-${randomUUID()}`
async function authorize(card) {
  const input = {
    idempotencyKey: randomUUID(),
    orderId: randomUUID(),
    customerId,
    amountCents: 4_999,
    card,
  }
  const { data } = await client.mutate({ mutation: AUTHORIZE, variables: { input } })
  return data.authorizePayment
}

console.log('declined', (await authorize(EMPTY)).code)
const { currentPayment: payment } = await authorize(GOOD)
console.log('authorized', payment.state, payment.amount.formatted)

const history = client.watchQuery({ query: HISTORY, variables: { customerId } })
const { data: page } = await history.refetch()
await history.fetchMore({ variables: { after: page.customerHistory.pageInfo.endCursor } })
console.log('history', history.getCurrentResult().data.customerHistory.edges.length)

const { data } = await client.query({
  query: AGAIN,
  variables: { id: payment.id },
  fetchPolicy: 'cache-only',
})
console.log('from the cache', data.node.state)
client.stop()
