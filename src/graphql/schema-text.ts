import { CriticalityLevel, diff } from '@graphql-inspector/core'
import { buildSchema, lexicographicSortSchema, printSchema } from 'graphql'
import { schema } from './schema.ts'

/** Where the schema is committed for its readers: clients generate code from it, reviewers see what changes. */
export const SCHEMA_FILE = new URL('../../schema.graphql', import.meta.url)

export function schemaText(): string {
  return `${printSchema(lexicographicSortSchema(schema))}\n`
}

/**
 * What a client may stumble over between two versions, a line each. BREAKING: a query that was valid is not any more.
 * DANGEROUS: it still is, but may meet what it does not expect (a new enum value, a new union member).
 */
export async function changesToHeed(before: string, after: string): Promise<string[]> {
  const changes = await diff(buildSchema(before), buildSchema(after))
  return changes
    .filter(({ criticality }) => criticality.level !== CriticalityLevel.NonBreaking)
    .map(({ criticality, path, message }) => `${criticality.level}  ${path ?? 'schema'}  ${message}`)
    .toSorted()
}
