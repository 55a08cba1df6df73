import type { IncomingMessage, ServerResponse } from 'node:http'
import { FAULTS, isFaultKind } from './faults.ts'
import { statement } from './ledger.ts'
import { readBody } from './request.ts'
import type { Bank } from './simulator.ts'

/** What the real bank does not have: telling it how to fail, and its books. Answers false where the bank itself must. */
export async function answerControl(
  bank: Bank,
  request: IncomingMessage,
  response: ServerResponse,
  pathname: string,
): Promise<boolean> {
  const route = CONTROLS[`${request.method} ${pathname}`]
  if (route === undefined) return false
  try {
    const { status = 200, type = 'application/json', body } = await route(bank, await readBody(request))
    response.writeHead(status, { 'content-type': type }).end(body)
  } catch (error) {
    response
      .writeHead(400, { 'content-type': 'text/plain' })
      .end(`${error instanceof Error ? error.message : 'bad request'}\n`)
  }
  return true
}

type Reply = { status?: number; type?: string; body: string }

const CONTROLS: Record<string, (bank: Bank, body: string) => Reply | Promise<Reply>> = {
  'GET /docs': () => ({ type: 'text/plain; charset=utf-8', body: DOCS }),
  'GET /simulator/faults': ({ faults }) => ({ body: JSON.stringify(faults.list()) }),
  'POST /simulator/faults': ({ faults }, body) => {
    const { what, ...fault } = asObject(body)
    if (!isFaultKind(what)) throw new Error(`"what" must be one of: ${Object.keys(FAULTS).join(', ')}`)
    faults.add(what, fault)
    return { status: 201, body: JSON.stringify(faults.list()) }
  },
  'DELETE /simulator/faults': ({ faults }) => {
    faults.clear()
    return { body: '[]' }
  },
  'GET /simulator/settings': ({ settings }) => ({ body: JSON.stringify(settings) }),
  'PUT /simulator/settings': ({ settings }, body) => {
    for (const [name, value] of Object.entries(asObject(body))) {
      if (!(name in settings) || typeof value !== 'number' || !(value >= 0))
        throw new Error(`settings are numbers: ${Object.keys(settings).join(', ')}`)
      Object.assign(settings, { [name]: value })
    }
    return { body: JSON.stringify(settings) }
  },
  'GET /simulator/received': ({ received }) => ({ body: JSON.stringify(received) }),
  'GET /simulator/statement.csv': async ({ sql }) => ({ type: 'text/csv', body: await statement(sql) }),
}

function asObject(body: string): Record<string, unknown> {
  const value: unknown = JSON.parse(body)
  if (typeof value !== 'object' || value === null) throw new Error('the body must be a JSON object')
  return { ...value }
}

const DOCS = `The bank, simulated.

POST /api/v1/authorizations   card_number, cvv, expiry_month, expiry_year, amount
POST /api/v1/captures         authorization_id, amount
POST /api/v1/voids            authorization_id
POST /api/v1/refunds          capture_id, amount
GET  /api/v1/authorizations/{id}, /api/v1/captures/{id}, /api/v1/refunds/{id}, /health
     Every POST needs an Idempotency-Key. Amounts are integer cents.

How to make it fail

POST   /simulator/faults      {"what": "drop-after-store", "endpoint": "captures", "times": 1}
                              also: key, method, probe (true: only empty bodies), probability, delayMs; times null: for ever
GET    /simulator/faults      what is still to come
DELETE /simulator/faults      none of it
PUT    /simulator/settings    {"minLatencyMs": 0, "maxLatencyMs": 0, "failureRate": 0.2, "authExpiryHours": 168}
GET    /simulator/received    what was asked, and the status it got
GET    /simulator/statement.csv   the ledger

${Object.entries(FAULTS)
  .map(([what, effect]) => `  ${what.padEnd(26)}${effect}`)
  .join('\n')}
`
