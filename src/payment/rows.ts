/**
 * The SQL functions answer with whole rows as jsonb, in the columns' names and with times as text. This gives them the
 * shape that a plain `select` has through db/connection.ts: camelCase, and Dates for the columns that end in `at`,
 * `until` or `since`. Nested jsonb (an input, evidence) is left as it was stored.
 */
export function rowFromJson<Row>(json: Record<string, unknown>): Row {
  const row: Record<string, unknown> = {}
  // JSON.parse's objects inherit nothing that this would visit; entries would be an array more for each column.
  for (const column in json) {
    const value = json[column]
    const { name, isTime } = shapeOf(column)
    row[name] = isTime && typeof value === 'string' ? new Date(value) : value
  }
  return row as Row
}

/** By column; there are some fifty. Made anew for each row they took a twentieth of the gateway's CPU. */
const shapes = new Map<string, { name: string; isTime: boolean }>()

function shapeOf(column: string) {
  let shape = shapes.get(column)
  if (shape === undefined) {
    const name = column.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
    shape = { name, isTime: TIME_COLUMN.test(column) }
    shapes.set(column, shape)
  }
  return shape
}

const TIME_COLUMN = /(^|_)(at|until|since)$/
