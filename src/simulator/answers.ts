import type { FaultKind } from './faults.ts'
import type { Refusal } from './refusals.ts'

/** What goes out for a call: an answer, a cut connection, or nothing while the connection stays open. */
export type Outcome = Answer | 'drop' | 'hang'
export type Answer = {
  status: number
  headers: Record<string, string>
  body: string
  /** The rest of the body never comes. */
  stalls?: true
}
export type Body = Record<string, string | number>

export function json(status: number, body: string, headers: Record<string, string> = {}): Answer {
  return { status, headers: { 'content-type': 'application/json', ...headers }, body }
}
export function plain(status: number, text: string): Answer {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8' }, body: `${text}\n` }
}
export function html(status: number): Answer {
  return { status, headers: { 'content-type': 'text/html' }, body: '<html><body>proxy</body></html>' }
}
export function redirect(status: number, pathname: string): Answer {
  return { status, headers: { location: pathname.replaceAll(/\/{2,}/g, '/') }, body: '' }
}
export function answerOf({ status, error, message }: Refusal): Answer {
  return json(status, JSON.stringify({ error, message }))
}

/** A 200 as it is, or as the fault spoils it; what an answer does not have is not added. */
export function spoilt(what: FaultKind | undefined, body: Body): Answer {
  const [id = '', parent = ''] = Object.keys(body)
  const text = JSON.stringify(body)
  const withOther = (name: string, value: string | number) =>
    json(200, JSON.stringify(name in body ? { ...body, [name]: value } : body))
  switch (what) {
    case 'html':
      return html(200)
    case 'malformed':
      return json(200, text.slice(0, -9))
    case 'no-id':
      return json(200, JSON.stringify({ ...body, [id]: undefined }))
    case 'other-amount':
      return withOther('amount', Number(body['amount']) + 1)
    case 'other-currency':
      return withOther('currency', 'EUR')
    case 'other-parent':
      return parent.endsWith('_id')
        ? withOther(parent, `${String(body[parent]).slice(0, -1)}x`)
        : json(200, text)
    case 'huge-amount':
      return json(200, text.replace(/"amount":\d+/, '"amount":9007199254740993'))
    case 'stalled-body':
      return { ...json(200, text.slice(0, 20), { 'content-length': String(text.length) }), stalls: true }
    default:
      return json(200, text)
  }
}
