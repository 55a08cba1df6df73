import { complexityFromQuery } from '@pothos/plugin-complexity'
import { getOperationAST, Kind, TypeInfo, visit, visitWithTypeInfo } from 'graphql'
import type { DocumentNode, FieldNode, GraphQLSchema, OperationDefinitionNode } from 'graphql'
import type { Role } from '../access/who.ts'
import { mayAsk } from './audience.ts'
import { ApiError } from './errors.ts'

/**
 * Whether a document may be run at all, asked before any of it is. A payment must not be taken and then answered with an
 * error because something beside it was forbidden; and no input is looked at for somebody who may not give it.
 */

/** Fields that this role may not ask for, and more than one mutation of a customer's. */
export function forbidden(schema: GraphQLSchema, document: DocumentNode, role: Role): readonly ApiError[] {
  return lookedAt(schema, document, role).errors
}

type Looked = {
  errors: readonly ApiError[]
  /** Fields whose price is in their arguments, and so perhaps in a variable. */
  hasPages: boolean
}
/** Documents are remembered by the parser, and this with them. */
const looks = new WeakMap<DocumentNode, Partial<Record<Role, Looked>>>()
const ERRORS_MAX = 20

function lookedAt(schema: GraphQLSchema, document: DocumentNode, role: Role): Looked {
  const known = looks.get(document) ?? {}
  looks.set(document, known)
  return (known[role] ??= look(schema, document, role))
}

function look(schema: GraphQLSchema, document: DocumentNode, role: Role): Looked {
  const errors: ApiError[] = []
  let hasPages = false
  const mutations: FieldNode[] = []
  const typeInfo = new TypeInfo(schema)
  const onField = (node: FieldNode) => {
    const type = typeInfo.getParentType()
    const field = typeInfo.getFieldDef()
    if (typeof field?.extensions['complexity'] === 'function') hasPages = true
    if (type === schema.getMutationType() && !node.name.value.startsWith('__')) mutations.push(node)
    if (!type || !field || mayAsk(role, type, field)) return undefined
    errors.push(forbiddenField(type.name, node))
    // What is below it need not be told.
    return false
  }
  visit(document, visitWithTypeInfo(typeInfo, { Field: onField }))
  const second = mutations[1]
  if (role === 'customer' && second !== undefined) {
    errors.push(
      new ApiError('LIMIT_EXCEEDED', 'A document of a customer has one mutation.', { nodes: second }),
    )
  }
  return { errors: errors.slice(0, ERRORS_MAX), hasPages }
}

function forbiddenField(type: string, node: FieldNode): ApiError {
  const message = `You may not ask for ${type}.${node.name.value}. Nothing was carried out.`
  return new ApiError('FORBIDDEN', message, { nodes: node })
}

/** The names of aliases are free, so each field counts however often it is asked for, and the more the dearer. */
export function tooMuch(
  schema: GraphQLSchema,
  document: DocumentNode,
  request: { operationName: string | null | undefined; variables: Record<string, unknown>; role: Role },
): ApiError[] {
  const operation = getOperationAST(document, request.operationName)
  if (!operation) return []
  const asked = priceOf(schema, document, operation, request)
  const limits = LIMITS[request.role]
  return DIMENSIONS.filter(({ of }) => asked[of] > limits[of]).map(({ of, name }) => {
    const message = `The document's ${name} is ${asked[of]}, and may be ${limits[of]} at most. Ask for less at one time.`
    return new ApiError('LIMIT_EXCEEDED', message)
  })
}

type Price = Record<(typeof DIMENSIONS)[number]['of'], number>

/** Of those without pages: whatever their variables are, they cost the same. */
const prices = new WeakMap<OperationDefinitionNode, Price>()

function priceOf(
  schema: GraphQLSchema,
  document: DocumentNode,
  operation: OperationDefinitionNode,
  { variables, role }: { variables: Record<string, unknown>; role: Role },
): Price {
  const known = prices.get(operation)
  if (known !== undefined) return known
  // Of several operations the library would price the first, whichever is run.
  const price = complexityFromQuery(asRun(document, operation), { schema, variables })
  if (!lookedAt(schema, document, role).hasPages) prices.set(operation, price)
  return price
}

/** One operation of a document, with all fragments. */
export function asRun(document: DocumentNode, operation: OperationDefinitionNode): DocumentNode {
  const fragments = document.definitions.filter(({ kind }) => kind === Kind.FRAGMENT_DEFINITION)
  return { ...document, definitions: [operation, ...fragments] }
}

const DIMENSIONS = [
  { of: 'depth', name: 'depth' },
  { of: 'breadth', name: 'number of fields' },
  { of: 'complexity', name: 'cost' },
] as const

/** Cost: how many values the answer may have, and what stands behind them (audience.ts). */
const STAFF_LIMITS = { depth: 12, breadth: 400, complexity: 30_000 }
const LIMITS: Record<Role, typeof STAFF_LIMITS> = {
  service: STAFF_LIMITS,
  ops: STAFF_LIMITS,
  dev: STAFF_LIMITS,
  customer: { depth: 8, breadth: 100, complexity: 3_000 },
}
export const TOKENS_MAX = 1_000
