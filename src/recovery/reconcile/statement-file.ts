import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { CsvError, parse } from 'csv-parse'

/**
 * The bank's ledger as a CSV file: the columns type, id, reference_id, amount (cents), status and time, found by the
 * header in whatever order; others are not looked at. The bank's own table, exported as it is, is read too: it has
 * other names, ids without prefix, and times without an offset. It is read as a stream: it may have millions of lines.
 * What cannot be understood refuses the whole file, by line and column and never by value: half a statement would make
 * orphans of what is in the other half.
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
export type LineType = 'AUTHORIZATION' | 'CAPTURE' | 'VOID' | 'REFUND'

export class StatementRefused extends Error {}

const DONE = ['COMPLETED', 'ACTIVE'] as const
const states = (...names: string[]) => new Map(names.map((name) => [name, name]))

/**
 * By type: how its id begins, that of what it refers to, and its states. The bank's own table has COMPLETED for all that
 * was done, and for a hold that was captured or voided, whichever it was; and it releases no hold that has EXPIRED.
 */
const LINE_TYPES: Record<LineType, { id: string; reference: string | null; statuses: Map<string, string> }> =
  {
    AUTHORIZATION: {
      id: 'auth',
      reference: null,
      statuses: states('ACTIVE', 'CAPTURED', 'VOIDED', 'COMPLETED').set('EXPIRED', 'ACTIVE'),
    },
    CAPTURE: { id: 'cap', reference: 'auth', statuses: states('ACTIVE', 'REFUNDED').set(...DONE) },
    VOID: { id: 'void', reference: 'auth', statuses: states('ACTIVE').set(...DONE) },
    REFUND: { id: 'ref', reference: 'cap', statuses: states('ACTIVE').set(...DONE) },
  }

const COLUMNS = ['type', 'id', 'reference_id', 'amount', 'status', 'time'] as const
type Row = Record<(typeof COLUMNS)[number], string>

/** What the bank's own table calls them. */
const TABLE_COLUMNS = new Map([
  ['amount_cents', 'amount'],
  ['created_at', 'time'],
])
const TABLE_TYPES = new Map([['AUTH_HOLD', 'AUTHORIZATION']])

/** Longer than any line of a ledger: a quote that is never closed ends here, and not with the memory. */
const LINE_BYTES_MAX = 10_000

/** Throws StatementRefused. */
export async function* linesOf(file: string, atOnce: number): AsyncGenerator<Line[]> {
  let isTable = false
  const parser = parse({
    columns: (header: string[]) => {
      const names = header.map((name) => name.trim().toLowerCase())
      isTable = !names.includes('time')
      return columnsOf(names)
    },
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
      batch.push(read(record, info.lines, isTable))
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

/** A column that has our name already is the one that counts. */
function columnsOf(header: readonly string[]): string[] {
  const ours = (name: string) => TABLE_COLUMNS.get(name) ?? name
  return header.map((name) => (header.includes(ours(name)) ? name : ours(name)))
}

function read(row: Row, line: number, isTable: boolean): Line {
  const missing = COLUMNS.filter((name) => row[name] === undefined)
  if (missing.length > 0)
    throw new StatementRefused(
      `The statement lacks the column${missing.length > 1 ? 's' : ''} ${missing.join(', ')}. Its first line must name ${COLUMNS.join(', ')}, in any order.`,
    )
  const refuse = (column: string, must: string) =>
    new StatementRefused(`The statement's line ${line}: ${column} must be ${must}. Nothing was compared.`)

  const named = row.type.toUpperCase()
  const type = TABLE_TYPES.get(named) ?? named
  if (!isType(type)) throw refuse('type', Object.keys(LINE_TYPES).join(', '))
  const { id: prefix, reference, statuses } = LINE_TYPES[type]
  const id = idIn(row.id, prefix)
  if (id === null) throw refuse('id', `the id of ${type}, ${prefix}_… or a UUID`)
  const referenceId = reference === null ? null : idIn(row.reference_id, reference)
  if (reference === null ? row.reference_id !== '' : referenceId === null)
    throw refuse('reference_id', reference === null ? `empty for ${type}` : `${reference}_… for ${type}`)
  if (!/^\d{1,15}$/.test(row.amount)) throw refuse('amount', 'a whole number of cents')
  const status = statuses.get(row.status.toUpperCase())
  if (status === undefined) throw refuse('status', `${[...statuses.keys()].join(' or ')} for ${type}`)
  const at = timeIn(row.time, isTable)
  if (at === null) throw refuse('time', 'RFC 3339 with an offset, as in 2026-11-24T09:30:00Z')
  return { line, type, id, referenceId, amountCents: Number(row.amount), status, at }
}

const TIME = /^([12]\d{3}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z|[+-]\d\d(?::?\d\d)?)?$/i

/** Postgres leaves the minutes of an offset out where they are 0. The bank's table has none at all: it keeps UTC. */
function timeIn(text: string, isTable: boolean): Date | null {
  const [, day, time, offset = isTable ? 'Z' : undefined] = TIME.exec(text) ?? []
  if (offset === undefined) return null
  const [, hours, minutes = '00'] = /^([+-]\d\d):?(\d\d)?$/.exec(offset) ?? []
  const at = new Date(`${day}T${time}${hours === undefined ? 'Z' : `${hours}:${minutes}`}`)
  return Number.isNaN(at.getTime()) ? null : at
}

function isType(text: string): text is LineType {
  return Object.hasOwn(LINE_TYPES, text)
}

/** As the bank's API makes them, and as the gateway takes them from its answers; or as its table has them, a UUID. */
function idIn(text: string, prefix: string): string | null {
  if (UUID.test(text)) return `${prefix}_${text.toLowerCase()}`
  return text.startsWith(`${prefix}_`) && /^[0-9A-Za-z-]{1,64}$/.test(text.slice(prefix.length + 1))
    ? text
    : null
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** The parser's own messages repeat what it read. */
function refusal(error: unknown): unknown {
  if (error instanceof CsvError)
    return new StatementRefused(
      `The statement's line ${lineOf(error)} is no CSV that can be read (${error.code}). Nothing was compared.`,
    )
  const { code, path } = Object(error) as NodeJS.ErrnoException
  if (path !== undefined) return new StatementRefused(`The statement cannot be read (${code}).`)
  return error
}

/** A quote that is never closed is found lines below the one that has it: behind the header and all that was read. */
function lineOf({ code, lines, records, empty_lines: empty }: CsvError): number {
  const isFoundLater = code === 'CSV_QUOTE_NOT_CLOSED' || code === 'CSV_MAX_RECORD_SIZE'
  return isFoundLater ? Number(records) + Number(empty) + 2 : Number(lines)
}
