import {
  getNamedType,
  getNullableType,
  getOperationAST,
  isInputObjectType,
  isInputType,
  isListType,
  Kind,
  typeFromAST,
  TypeInfo,
  visit,
  visitWithTypeInfo,
} from 'graphql'
import type { DocumentNode, GraphQLInputType, GraphQLSchema, ObjectValueNode } from 'graphql'

/**
 * Clients in Go and Java send every field of an input, those that were not set as null. A `@oneOf` input with one field
 * and nulls beside it is therefore read as the one field: elsewhere, too, an explicit null counts as left out.
 * graphql-js would refuse it, so the nulls are taken out before it looks, from documents and from variables.
 */

export function withoutNullsInOneOf(schema: GraphQLSchema, document: DocumentNode): DocumentNode {
  const typeInfo = new TypeInfo(schema)
  const onObject = (node: ObjectValueNode) => {
    const type = getNamedType(typeInfo.getInputType())
    if (!isInputObjectType(type) || !type.isOneOf) return undefined
    return { ...node, fields: node.fields.filter(({ value }) => value.kind !== Kind.NULL) }
  }
  // On the way out: what is replaced on the way in is not looked into.
  return visit(document, visitWithTypeInfo(typeInfo, { ObjectValue: { leave: onObject } }))
}

type Variables = { readonly [name: string]: unknown }

export function variablesWithoutNullsInOneOf(
  schema: GraphQLSchema,
  document: DocumentNode,
  { operationName, variables }: { operationName: string | null | undefined; variables: Variables },
): Variables {
  const definitions = getOperationAST(document, operationName)?.variableDefinitions ?? []
  const changed = definitions.flatMap(({ variable, type: typeNode }) => {
    const name = variable.name.value
    const type = typeFromAST(schema, typeNode)
    const given = variables[name]
    if (!isInputType(type) || typeof given !== 'object' || given === null) return []
    return [[name, withoutNulls(given, type)] as const]
  })
  return { ...variables, ...Object.fromEntries(changed) }
}

function withoutNulls(value: unknown, type: GraphQLInputType): unknown {
  const named = getNullableType(type)
  if (isListType(named)) {
    return Array.isArray(value)
      ? value.map((item) => withoutNulls(item, named.ofType))
      : withoutNulls(value, named.ofType)
  }
  if (!isInputObjectType(named) || typeof value !== 'object' || value === null || Array.isArray(value))
    return value
  const fields = named.getFields()
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => !named.isOneOf || inner !== null)
      .map(([name, inner]) => {
        const field = fields[name]
        return [name, field === undefined ? inner : withoutNulls(inner, field.type)]
      }),
  )
}
