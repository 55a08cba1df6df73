import { readFile, writeFile } from 'node:fs/promises'
import { changesToHeed, SCHEMA_FILE, SCHEMA_TYPES_FILE, schemaText, schemaTypes } from './schema-text.ts'

/** `npm run schema`: writes schema.graphql and the clients' types anew, and tells what in it may hurt a client. */

const before = await readFile(SCHEMA_FILE, 'utf8').catch(() => null)
const after = schemaText()
await writeFile(SCHEMA_FILE, after)
await writeFile(SCHEMA_TYPES_FILE, schemaTypes())
const changes = before === null ? [] : await changesToHeed(before, after)
process.stdout.write(
  before === after
    ? 'schema.graphql was up to date.\n'
    : [`schema.graphql is written anew; changes to heed: ${changes.length}.`, ...changes, ''].join('\n'),
)
