import { isObjectType } from 'graphql'
import type { GraphQLSchema } from 'graphql'

/**
 * The price of a page is in its arguments (audience.ts). The complexity plugin would validate them before it asks, and
 * refuse the whole document for one bad argument; the field itself does that, so that what stands beside it is answered.
 * Nothing else reads these mappers: resolvers have their own.
 */
export function pricedAsGiven(schema: GraphQLSchema): GraphQLSchema {
  for (const type of Object.values(schema.getTypeMap()).filter(isObjectType)) {
    for (const field of Object.values(type.getFields())) {
      const isPricedByArguments = typeof field.extensions['complexity'] === 'function'
      if (isPricedByArguments) field.extensions = { ...field.extensions, pothosArgMappers: undefined }
    }
  }
  return schema
}
