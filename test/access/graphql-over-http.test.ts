import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { serverAudits } from 'graphql-http'
import { afterAll, describe, expect, it } from 'vitest'
import { httpServer } from '../../src/graphql/http.ts'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { ASKERS, serverFor } from './askers.ts'

/** The audits of GraphQL over HTTP, against the server as main configures it: every MUST and every SHOULD is kept. By an
 * operator, since they ask for the schema. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const http = httpServer(serverFor(gateway, ASKERS.ops)).listen(0, '127.0.0.1')
await once(http, 'listening')
afterAll(() => {
  http.closeAllConnections()
  http.close()
})
const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/graphql`

/** Not taken: a GET is what other sites can make a browser send (gate.ts). With the header that prevents it, it is. */
const LEFT_OUT: string[] = [
  'MAY accept application/x-www-form-urlencoded formatted GET requests',
  'MAY allow URL-encoded JSON string {variables} parameter in GETs when accepting application/graphql-response+json',
  'MAY allow URL-encoded JSON string {variables} parameter in GETs when accepting application/json',
]

describe.each<[string, unknown, string[]]>([
  ['as it is', fetch, LEFT_OUT],
  ['with the header of a browser that has asked', withPreflight, []],
])('%s', (_, fetchFn, leftOut) => {
  it.each(serverAudits({ url, fetchFn }))('$name', async (audit) => {
    const result = await audit.fn()
    const isKept = result.status === 'ok'
    expect([result.name, isKept || result.reason]).toEqual([
      audit.name,
      leftOut.includes(audit.name) ? 'Response status code is not 200' : true,
    ])
  })

  it('leaves out what the standard leaves open, and nothing else', () => {
    const names = serverAudits({ url }).map(({ name }) => name)
    expect(names).toHaveLength(61)
    for (const name of leftOut) expect(names).toContain(name)
    expect(leftOut.filter((name) => /^(MUST|SHOULD)/.test(name))).toEqual([])
  })
})

async function withPreflight(input: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers)
  headers.set('graphql-require-preflight', '1')
  return await fetch(input, { ...init, headers })
}
