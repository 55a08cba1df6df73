import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { createClient } from 'graphql-sse'
import { describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { startLive } from '../../src/events/live.ts'
import { httpServer } from '../../src/graphql/http.ts'
import { createServer } from '../../src/graphql/server.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import { serving, spawnGateway, startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** Live updates as graphql-sse takes them, which urql and Relay are told to use: what ends, and what goes on by itself. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const where = { databaseUrl: database.url, bankUrl: bank.url }

type Told = { id?: string; state?: string; code?: unknown }

/** What a payment's follower hears, with the library's own ways but its patience. */
function following(url: string, paymentId: string) {
  const client = createClient({ url, retryAttempts: Infinity, retry: () => pause(50) })
  onTestFinished(() => client.dispose())
  const updates = client.iterate<{ paymentUpdated: { id: string; state: string } }>({
    query:
      'subscription ($id: ID!) { paymentUpdated(by: { paymentId: $id }) { id state transitions { toState } } }',
    variables: { id: paymentId },
  })
  return {
    next: async (): Promise<Told | 'complete'> => {
      const { value, done } = await updates.next()
      if (done === true) return 'complete'
      return value.data?.paymentUpdated ?? { code: value.errors?.[0]?.extensions?.['code'] }
    },
    /** Until it is told so; the same may be told again by another stream. */
    until: async function (state: string): Promise<Told> {
      for (;;) {
        const told = await this.next()
        if (told === 'complete') throw new Error(`it is over before ${state}`)
        if (told.state === state) return told
      }
    },
  }
}

describe('a subscription of graphql-sse', { timeout: 120_000 }, () => {
  it.each(['SIGTERM', 'SIGKILL'] as const)('goes on after a restart by %s', async (signal) => {
    const env = {
      DATABASE_URL: database.url,
      BANK_URL: bank.url,
      PORT: String(await freePort()),
      SHUTDOWN_DELAY_MS: '0',
    }
    const first = await spawnGateway(env)
    const { id } = await authorized(first.client)
    const stream = following(`${first.url}/graphql`, id)
    await stream.until('AUTHORIZED')
    await first.end(signal)
    const second = await spawnGateway(env)
    await second.client.void({ paymentId: id })
    expect(await stream.until('VOIDED')).toMatchObject({ id })
  })

  it('goes on after an update that could not be told', async () => {
    const { gateway, client, url } = await listening()
    const { id } = await authorized(client)
    let isAway = false
    const { sql: receipts } = gateway
    gateway.sql = Object.assign(
      (...args: Parameters<typeof receipts>) =>
        isAway && String(args[0]).includes('from transitions')
          ? Promise.reject(Object.assign(new Error('gone'), { code: 'CONNECTION_CLOSED' }))
          : receipts(...args),
      receipts,
    ) as typeof receipts
    const stream = following(url, id)
    await stream.until('AUTHORIZED')
    isAway = true
    await client.void({ paymentId: id })
    expect(await stream.next()).toEqual({ code: 'DATABASE_UNAVAILABLE' })
    isAway = false
    expect(await stream.until('VOIDED')).toMatchObject({ id })
  })

  it('is over when it is refused', async () => {
    const { url } = await listening()
    const stream = following(url, 'no id')
    expect([await stream.next(), await stream.next()]).toEqual([{ code: 'INVALID_INPUT' }, 'complete'])
  })
})

/** A gateway in this process, on a port. */
async function listening() {
  const started = startTestGateway(where)
  const sql = connect(database.url, { connectionsMax: 1, statementTimeoutMs: 5_000 })
  const live = await startLive(started.gateway, sql)
  const http = httpServer(createServer(started.gateway, serving())).listen(0, '127.0.0.1')
  await once(http, 'listening')
  whenFileEnds(async () => {
    await live.stop()
    http.closeAllConnections()
    http.close()
    await sql.end({ timeout: 1 })
  })
  const { port } = http.address() as AddressInfo
  return { ...started, url: `http://127.0.0.1:${port}/graphql` }
}
