import { buildSchema, introspectionFromSchema, lexicographicSortSchema, printSchema } from 'graphql'
import { schema } from './schema.ts'

/** Where the schema is committed for its readers: clients generate code from it, reviewers see what changes. */
export const SCHEMA_FILE = new URL('../../schema.graphql', import.meta.url)

export function schemaText(): string {
  return `${printSchema(lexicographicSortSchema(schema))}\n`
}

/** The schema as a type, for clients that are written with gql.tada: their documents are typed by it. */
export const SCHEMA_TYPES_FILE = new URL('../../examples/schema-types.ts', import.meta.url)

export function schemaTypes(): string {
  const introspection = introspectionFromSchema(lexicographicSortSchema(schema), { descriptions: false })
  return `// Written by \`npm run schema\`.\nexport type Introspection = ${JSON.stringify(introspection)}\n`
}

/**
 * What a client may stumble over between two versions, a line each. BREAKING: a query that was valid is not any more.
 * DANGEROUS: it still is, but may meet what it does not expect (a new enum value, a new union member).
 */
export async function changesToHeed(before: string, after: string): Promise<string[]> {
  // For developers: the gateway serves the text without it.
  const { CriticalityLevel, diff } = await import('@graphql-inspector/core')
  const changes = await diff(buildSchema(before), buildSchema(after))
  return changes
    .filter(({ criticality }) => criticality.level !== CriticalityLevel.NonBreaking)
    .map(({ criticality, path, message }) => `${criticality.level}  ${path ?? 'schema'}  ${message}`)
    .toSorted()
}
