import type { IncomingMessage, ServerResponse } from 'node:http'
import { z } from 'zod'
import { FAULT_KINDS, FAULTS } from './faults.ts'
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
    const { what, ...fault } = read(FAULT, body)
    faults.add(what, fault)
    return { status: 201, body: JSON.stringify(faults.list()) }
  },
  'DELETE /simulator/faults': ({ faults }) => {
    faults.clear()
    return { body: '[]' }
  },
  'GET /simulator/settings': ({ settings }) => ({ body: JSON.stringify(settings) }),
  'PUT /simulator/settings': ({ settings }, body) => {
    Object.assign(settings, read(SETTINGS, body))
    return { body: JSON.stringify(settings) }
  },
  'GET /simulator/received': ({ received }) => ({ body: JSON.stringify(received) }),
  'GET /simulator/statement.csv': async ({ sql }) => ({ type: 'text/csv', body: await statement(sql) }),
}

/** Timers go off at once beyond 2^31 ms. */
const latencyMs = z.number().min(0).max(86_400_000)

/** What is misspelt is refused: a fault that fits everything instead would be a riddle. */
const FAULT = z.strictObject({
  what: z.enum(FAULT_KINDS),
  endpoint: z.enum(['authorizations', 'captures', 'voids', 'refunds', 'health']).exactOptional(),
  method: z.enum(['GET', 'POST']).exactOptional(),
  key: z.string().exactOptional(),
  probe: z.boolean().exactOptional(),
  times: z.int().positive().nullable().exactOptional(),
  probability: z.number().min(0).max(1).exactOptional(),
  delayMs: latencyMs.exactOptional(),
})
const SETTINGS = z.strictObject({
  minLatencyMs: latencyMs.exactOptional(),
  maxLatencyMs: latencyMs.exactOptional(),
  failureRate: z.number().min(0).max(1).exactOptional(),
  authExpiryHours: z.number().positive().max(8_760).exactOptional(),
  writeLimitMs: z.number().positive().max(86_400_000).exactOptional(),
})

function read<Schema extends z.ZodType>(schema: Schema, body: string): z.output<Schema> {
  const parsed = schema.safeParse(JSON.parse(body))
  if (!parsed.success) throw new Error(z.prettifyError(parsed.error))
  return parsed.data
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
                              also: key, method, probe (true: only empty bodies), probability, delayMs; times: null, for ever
GET    /simulator/faults      what is still to come
DELETE /simulator/faults      none of it
PUT    /simulator/settings    {"minLatencyMs": 0, "maxLatencyMs": 0, "failureRate": 0.2, "authExpiryHours": 168,
                              "writeLimitMs": 15000}
GET    /simulator/received    what was asked (the last 10,000), and the status it got
GET    /simulator/statement.csv   the ledger

${Object.entries(FAULTS)
  .map(([what, effect]) => `  ${what.padEnd(26)}${effect}`)
  .join('\n')}
`
