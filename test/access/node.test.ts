import { isInterfaceType, isObjectType } from 'graphql'
import { beforeAll, describe, expect, it } from 'vitest'
import { switchRecording } from '../../src/events/deliveries.ts'
import { schema } from '../../src/graphql/schema.ts'
import { timeOrderedId } from '../../src/payment/ids.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { ASKER_NAMES, ASKERS, CHECKOUT, clientFor } from './askers.ts'
import type { Asker } from './askers.ts'

/** `node` and `nodes`: everyone x everything that has an id of its own. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const dev = clientFor(gateway, ASKERS.dev)

const MAY: Record<string, readonly Asker[]> = {
  Payment: ['service', 'ops', 'customer', 'dev'],
  Operation: ['service', 'ops', 'dev'],
  WebhookDelivery: ['service', 'ops', 'dev'],
  Reconciliation: ['ops', 'dev'],
  Discrepancy: ['ops', 'dev'],
}
const TYPES = Object.keys(MAY)
const ids: Record<string, string> = {}
const none = () => {
  const uuid = timeOrderedId()
  const of = { Payment: `pay_${uuid}`, Operation: `op_${uuid}`, WebhookDelivery: `evt_${uuid}_1` }
  return { ...of, Reconciliation: `rec_${uuid}`, Discrepancy: `dis_${uuid}` } as Record<string, string>
}

beforeAll(async () => {
  await switchRecording(gateway, true)
  const { id } = await authorized(clientFor(gateway, ASKERS.service), CHECKOUT)
  type Found = { payment: { operations: { id: string }[]; transitions: { delivery: { id: string } }[] } }
  const { payment } = await dev.query<Found>(
    `{ payment(by: { id: "${id}" }) { operations { id } transitions { delivery { id } } } }`,
  )
  const begun = await dev.query<{ it: { reconciliation: { id: string } } }>(
    'mutation { it: startReconciliation(input: {}) { ... on ReconciliationAccepted { reconciliation { id } } } }',
  )
  const discrepancy = timeOrderedId()
  await database.sql`
    insert into discrepancies (id, reconciliation_id, kind, bank_reference, bank)
    values (${discrepancy}, ${begun.it.reconciliation.id.slice(4)}, 'ORPHAN_HOLD', 'auth_1', '{}')`
  Object.assign(ids, {
    Payment: id,
    Operation: payment.operations[0]?.id,
    WebhookDelivery: payment.transitions[1]?.delivery.id,
    Reconciliation: begun.it.reconciliation.id,
    Discrepancy: `dis_${discrepancy}`,
  })
})

const NODE = 'query ($id: ID!) { node(id: $id) { __typename id } }'
const NODES = 'query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }'

it('the table has each type that is a Node', () => {
  const node = schema.getType('Node')
  if (!isInterfaceType(node)) throw new Error('there is no Node')
  expect(
    schema
      .getPossibleTypes(node)
      .map(({ name }) => name)
      .toSorted(),
  ).toEqual(TYPES.toSorted())
})

it('what else has an id says where it is found', () => {
  const others = Object.values(schema.getTypeMap()).filter(
    (type) => isObjectType(type) && 'id' in type.getFields() && !TYPES.includes(type.name),
  )
  // Exchanges with the bank are read with their operation.
  expect(others.map(({ name }) => name)).toEqual(['BankCall'])
})

describe.each(ASKER_NAMES)('%s', (asker) => {
  const by = clientFor(gateway, ASKERS[asker])

  it.each(TYPES)('asks for a %s', async (type) => {
    const id = ids[type] ?? ''
    const found = await by.post(NODE, { id })
    const missing = await by.post(NODE, { id: none()[type] })
    expect(missing).toEqual({ data: { node: null } })
    const seen = MAY[type]?.includes(asker) === true
    expect(found).toEqual(seen ? { data: { node: { __typename: type, id } } } : missing)
  })

  it('asks for several, and has them in their order', async () => {
    const asked = [...TYPES, ...TYPES.toReversed()]
    const { data, errors } = await by.post(NODES, {
      ids: [...asked.map((type) => ids[type]), none()['Payment']],
    })
    expect(errors).toBeUndefined()
    const seen = asked.map((type) =>
      MAY[type]?.includes(asker) === true ? { __typename: type, id: ids[type] } : null,
    )
    expect(data).toEqual({ nodes: [...seen, null] })
  })

  it('is told which id is none', async () => {
    const reason = expect.stringMatching(/^must be an id of this API/) as string
    for (const id of [
      '',
      'x',
      'UGF5bWVudDox',
      'pay_1',
      `call_${timeOrderedId()}`,
      `op_${timeOrderedId()} `,
    ]) {
      const one = await by.post(NODE, { id })
      expect(one.data).toEqual({ node: null })
      expect(one.errors).toMatchObject([
        { path: ['node'], extensions: { code: 'INVALID_INPUT', fields: [{ path: 'id', reason }] } },
      ])
      const several = await by.post(NODES, { ids: [ids['Payment'], id] })
      expect(several.errors).toMatchObject([
        { path: ['nodes'], extensions: { code: 'INVALID_INPUT', fields: [{ path: 'ids.1', reason }] } },
      ])
    }
  })
})

it('a Node is refetched with fields of its own, as Relay does', async () => {
  const document = `query ($id: ID!) { node(id: $id) { __typename ... on Payment { state transitions { toState } } id } }`
  expect(await dev.query(document, { id: ids['Payment'] })).toMatchObject({
    node: { __typename: 'Payment', state: 'AUTHORIZED', transitions: [{ toState: 'PENDING' }, {}] },
  })
})

it('a customer cannot get by a Node at what is not theirs to ask for', async () => {
  for (const asker of ['customer', 'stranger'] as const) {
    const { data, errors } = await clientFor(gateway, ASKERS[asker]).post(
      'query ($id: ID!) { node(id: $id) { ... on Operation { client } } }',
      { id: ids['Operation'] },
    )
    expect([data, errors?.[0]?.extensions?.['code']]).toEqual([undefined, 'FORBIDDEN'])
  }
})

it('many ids cost what they are worth, and a statement for each type', async () => {
  const statements: string[] = []
  Object.assign(gateway.sql.options, { debug: (_: number, statement: string) => statements.push(statement) })
  const some = (count: number) => Array.from({ length: count }, () => Object.values(none())).flat()
  expect(await dev.post(NODES, { ids: some(1) })).toEqual({ data: { nodes: Array(5).fill(null) } })
  const one = statements.length
  expect(await dev.post(NODES, { ids: some(20) })).toEqual({ data: { nodes: Array(100).fill(null) } })
  expect(statements).toHaveLength(2 * one)
  Object.assign(gateway.sql.options, { debug: undefined })

  const { errors } = await dev.post(NODES, { ids: some(21) })
  expect(errors).toMatchObject([{ extensions: { code: 'INVALID_INPUT', fields: [{ path: 'ids' }] } }])
  const customer = clientFor(gateway, ASKERS.customer)
  const dear = await customer.post(
    NODES.replace('id }', 'id ... on Payment { card { brand last4 } amount { cents currency } } }'),
    { ids: some(20) },
  )
  expect(dear.errors?.[0]?.extensions?.['code']).toBe(undefined)
})
