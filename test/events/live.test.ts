import { randomUUID } from 'node:crypto'
import { once, setMaxListeners } from 'node:events'
import { connect as openSocket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { follow, startLive, TooManyFollowers } from '../../src/events/live.ts'
import type { Who } from '../../src/access/who.ts'
import { httpServer } from '../../src/graphql/http.ts'
import { createServer } from '../../src/graphql/server.ts'
import { timeOrderedId } from '../../src/payment/ids.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { noEnd, serving, spawnGateway, startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { subscribe } from '../support/stream.ts'

/** FicMart's pages and people watch payments change, whichever process changes them. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const FICMART: Who = { client: 'ficmart', role: 'service', customer: null, until: noEnd }
const CUSTOMER: Who = {
  client: 'customer:own',
  role: 'customer',
  customer: { id: 'own', orderId: '-', amountCents: 1 },
  until: noEnd,
}
const where = { databaseUrl: database.url, bankUrl: bank.url }
const one = await startLiveGateway()
const other = await startLiveGateway()
const browser = await startLiveGateway({ who: CUSTOMER })
/** Changes payments and says nothing, as a process that dies each time between its commit and its signal. */
const silent = startTestGateway(where)

/** A gateway that listens on a port; two of them are as two processes. */
async function startLiveGateway(options: { pollMs?: number; databaseUrl?: string; who?: Who } = {}) {
  const { databaseUrl = database.url } = options
  const started = startTestGateway({ ...where, databaseUrl })
  const { gateway } = started
  const sql = connect(databaseUrl, { connectionsMax: 1, statementTimeoutMs: 5_000 })
  // Signals alone must do, unless a test says otherwise.
  const live = await startLive(gateway, sql, options.pollMs ?? 3_600_000)
  const { who = FICMART } = options
  const server = createServer(gateway, { ...serving(), whoAsks: async () => who })
  const http = httpServer(server).listen(0, '127.0.0.1')
  await once(http, 'listening')
  whenFileEnds(async () => {
    await live.stop()
    http.closeAllConnections()
    http.close()
    await sql.end({ timeout: 1 })
  })
  const { port } = http.address() as AddressInfo
  const followers = () => [...gateway.live.followers.values()].reduce((sum, { size }) => sum + size, 0)
  return { ...started, live, port, url: `http://127.0.0.1:${port}/graphql`, followers }
}

type Told = { id: string; state: string; version: number; transitions: { toState: string }[] }
const UPDATED = `subscription ($by: PaymentUpdatedBy!) {
  paymentUpdated(by: $by) { id state version transitions { toState } }
}`
/** What a customer may see. */
const SEEN = 'subscription ($by: PaymentUpdatedBy!) { paymentUpdated(by: $by) { id state version } }'
const open = (url: string, by: object, document = UPDATED) =>
  subscribe<{ paymentUpdated: Told }>(url, document, { by })

async function following(by: Record<string, string>, url = other.url) {
  const stream = await open(url, by)
  onTestFinished(() => stream.close())
  const next = async () => (await stream.next())?.data?.paymentUpdated ?? null
  return { heartbeats: stream.heartbeats, ending: stream.ending, next }
}

describe('a payment that is followed', () => {
  it('is told as it is, then as another process changes it, with its history', async () => {
    const { id } = await authorized(one.client)
    const stream = await following({ paymentId: id })
    expect(await stream.next()).toMatchObject({ id, state: 'AUTHORIZED', version: 2 })
    await one.client.capture({ paymentId: id })
    const transitions = ['PENDING', 'AUTHORIZED', 'CAPTURED'].map((toState) => ({ toState }))
    expect(await stream.next()).toEqual({ id, state: 'CAPTURED', version: 3, transitions })
    await other.client.refund({ paymentId: id })
    expect(await stream.next()).toMatchObject({ state: 'REFUNDED', version: 4 })
  })

  it('by its order is told from its first moment on', async () => {
    const orderId = randomUUID()
    const stream = await following({ orderId })
    const gate = bank.faults.hold('before', { endpoint: 'authorizations', probe: false })
    const paying = authorized(one.client, { orderId })
    await gate.arrived
    expect(await stream.next()).toMatchObject({ state: 'PENDING', version: 1 })
    gate.open()
    const { id } = await paying
    expect(await stream.next()).toMatchObject({ id, state: 'AUTHORIZED', version: 2 })
  })

  it("by its customer is told among the customer's others, and nobody else's", async () => {
    const customerId = randomUUID()
    const first = await authorized(one.client, { customerId })
    const stream = await following({ customerId })
    expect(await stream.next()).toMatchObject({ id: first.id, state: 'AUTHORIZED' })
    await authorized(one.client)
    await one.client.void({ paymentId: first.id })
    expect(await stream.next()).toMatchObject({ id: first.id, state: 'VOIDED' })
    const second = await authorized(one.client, { customerId })
    let told = await stream.next()
    // PENDING may have been told, too.
    if (told?.version === 1) told = await stream.next()
    expect(told).toMatchObject({ id: second.id, state: 'AUTHORIZED' })
  })

  it('is not told again when only its operation moves; heartbeats come meanwhile', async () => {
    const { id } = await authorized(one.client)
    const stream = await following({ paymentId: id })
    await stream.next()
    const next = stream.next()
    bank.faults.add('bad-gateway', { endpoint: 'captures', probe: false, times: 4 })
    expect(await one.client.capture({ paymentId: id })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    const before = stream.heartbeats()
    await vi.waitFor(() => expect(stream.heartbeats()).toBeGreaterThanOrEqual(before + 2), 5_000)
    const query = '{ payment(by: { id: "ID" }) { state } }'.replace('ID', id)
    for (let state = ''; state !== 'CAPTURED';) {
      await sweep(one.gateway)
      state = (await one.client.query<{ payment: { state: string } }>(query)).payment.state
    }
    expect(await next).toMatchObject({ state: 'CAPTURED', version: 3 })
  })

  it('by a client that does not read is told once, as it is by then', async () => {
    const { id } = await captured(one.client)
    const subject = { by: 'payment', id: id.slice(4) } as const
    const gone = new AbortController()
    const updates = follow(other.gateway, {
      client: 'slow',
      atMost: 1,
      leaves: 0,
      subject,
      isFor: () => true,
      gone: [gone.signal],
    })
    await vi.waitFor(() => expect(other.gateway.live.isReading).toBe(false))
    await other.client.refund({ paymentId: id })
    await vi.waitFor(() => expect(other.gateway.live.isReading).toBe(false))
    expect((await updates.next()).value).toMatchObject({ state: 'REFUNDED' })
    const next = updates.next()
    gone.abort()
    expect(await next).toEqual({ done: true, value: undefined })
  })
})

describe('of a signal that is lost', () => {
  it('no event is: a listener whose connection was away reads all again', async () => {
    const { id } = await authorized(silent.client)
    const stream = await following({ paymentId: id })
    await stream.next()
    await silent.client.capture({ paymentId: id })
    const killed = await database.sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and query ilike 'listen %'`
    expect(killed.length).toBeGreaterThanOrEqual(2)
    expect(await stream.next()).toMatchObject({ state: 'CAPTURED', version: 3 })
    // And it listens again.
    await one.client.refund({ paymentId: id })
    expect(await stream.next()).toMatchObject({ state: 'REFUNDED', version: 4 })
  })

  it('no event is: what is followed is read again now and then', async () => {
    const polling = await startLiveGateway({ pollMs: 50 })
    const { id } = await authorized(silent.client)
    const stream = await following({ paymentId: id }, polling.url)
    await stream.next()
    await silent.client.capture({ paymentId: id })
    expect(await stream.next()).toMatchObject({ state: 'CAPTURED', version: 3 })
  })
})

describe('a stream', () => {
  it('of what there is not stays open and silent', async () => {
    const stream = await following({ paymentId: `pay_${timeOrderedId()}` })
    let told = false
    void stream.next().then(
      () => (told = true),
      () => null,
    )
    await authorized(one.client)
    await vi.waitFor(() => expect(stream.heartbeats()).toBeGreaterThanOrEqual(2), 5_000)
    expect(told).toBe(false)
  })

  it('leaves nothing behind when its client goes, however early', async () => {
    const { followers, port, url } = await startLiveGateway()
    const { id } = await authorized(one.client)
    const streams = await Promise.all(Array.from({ length: 20 }, () => open(url, { paymentId: id })))
    await Promise.all(streams.map((stream) => stream.next()))
    expect(followers()).toBe(20)
    for (const stream of streams) stream.close()
    const body = JSON.stringify({ query: UPDATED, variables: { by: { paymentId: id } } })
    const request = `POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    await Promise.all(
      Array.from({ length: 40 }, async (_, at) => {
        const socket = openSocket(port, '127.0.0.1')
        await once(socket, 'connect')
        socket.write(request)
        if (at % 2 === 0) await once(socket, 'data')
        socket.destroy()
        await once(socket, 'close')
      }),
    )
    await vi.waitFor(() => expect(followers()).toBe(0), 5_000)
  })

  it('of one client too many is refused, and nobody else notices', async () => {
    const { followers, gateway, url } = await startLiveGateway()
    const { id } = await authorized(one.client)
    const subject = { by: 'payment', id: id.slice(4) } as const
    const gone = new AbortController()
    setMaxListeners(0, gone.signal)
    for (let at = 0; at < 200; at += 1)
      follow(gateway, {
        client: 'ficmart',
        atMost: 200,
        leaves: 0,
        subject,
        isFor: () => true,
        gone: [gone.signal],
      })
    const refused = await open(url, { paymentId: id })
    expect(refused.status).toBe(429)
    expect(followers()).toBe(200)
    follow(gateway, { client: 'ops', atMost: 1, leaves: 0, subject, isFor: () => true, gone: [gone.signal] })
    // Customers, however many, leave some to those with keys.
    const guest = {
      client: 'guest',
      atMost: 9,
      leaves: 4_800,
      subject,
      isFor: () => true,
      gone: [gone.signal],
    }
    expect(() => follow(gateway, guest)).toThrow(TooManyFollowers)
    gone.abort()
    expect(followers()).toBe(0)
    expect((await open(url, { paymentId: id })).status).toBe(200)
  })

  it.each(['paymentId', 'orderId', 'customerId'])(
    'of a customer, by %s, tells of their own payments and of nobody else’s',
    async (by) => {
      const own = await authorized(one.client, { customerId: 'own', orderId: randomUUID() })
      const foreign = await authorized(one.client, { customerId: 'foreign', orderId: randomUUID() })
      const [watched, unwatched] = await Promise.all(
        [own, foreign].map(async ({ id }) => {
          const { payment } = await one.client.query<{ payment: { orderId: string; customerId: string } }>(
            `{ payment(by: { id: "${id}" }) { orderId customerId } }`,
          )
          return await open(browser.url, { [by]: { ...payment, paymentId: id }[by] }, SEEN)
        }),
      )
      if (watched === undefined || unwatched === undefined) throw new Error('no streams')
      onTestFinished(() => [watched, unwatched].forEach((stream) => stream.close()))
      // Others of theirs may come before it.
      for (let seen = ''; seen !== own.id;) {
        seen = (await watched.next())?.data?.paymentUpdated.id ?? own.id
        expect(seen).not.toBe(foreign.id)
      }
      let told = false
      void unwatched.next().then(
        () => (told = true),
        () => null,
      )
      await one.client.void({ paymentId: foreign.id })
      await one.client.void({ paymentId: own.id })
      expect(await watched.next()).toMatchObject({
        data: { paymentUpdated: { id: own.id, state: 'VOIDED' } },
      })
      await vi.waitFor(() => expect(unwatched.heartbeats()).toBeGreaterThanOrEqual(2), 5_000)
      expect(told).toBe(false)
    },
  )

  it('of a customer does not outlive their token, and they have five at most', async () => {
    const { id } = await authorized(one.client, { customerId: 'own' })
    const token = new AbortController()
    setMaxListeners(0, token.signal)
    const { url, followers } = await startLiveGateway({ who: { ...CUSTOMER, until: () => token.signal } })
    const streams = await Promise.all(Array.from({ length: 5 }, () => open(url, { paymentId: id }, SEEN)))
    expect((await open(url, { paymentId: id }, SEEN)).status).toBe(429)
    for (const stream of streams)
      expect(await stream.next()).toMatchObject({ data: { paymentUpdated: { id } } })
    token.abort()
    for (const stream of streams) expect([await stream.next(), stream.ending()]).toEqual([null, 'broken'])
    expect(followers()).toBe(0)
  })

  it('whose update cannot be told breaks off, and the next one tells it', async () => {
    const broken = await startLiveGateway()
    const { sql } = broken.gateway
    let isAway = false
    broken.gateway.sql = Object.assign(
      (...args: Parameters<typeof sql>) =>
        isAway && String(args[0]).includes('from transitions')
          ? Promise.reject(Object.assign(new Error('gone'), { code: 'CONNECTION_CLOSED' }))
          : sql(...args),
      sql,
    ) as typeof sql
    const { id } = await authorized(one.client)
    const stream = await open(broken.url, { paymentId: id })
    expect(await stream.next()).toMatchObject({ data: { paymentUpdated: { state: 'AUTHORIZED' } } })
    isAway = true
    await one.client.capture({ paymentId: id })
    expect(await stream.next()).toMatchObject({ data: null, errors: [{}] })
    expect([await stream.next(), stream.ending()]).toEqual([null, 'broken'])
    isAway = false
    const again = await open(broken.url, { paymentId: id })
    expect(await again.next()).toMatchObject({ data: { paymentUpdated: { state: 'CAPTURED' } } })
    again.close()
  })

  it('that is not wanted any more is over at once', async () => {
    const { id } = await authorized(one.client)
    const subject = { by: 'payment', id: id.slice(4) } as const
    const gone = [new AbortController().signal]
    const updates = follow(silent.gateway, {
      client: 'ficmart',
      atMost: 1,
      leaves: 0,
      subject,
      isFor: () => true,
      gone,
    })
    expect((await updates.next()).value).toMatchObject({ state: 'AUTHORIZED' })
    const next = updates.next()
    await updates.return?.()
    expect(await next).toEqual({ done: true, value: undefined })
    expect(silent.gateway.live.followers.size).toBe(0)
  })

  it.each([
    ['a value that does not fit', { paymentId: TEST_CARD.number }, 'INVALID_INPUT', 'by.paymentId: must be'],
    ['a value of another kind', { orderId: { number: TEST_CARD.number } }, 'BAD_USER_INPUT', '$by.orderId: '],
    ['two subjects', { orderId: TEST_CARD.number, customerId: '1' }, 'BAD_USER_INPUT', '$by: Exactly one'],
  ])('with %s is refused, and no value comes back', async (_, by, code, message) => {
    const stream = await open(other.url, by)
    const event = await stream.next()
    expect(event?.errors?.[0]).toMatchObject({
      message: expect.stringContaining(message) as string,
      extensions: { code },
    })
    expect(JSON.stringify(event)).not.toContain(TEST_CARD.number)
    expect([await stream.next(), stream.ending()]).toEqual([null, 'complete'])
  })

  it('says no more of a fault than any answer', async () => {
    const broken = await testDatabase()
    const gateway = await startLiveGateway({ pollMs: 50, databaseUrl: broken.url })
    const { id } = await authorized(gateway.client)
    const stream = await open(gateway.url, { paymentId: id })
    onTestFinished(() => stream.close())
    await stream.next()
    await broken.sql`alter table transitions rename to gone`
    await broken.sql`update payments set version = version + 1`
    expect(await stream.next()).toMatchObject({
      data: null,
      errors: [{ message: 'Unexpected error.', extensions: { code: 'INTERNAL_SERVER_ERROR' } }],
    })
  })

  it('breaks off when the gateway stops, for it is not over', async () => {
    const gateway = await spawnGateway({ DATABASE_URL: database.url, BANK_URL: bank.url })
    const { id } = await authorized(gateway.client)
    const stream = await following({ paymentId: id }, `${gateway.url}/graphql`)
    expect(await stream.next()).toMatchObject({ state: 'AUTHORIZED' })
    await one.client.capture({ paymentId: id })
    expect(await stream.next()).toMatchObject({ state: 'CAPTURED' })
    gateway.child.kill('SIGTERM')
    expect([await stream.next(), stream.ending()]).toEqual([null, 'broken'])
    expect(await gateway.exited).toBe(0)
  })
})
