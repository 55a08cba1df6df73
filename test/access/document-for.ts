import {
  getNamedType,
  isCompositeType,
  isEnumType,
  isInputObjectType,
  isListType,
  isNonNullType,
  isObjectType,
  isRequiredArgument,
  isRequiredInputField,
} from 'graphql'
import type { GraphQLField, GraphQLInputType, GraphQLObjectType } from 'graphql'
import { randomUUID } from 'node:crypto'
import { leastUuidAt } from '../../src/payment/ids.ts'
import { schema } from '../../src/graphql/schema.ts'
import { TEST_CARD } from '../support/client.ts'

/**
 * A document that asks for one field, made from the schema alone: by the shortest road from a root to the type that has
 * it, with arguments that are valid.
 */
type Wanted = {
  /** Fields to go by; where there is no such road, any. */
  may: (field: string) => boolean
  paymentId: string
  orderId: string
  customerId: string
  amountCents: number
}
type Step = { type: GraphQLObjectType; field: GraphQLField<unknown, unknown> }

const roots = [schema.getQueryType(), schema.getMutationType(), schema.getSubscriptionType()].filter(
  (type) => type != null,
)

export function documentFor(name: string, wanted: Wanted): { document: string; path: string[] } {
  const [typeName = '', fieldName = ''] = name.split('.')
  const may = (step: Step) => wanted.may(nameOf(step))
  const steps =
    roadTo(typeName, roots.slice(0, 1), may) ??
    roadTo(typeName, roots, may) ??
    roadTo(typeName, roots, () => true)
  const type = schema.getType(typeName)
  if (!steps || !isObjectType(type)) throw new Error(`nothing in the schema leads to ${name}`)
  const field = type.getFields()[fieldName]
  if (field === undefined) throw new Error(`there is no ${name}`)
  const path = [...steps, { type, field }]
  const root = path[0]?.type
  const keyword =
    root === schema.getMutationType()
      ? 'mutation'
      : root === schema.getSubscriptionType()
        ? 'subscription'
        : 'query'
  const selection = path.toReversed().reduce((inner, step, at) => {
    const { field } = step
    const next = path[path.length - at]?.type
    const below = next === undefined ? '__typename' : `... on ${next.name} { ${inner} }`
    const body = isCompositeType(getNamedType(field.type)) ? ` { ${below} }` : ''
    return `${field.name}${argumentsOf(field, wanted)}${body}`
  }, '')
  return { document: `${keyword} { ${selection} }`, path: path.map(nameOf) }
}

const nameOf = ({ type, field }: Step) => `${type.name}.${field.name}`

/** Breadth first, so the shortest. */
function roadTo(typeName: string, from: GraphQLObjectType[], mayGo: (step: Step) => boolean): Step[] | null {
  const seen = new Set<GraphQLObjectType>(from)
  const queue = from.map((type) => ({ type, steps: [] as Step[] }))
  for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
    const { type, steps } = at
    if (type.name === typeName) return steps
    for (const field of Object.values(type.getFields())) {
      const to = getNamedType(field.type)
      // A Node leads everywhere, and each id to one place: node.test.ts goes that way.
      if (!isCompositeType(to) || to.name === 'Node' || !mayGo({ type, field })) continue
      for (const next of isObjectType(to) ? [to] : schema.getPossibleTypes(to)) {
        if (seen.has(next)) continue
        seen.add(next)
        queue.push({ type: next, steps: [...steps, { type, field }] })
      }
    }
  }
  return null
}

/** Of none. */
const reconciliationId = `rec_${leastUuidAt(0)}`

function argumentsOf(field: GraphQLField<unknown, unknown>, wanted: Wanted): string {
  const required = field.args.filter(isRequiredArgument)
  if (required.length === 0) return ''
  const values = {
    ...wanted,
    reconciliationId,
    ...(field.name === 'reconciliation' && { id: reconciliationId }),
  }
  return `(${required.map(({ name, type }) => `${name}: ${valueFor(name, type, values)}`).join(', ')})`
}

function valueFor(name: string, type: GraphQLInputType, wanted: Wanted): string {
  if (isNonNullType(type)) return valueFor(name, type.ofType, wanted)
  if (isListType(type)) return `[${valueFor(name, type.ofType, wanted)}]`
  if (isEnumType(type)) return type.getValues()[0]?.name ?? ''
  if (isInputObjectType(type)) {
    const fields = Object.values(type.getFields())
    const given = type.isOneOf
      ? fields.filter(({ name }) => name === 'id')
      : fields.filter(isRequiredInputField)
    return `{ ${given.map((field) => `${field.name}: ${valueFor(field.name, field.type, wanted)}`).join(', ')} }`
  }
  const byName: Record<string, unknown> = {
    ...wanted,
    ...TEST_CARD,
    idempotencyKey: randomUUID(),
    webhookId: `evt_${wanted.paymentId.slice(4)}_1`,
  }
  const byType: Record<string, unknown> = {
    ID: wanted.paymentId,
    Cents: wanted.amountCents,
    String: 'some text',
    Int: 1,
    Float: 1,
    Boolean: false,
    DateTime: '2026-11-24T09:30:00Z',
  }
  const value = byName[name] ?? byType[type.name]
  if (value === undefined) throw new Error(`no value for ${name}: ${type.name}`)
  return JSON.stringify(value)
}
