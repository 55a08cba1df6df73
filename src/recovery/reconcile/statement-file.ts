import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { CsvError, parse } from 'csv-parse'

/**
 * The bank's ledger as a CSV file: the columns type, id, reference_id, amount (cents), status and time, found by the
 * header in whatever order; others are not looked at. It is read as a stream: it may have millions of lines. What cannot
 * be understood refuses the whole file, by line and column and never by value: half a statement would make orphans of
 * what is in the other half.
 */
export type Line = {
  line: number
  type: LineType
  id: string
  referenceId: string | null
  amountCents: number
  status: string
  at: Date
}
export type LineType = keyof typeof LINE_TYPES

export class StatementRefused extends Error {}

/** By type: how its id begins, that of what it refers to, and the states it can be in. */
const LINE_TYPES = {
  AUTHORIZATION: { id: 'auth', reference: null, statuses: ['ACTIVE', 'CAPTURED', 'VOIDED'] },
  CAPTURE: { id: 'cap', reference: 'auth', statuses: ['ACTIVE', 'REFUNDED'] },
  VOID: { id: 'void', reference: 'auth', statuses: ['ACTIVE'] },
  REFUND: { id: 'ref', reference: 'cap', statuses: ['ACTIVE'] },
} as const

const COLUMNS = ['type', 'id', 'reference_id', 'amount', 'status', 'time'] as const
type Row = Record<(typeof COLUMNS)[number], string>

/** Longer than any line of a ledger: a quote that is never closed ends here, and not with the memory. */
const LINE_BYTES_MAX = 10_000

/** Throws StatementRefused. */
export async function* linesOf(file: string, atOnce: number): AsyncGenerator<Line[]> {
  const parser = parse({
    columns: (header: string[]) => header.map((name) => name.trim().toLowerCase()),
    info: true,
    skip_empty_lines: true,
    trim: true,
    max_record_size: LINE_BYTES_MAX,
  })
  // What goes wrong is thrown by the loop below.
  const flowing = pipeline(createReadStream(file), parser).catch(() => undefined)
  let batch: Line[] = []
  try {
    for await (const { record, info } of parser as AsyncIterable<{ record: Row; info: { lines: number } }>) {
      batch.push(read(record, info.lines))
      if (batch.length < atOnce) continue
      yield batch
      batch = []
    }
  } catch (error) {
    throw refusal(error)
  } finally {
    parser.destroy()
    await flowing
  }
  if (batch.length > 0) yield batch
}

function read(row: Row, line: number): Line {
  const missing = COLUMNS.filter((name) => row[name] === undefined)
  if (missing.length > 0)
    throw new StatementRefused(
      `The statement lacks the column${missing.length > 1 ? 's' : ''} ${missing.join(', ')}. Its first line must name ${COLUMNS.join(', ')}, in any order.`,
    )
  const refuse = (column: string, must: string) =>
    new StatementRefused(`The statement's line ${line}: ${column} must be ${must}. Nothing was compared.`)

  const type = row.type.toUpperCase()
  if (!isType(type)) throw refuse('type', Object.keys(LINE_TYPES).join(', '))
  const { id, reference, statuses } = LINE_TYPES[type]
  const status = row.status.toUpperCase()
  if (!isId(row.id, id)) throw refuse('id', `the id of ${type}, ${id}_…`)
  if (reference === null ? row.reference_id !== '' : !isId(row.reference_id, reference))
    throw refuse('reference_id', reference === null ? `empty for ${type}` : `${reference}_… for ${type}`)
  if (!/^\d{1,15}$/.test(row.amount)) throw refuse('amount', 'a whole number of cents')
  if (!(statuses as readonly string[]).includes(status))
    throw refuse('status', `${statuses.join(' or ')} for ${type}`)
  const at = new Date(TIME.test(row.time) ? row.time.replace(' ', 'T') : Number.NaN)
  if (Number.isNaN(at.getTime())) throw refuse('time', 'RFC 3339 with an offset, as in 2026-11-24T09:30:00Z')
  return {
    line,
    type,
    id: row.id,
    referenceId: reference === null ? null : row.reference_id,
    amountCents: Number(row.amount),
    status,
    at,
  }
}

const TIME = /^[12]\d{3}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/

function isType(text: string): text is LineType {
  return Object.hasOwn(LINE_TYPES, text)
}

/** As the bank makes them, and as the gateway takes them from its answers. */
function isId(text: string, prefix: string): boolean {
  return text.startsWith(`${prefix}_`) && /^[0-9A-Za-z-]{1,64}$/.test(text.slice(prefix.length + 1))
}

/** The parser's own messages repeat what it read. */
function refusal(error: unknown): unknown {
  const { code, path } = Object(error) as NodeJS.ErrnoException
  if (error instanceof CsvError)
    return new StatementRefused(`The statement is no CSV that can be read (${code}).`)
  if (path !== undefined) return new StatementRefused(`The statement cannot be read (${code}).`)
  return error
}
