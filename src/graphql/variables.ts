import {
  coerceInputValue,
  getOperationAST,
  isInputType,
  isNonNullType,
  typeFromAST,
  TypeInfo,
  visit,
  visitWithTypeInfo,
} from 'graphql'
import type { DocumentNode, GraphQLSchema, VariableDefinitionNode, VariableNode } from 'graphql'
import type { Role } from '../access/who.ts'
import { asRun } from './document.ts'
import { ApiError } from './errors.ts'
import type { Quote } from './quoting.ts'

/**
 * What is wrong with the variables, by path and reason. It is asked before graphql-js is, whose own message repeats the
 * whole variable: card number, CVV and all.
 */
export function variableErrors(
  schema: GraphQLSchema,
  document: DocumentNode,
  request: { operationName: string | null | undefined; variables: unknown; role: Role },
  quote: Quote,
): ApiError[] {
  const words = (message: string) => quote(message, request.role)
  const given = new Map(Object.entries(Object(request.variables) as object))
  const operation = getOperationAST(document, request.operationName)
  if (!operation) return []
  const hasNull = [...given.values()].includes(null)
  const needed = hasNull ? variablesNeeded(schema, asRun(document, operation)) : new Set<string>()
  const definitions = operation.variableDefinitions ?? []
  return definitions.flatMap((definition) => errorsIn(schema, definition, given, needed, words))
}

/** Of one variable. */
const ERRORS_MAX = 20
/** A list of ten thousand mistakes would take graphql-js a second. */
const ENOUGH = new Error('enough')

function errorsIn(
  schema: GraphQLSchema,
  definition: VariableDefinitionNode,
  given: ReadonlyMap<string, unknown>,
  needed: ReadonlySet<string>,
  words: (message: string) => string,
): ApiError[] {
  const name = definition.variable.name.value
  const type = typeFromAST(schema, definition.type)
  if (!isInputType(type)) return []
  const errors: ApiError[] = []
  const complain = (path: readonly (string | number)[], reason: string) => {
    const place = [words(`$${name}`), ...path].join('.')
    errors.push(new ApiError('BAD_USER_INPUT', `${place}: ${reason}`, { nodes: definition }))
  }

  const value = given.get(name)
  if (value === undefined) {
    if (isNonNullType(type) && definition.defaultValue === undefined)
      complain([], `Expected ${type.toString()}, got nothing.`)
  } else {
    try {
      coerceInputValue(value, type, (path, _, error) => {
        complain(path, error instanceof ApiError ? error.message : words(error.message))
        if (errors.length === ERRORS_MAX) throw ENOUGH
      })
    } catch (error) {
      if (error !== ENOUGH) throw error
    }
    // One that has a default is declared nullable; its null would fail when its field is reached, after a payment perhaps.
    if (value === null && errors.length === 0 && needed.has(name))
      complain([], 'Expected a value, got null: it stands where null may not. Leave it out for its default.')
  }
  return errors
}

/** Those that stand where null may not. */
function variablesNeeded(schema: GraphQLSchema, document: DocumentNode): ReadonlySet<string> {
  const typeInfo = new TypeInfo(schema)
  const names = new Set<string>()
  const onVariable = ({ name }: VariableNode) => {
    if (isNonNullType(typeInfo.getInputType())) names.add(name.value)
  }
  visit(document, visitWithTypeInfo(typeInfo, { Variable: onVariable }))
  return names
}
