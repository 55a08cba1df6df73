import { randomUUID } from 'node:crypto'
import cardTypes from 'credit-card-type'
import { describe, expect, it } from 'vitest'
import { card as cardRule } from '../../src/graphql/input-rules.ts'
import { brandOf } from '../../src/payment/card-number.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** What is accepted as input and what is not, and that nothing is stored or sent of what is not. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })

const AUTHORIZE = /* GraphQL */ `
  mutation ($input: AuthorizePaymentInput!) {
    authorizePayment(input: $input) {
      __typename
      ... on PaymentSuccess {
        payment {
          amount {
            cents
          }
          card {
            brand
            last4
          }
          operations {
            idempotencyKey
          }
        }
      }
      ... on PaymentProblem {
        code
      }
      ... on InvalidInput {
        fields {
          path
          reason
        }
      }
    }
  }
`
type Authorized = {
  authorizePayment: {
    __typename: string
    code?: string
    fields?: { path: string; reason: string }[]
    payment?: {
      amount: { cents: number }
      card: { brand: string; last4: string }
      operations: { idempotencyKey: string }[]
    }
  }
}

/** Sends the input's text as it is, so that JSON's own forms of a number get there. */
async function send(inputText: string) {
  return await client.post<Authorized>(
    '',
    {},
    {
      body: `{ "query": ${JSON.stringify(AUTHORIZE)}, "variables": { "input": ${inputText} } }`,
    },
  )
}

async function authorize(input: Record<string, unknown>) {
  const { data, errors } = await send(
    JSON.stringify({
      idempotencyKey: randomUUID(),
      orderId: randomUUID(),
      customerId: 'customer-1',
      amountCents: 100,
      card: TEST_CARD,
      ...input,
    }),
  )
  if (data === undefined || data === null) throw new Error(JSON.stringify(errors))
  return data.authorizePayment
}

/** The fields that are refused; nothing may be stored or sent of such an input. */
async function refused(input: Record<string, unknown>) {
  const asked = bank.received.length
  const before = await database.sql`select count(*) from operations`
  const { code, fields } = await authorize(input)
  expect(code).toBe('INVALID_INPUT')
  expect(bank.received).toHaveLength(asked)
  expect(await database.sql`select count(*) from operations`).toEqual(before)
  return fields
}
const because = (path: string, reason: string) => [
  { path, reason: expect.stringContaining(reason) as string },
]

describe('an amount', () => {
  const withAmount = (amount: string) =>
    send(
      JSON.stringify({
        idempotencyKey: randomUUID(),
        orderId: randomUUID(),
        customerId: 'customer-1',
        amountCents: 0,
        card: TEST_CARD,
      }).replace('"amountCents":0', `"amountCents":${amount}`),
    )

  it.each([
    ['1', 1],
    ['100.0', 100],
    ['1e3', 1_000],
    ['9999', 9_999],
  ])('of %s is %d cents', async (amount, cents) => {
    expect((await withAmount(amount)).data?.authorizePayment).toMatchObject({
      payment: { amount: { cents } },
    })
  })

  it.each(['0', '-1', '-0', '100000000', '2147483648', '9007199254740991', '-9007199254740991'])(
    'of %s is out of range',
    async (amount) => {
      expect((await withAmount(amount)).data?.authorizePayment).toMatchObject({
        code: 'INVALID_INPUT',
        fields: [{ path: 'input.amountCents', reason: 'must be 1 to 99999999 cents' }],
      })
    },
  )

  it.each(['1.5', '"100"', '9007199254740992', '1e400', 'true', 'null', '[100]', '{"cents":100}', '""'])(
    'of %s is none',
    async (amount) => {
      const { data, errors } = await withAmount(amount)
      expect(data).toBeUndefined()
      expect(errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }])
      expect(errors?.[0]?.message).toMatch(
        /^\$input\.amountCents: Expected|^\$input: Field "amountCents" of required/,
      )
    },
  )

  it.each(['1.5', '1e3', '"100"', '9007199254740992', 'A', 'true'])(
    'of %s is none in a document',
    async (amount) => {
      const { errors } = await client.post(
        `{ shipmentCheck(orderId: "1", amountCents: ${amount}) { reason } }`,
      )
      expect(errors).toMatchObject([{ message: expect.stringMatching(/^Expected Cents/) as string }])
    },
  )

  it('is limited in the guard of a capture too', async () => {
    const { id } = await authorized(client)
    expect(await client.capture({ paymentId: id, expectedAmountCents: 0 })).toMatchObject({
      code: 'INVALID_INPUT',
    })
  })
})

