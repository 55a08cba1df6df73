import type { IncomingMessage } from 'node:http'

/** How the bank reads a body: the first JSON value of it, whatever follows and whatever the content type says. */

export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

/**
 * Wrong types are refused in the endpoint's own fields only: all others are unknown to it. `null` is an empty request, and
 * in a field it is the type's zero.
 */
export function readFirstJson(
  text: string,
  endpoint: string,
): { value: Record<string, unknown> } | { trouble: string } {
  if (text.trim() === '') return { trouble: 'EOF' }
  let value: unknown
  let asWritten: unknown
  try {
    const first = firstValue(text.trim())
    value = JSON.parse(first)
    asWritten = JSON.parse(quoteNumbers(first))
  } catch {
    return { trouble: 'invalid character' }
  }
  if (value === null) return { value: {} }
  if (typeof value !== 'object' || Array.isArray(value)) return { trouble: 'cannot unmarshal into a request' }
  const fields = new Map<string, unknown>(Object.entries(value))
  const written = new Map<string, unknown>(Object.entries(Object(asWritten)))
  const wrong = Object.entries(FIELDS[endpoint] ?? {}).find(([name, fits]) => {
    const field = fields.get(name) ?? null
    return field !== null && !fits(field, written.get(name))
  })
  return wrong === undefined ? { value: { ...value } } : { trouble: `cannot unmarshal field ${wrong[0]}` }
}

const isText = (field: unknown) => typeof field === 'string'
/** 1e2 and 100.0 are none to the bank. */
const isInteger = (field: unknown, written: unknown) =>
  Number.isSafeInteger(field) && /^-?\d+$/.test(String(written))
const FIELDS: Record<string, Record<string, (field: unknown, written: unknown) => boolean>> = {
  authorizations: {
    card_number: isText,
    cvv: isText,
    expiry_month: isInteger,
    expiry_year: isInteger,
    amount: isInteger,
  },
  captures: { authorization_id: isText, amount: isInteger },
  voids: { authorization_id: isText },
  refunds: { capture_id: isText, amount: isInteger },
}

/** Up to the brace that closes the first object. */
function firstValue(text: string): string {
  if (!text.startsWith('{')) return /^\S+/.exec(text)?.[0] ?? text
  let depth = 0
  let inString = false
  for (let index = 0; index < text.length; index += 1) {
    const character = text[index]
    if (inString && character === '\\') index += 1
    else if (character === '"') inString = !inString
    else if (!inString && character === '{') depth += 1
    else if (!inString && character === '}' && (depth -= 1) === 0) return text.slice(0, index + 1)
  }
  return text
}

/** JSON.parse forgets how a number was written. */
function quoteNumbers(json: string): string {
  return json.replaceAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) =>
    token.startsWith('"') ? token : `"${token}"`,
  )
}
