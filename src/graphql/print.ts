import { readFile, writeFile } from 'node:fs/promises'
import { changesToHeed, SCHEMA_FILE, schemaText } from './schema-text.ts'

/** `npm run schema`: writes schema.graphql anew, and tells what in it may hurt a client. */

const before = await readFile(SCHEMA_FILE, 'utf8').catch(() => null)
const after = schemaText()
await writeFile(SCHEMA_FILE, after)
const changes = before === null ? [] : await changesToHeed(before, after)
process.stdout.write(
  before === after
    ? 'schema.graphql was up to date.\n'
    : [`schema.graphql is written anew; changes to heed: ${changes.length}.`, ...changes, ''].join('\n'),
)
