import { randomUUID } from 'node:crypto'

/** FicMart's order service as the tests play it: GraphQL over HTTP (or straight into a server's `fetch`). */

export type Problem = {
  __typename: string
  code: string
  message: string
  retry: string
  retryAfterMs: number | null
  payment: PaymentView | null
}
export type Success = {
  __typename: string
  code?: undefined
  payment: PaymentView
  transition: { version: number; fromState: string | null; toState: string; at: string }
  replayed: boolean
}
export type PaymentView = {
  id: string
  state: string
  version: number
  amount: { cents: number }
  authorizationId: string | null
  captureId: string | null
}
export type Answered = Success | Problem

export const TEST_CARD = { number: '4111111111111111', cvv: '123', expiryMonth: 12, expiryYear: 2030 }

const RESULT = /* GraphQL */ `
  __typename
  ... on PaymentProblem { code message retry retryAfterMs payment { ...view } }
`
const VIEW = /* GraphQL */ `
  fragment view on Payment {
    id
    state
    version
    amount {
      cents
    }
    authorizationId
    captureId
  }
`
const success = (name: string) =>
  `... on ${name}Success { payment { ...view } transition { version fromState toState at } replayed }`

export type Fetch = (url: string, init: RequestInit) => Promise<Response> | Response

export function client(url: string, options: { fetch?: Fetch; headers?: Record<string, string> } = {}) {
  const send: Fetch = options.fetch ?? fetch

  async function query<Data>(document: string, variables: Record<string, unknown> = {}): Promise<Data> {
    const { data, errors } = await post<Data>(document, variables)
    if (errors !== undefined || data === undefined || data === null) {
      throw new Error(`GraphQL errors: ${JSON.stringify(errors)}`)
    }
    return data
  }

  async function post<Data>(
    document: string,
    variables: Record<string, unknown> = {},
    init: RequestInit = {},
  ) {
    const response = await send(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...options.headers },
      body: JSON.stringify({ query: document, variables }),
      ...init,
    })
    return (await response.json()) as {
      data?: Data | null
      errors?: { message: string; path?: (string | number)[]; extensions?: Record<string, unknown> }[]
    }
  }

  async function mutate(field: string, type: string, input: Record<string, unknown>): Promise<Answered> {
    const document = `mutation ($input: ${type}Input!) { result: ${field}(input: $input) { ${RESULT} ${success(type)} } } ${VIEW}`
    const { result } = await query<{ result: Answered }>(document, { input })
    return result
  }

  return {
    query,
    post,
    authorize: (input: Record<string, unknown> = {}) =>
      mutate('authorizePayment', 'AuthorizePayment', {
        idempotencyKey: randomUUID(),
        orderId: `order-${randomUUID()}`,
        customerId: 'customer-1',
        amountCents: 4_999,
        card: TEST_CARD,
        ...input,
      }),
    capture: (input: Record<string, unknown>) =>
      mutate('capturePayment', 'CapturePayment', { idempotencyKey: randomUUID(), ...input }),
    void: (input: Record<string, unknown>) =>
      mutate('voidPayment', 'VoidPayment', { idempotencyKey: randomUUID(), ...input }),
    refund: (input: Record<string, unknown>) =>
      mutate('refundPayment', 'RefundPayment', { idempotencyKey: randomUUID(), ...input }),
  }
}
export type Client = ReturnType<typeof client>

/** The success in an answer; a test that meant one and got a problem says which. */
export function succeeded(answer: Answered): Success {
  if (answer.code !== undefined) throw new Error(`expected success, got ${answer.code}: ${answer.message}`)
  return answer
}

export async function authorized(by: Client, input: Record<string, unknown> = {}): Promise<PaymentView> {
  return succeeded(await by.authorize(input)).payment
}

export async function captured(by: Client, input: Record<string, unknown> = {}): Promise<PaymentView> {
  const { id } = await authorized(by, input)
  return succeeded(await by.capture({ paymentId: id })).payment
}