describe('a key, an order and a customer', () => {
  const good = [
    'k',
    'x'.repeat(255),
    '😀'.repeat(255),
    '🛒-1',
    'ключ 7',
    "Robert'); DROP TABLE payments;--",
    'a b',
  ]
  it.each(good)('may be %j', async (text) => {
    const answer = await authorize({ idempotencyKey: text, orderId: text, customerId: text })
    expect(answer.payment?.operations).toEqual([{ idempotencyKey: text }])
  })

  const bad: [string, string, string][] = [
    ['nothing', '', 'must not be empty'],
    ['256 characters', 'x'.repeat(256), 'must have at most 255 characters'],
    ['256 emoji', '😀'.repeat(256), 'must have at most 255 characters'],
    ['10 kB', 'x'.repeat(10_000), 'must have at most 255 characters'],
    ['a line break', 'a\nb', 'must not have line breaks'],
    ['a line break at the end', 'a\n', 'must not have line breaks'],
    ['a NUL', 'a\0b', 'must not have line breaks, control'],
    ['half a surrogate pair', 'a\ud83d', 'invisible characters'],
    ['bytes that are not UTF-8', 'Jubil\ufffd', 'must be UTF-8'],
    ['a zero-width space', 'a\u200bb', 'invisible characters'],
    ['a change of direction', 'a\u202eb', 'invisible characters'],
    ['a line separator', 'a\u2028b', 'must not have line breaks'],
    ['only a blank', ' ', 'must not begin or end with a blank'],
    ['a blank before', ' a', 'must not begin or end with a blank'],
    ['an unbreakable blank behind', 'a\u00a0', 'must not begin or end with a blank'],
  ]
  it.each(bad)('may not be %s', async (_, text, reason) => {
    expect(await refused({ idempotencyKey: text })).toEqual(because('input.idempotencyKey', reason))
    expect(await refused({ orderId: text })).toEqual(because('input.orderId', reason))
    expect(await refused({ customerId: text })).toEqual(because('input.customerId', reason))
  })
})

describe('a card', () => {
  it.each([
    ['4111111111111111', 'visa', '1111'],
    ['4111 1111 1111 1111', 'visa', '1111'],
    ['4111-1111-1111-1111', 'visa', '1111'],
    ['4222222222222', 'visa', '2222'],
    ['5555555555554444', 'mastercard', '4444'],
    ['378282246310005', 'american-express', '0005'],
    ['6304000000000000000', 'maestro', '0000'],
    ['0000000000000000', 'unknown', '0000'],
  ])('%s is a %s card that ends in %s', (number, brand, last4) => {
    expect(cardRule.parse({ ...TEST_CARD, number })).toMatchObject({ brand, last4 })
  })

  it('is of the brand that the library names, at both ends of each of its ranges', () => {
    const ends = Object.values(cardTypes.types)
      .flatMap((brand) => cardTypes.getTypeInfo(brand).patterns)
      .flatMap((pattern) => [pattern].flat().map(Number))
      .flatMap((end) => [end - 1, end, end + 1])
    expect(ends.length).toBeGreaterThan(500)
    for (const end of ends)
      for (const rest of ['0', '9']) {
        const number = String(end).padEnd(16, rest)
        expect([number, brandOf(number)]).toEqual([number, cardTypes(number)[0]?.type ?? 'unknown'])
      }
  })

  it('reaches the bank without its blanks', async () => {
    expect(await authorize({ card: { ...TEST_CARD, number: ' 4111-1111 1111-1111 ' } })).toMatchObject({
      payment: { card: { brand: 'visa', last4: '1111' } },
    })
  })

  it.each(['idempotencyKey', 'orderId', 'customerId'])(
    'may not be in the %s, which is stored',
    async (name) => {
      for (const text of [TEST_CARD.number, 'order 4111-1111 1111-1111/2', '4111.1111\u20111111_\uff11111']) {
        expect(await refused({ [name]: text })).toEqual(
          because(`input.${name}`, "must not hold the card's number"),
        )
      }
      // A number as long as a card's is no card while its check digit is wrong.
      expect(await authorize({ [name]: `4242424242424241-${randomUUID()}` })).toMatchObject({
        __typename: 'AuthorizePaymentSuccess',
      })
    },
  )

  it.each([
    ['411111111111', '13 to 19 digits'],
    ['41111111111111111111', '13 to 19 digits'],
    ['4111 1111 1111 111x', '13 to 19 digits'],
    ['٤١١١١١١١١١١١١١١١', '13 to 19 digits'],
    ['4111.1111.1111.1111', '13 to 19 digits'],
    ['', '13 to 19 digits'],
    ['4111111111111112', 'a digit is wrong or missing (Luhn)'],
    ['4111111111111', 'a digit is wrong or missing (Luhn)'],
  ])('number may not be %j', async (number, reason) => {
    expect(await refused({ card: { ...TEST_CARD, number } })).toEqual(because('input.card.number', reason))
  })

  it.each(['12', '12345', '12a', '', ' 123', '١٢٣'])('CVV may not be %j', async (cvv) => {
    expect(await refused({ card: { ...TEST_CARD, cvv } })).toEqual(
      because('input.card.cvv', 'must be 3 or 4 digits'),
    )
  })

  it.each([0, 13, -1])('month may not be %d', async (expiryMonth) => {
    expect(await refused({ card: { ...TEST_CARD, expiryMonth } })).toEqual(
      because('input.card.expiryMonth', 'must be 1 to 12'),
    )
  })

  it.each([30, 1999, 2100, 20_300])('year may not be %d', async (expiryYear) => {
    expect(await refused({ card: { ...TEST_CARD, expiryYear } })).toEqual(
      because('input.card.expiryYear', 'four digits'),
    )
  })
})

describe("a payment's id", () => {
  const uuid = randomUUID()
  it.each([
    uuid,
    `op_${uuid}`,
    `pay_${uuid.toUpperCase()}X`,
    `pay_${uuid} `,
    'pay_',
    '',
    '1',
    `pay_${uuid}'--`,
  ])('may not be %j', async (paymentId) => {
    const asks = [client.capture, client.void, client.refund]
    for (const ask of asks) expect(await ask({ paymentId })).toMatchObject({ code: 'INVALID_INPUT' })
    const { errors } = await client.post('query ($id: ID!) { payment(by: { id: $id }) { id } }', {
      id: paymentId,
    })
    expect(errors).toMatchObject([
      {
        extensions: {
          code: 'INVALID_INPUT',
          fields: [{ path: 'by.id', reason: expect.any(String) as string }],
        },
      },
    ])
  })
})

describe('the arguments of a query', () => {
  it.each([
    ['customerHistory(customerId: "", first: 0, after: "x")', ['customerId', 'first', 'after']],
    ['customerHistory(customerId: "1", first: 101)', ['first']],
    [
      'payments(first: -1, filter: { orderId: "", customerId: "\\u0000" })',
      ['filter.orderId', 'filter.customerId', 'first'],
    ],
    ['payments(after: "AAAAAAAAAAAAAAAAAAAAAB")', ['after']],
    ['payments(after: "")', ['after']],
    ['paymentsByOrder(orderId: "\\n")', ['orderId']],
    ['operation(idempotencyKey: "", client: "")', ['idempotencyKey', 'client']],
    ['shipmentCheck(orderId: "", amountCents: 0)', ['orderId', 'amountCents']],
    ['payment(by: { bankReference: "" })', ['by.bankReference']],
  ])('%s tells what is wrong', async (field, paths) => {
    const { errors } = await client.post<unknown>(`{ ${field} { __typename } }`)
    const [error] = errors ?? []
    expect(error?.extensions?.['code']).toBe('INVALID_INPUT')
    const fields = error?.extensions?.['fields'] as { path: string; reason: string }[]
    expect(fields.map(({ path }) => path).toSorted()).toEqual(paths.toSorted())
    for (const { path, reason } of fields) expect(error?.message).toContain(`${path}: ${reason}`)
  })

  it.each(['{}', '{ id: "1", bankReference: "2" }', '{ id: null }'])(
    'payment(by: %s) is refused',
    async (by) => {
      const { errors } = await client.post(`{ payment(by: ${by}) { id } }`)
      expect(errors).toMatchObject([{ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } }])
    },
  )

  it.each([
    '2026-11-24',
    '2026-11-24T10:00:00',
    'yesterday',
    '2026-13-24T10:00:00Z',
    '1',
    '2026-02-30T10:00:00Z',
    '0000-01-01T00:00:00Z',
    '9999-12-31T23:59:59-12:00',
  ])('a moment may not be %j', async (moment) => {
    const { errors } = await client.post(
      'query ($moment: DateTime) { payments(filter: { createdAfter: $moment }) { __typename } }',
      { moment },
    )
    expect(errors).toMatchObject([
      { message: expect.stringMatching(/^\$….*Expected DateTime: RFC 3339/) as string },
    ])
  })
})

it('twenty mistakes in one variable are enough', async () => {
  const document = 'query ($s: [PaymentState!]) { payments(filter: { states: $s }) { __typename } }'
  const { errors } = await client.post(document, { s: Array.from({ length: 10_000 }, () => 'X') })
  expect(errors).toHaveLength(20)
})
