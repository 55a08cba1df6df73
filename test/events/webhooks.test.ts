import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { claimDue, settleDelivery, switchRecording } from '../../src/events/deliveries.ts'
import { createReceiver } from '../../src/events/receiver.ts'
import { recordAsConfigured, sendDue, startSending, startWebhooks } from '../../src/events/webhooks.ts'
import { readConfig } from '../../src/config.ts'
import type { Database } from '../../src/db/connection.ts'
import { systemClock } from '../../src/gateway.ts'
import type { Gateway } from '../../src/gateway.ts'
import { httpBank, rawBank } from '../bank/scripted-bank.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, captured, TEST_CARD } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway, startTestGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { scrape } from '../support/metrics.ts'
import { startReceiver } from '../support/receiver.ts'
import type { Received } from '../support/receiver.ts'

/** FicMart's back end is told of every transition, whatever happens to it or to us. */

const bank = await startTestBank()
const HOUR_MS = 3_600_000
/** What a busy machine adds to a clock that is put forward. */
const SLACK_MS = 5_000

/** A gateway, and FicMart's receiver, with a database of their own: what is due is this test's alone. */
async function scene(timeoutMs = 10_000) {
  const [database, receiver] = await Promise.all([testDatabase(), startReceiver()])
  const settings = { attemptTimeoutMs: 10_000 }
  const where = { databaseUrl: database.url, bankUrl: bank.url, clientName: 'ops', settings }
  const { gateway, client, fetch, logged } = startTestGateway(where)
  await switchRecording(gateway, true)
  const to = createReceiver({ url: receiver.url, secrets: [receiver.secret], timeoutMs })
  whenFileEnds(() => to.close())

  let lateMs = 0
  const clock = { ...systemClock, databaseTime: () => new Date(Date.now() + lateMs) }
  const later: Gateway = { ...gateway, clock }
  return {
    database,
    /** Its clock can be put forward. */
    gateway: later,
    client,
    fetch,
    logged,
    receiver,
    to,
    where,
    putForward: (ms: number) => (lateMs += ms),
    sendDue: async () => await sendDue(later, to),
    /** Until nothing is due. */
    sendAll: async () => {
      while ((await sendDue(later, to)) > 0);
    },
    deliveries: async (paymentId: string) =>
      await client
        .query<{ payment: { transitions: { delivery: Delivery | null }[] } }>(
          `{ payment(by: { id: "${paymentId}" }) { transitions { delivery {
            id type status attempts lastHttpStatus lastError nextAttemptAt endedAt } } } }`,
        )
        .then(({ payment }) => payment.transitions.map(({ delivery }) => delivery)),
  }
}
type Delivery = {
  id: string
  type: string
  status: string
  attempts: number
  lastHttpStatus: number | null
  lastError: string | null
  nextAttemptAt: string | null
  endedAt: string | null
}

const SECRET = `whsec_${Buffer.alloc(24, 1).toString('base64')}`
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'

/** Begins with `first`, then the same for ever. */
function drip(socket: Socket, first: string, again: string): void {
  socket.write(first)
  const timer = setInterval(() => socket.write(again), 10)
  socket.on('close', () => clearInterval(timer))
}

function rfc850(date: Date): string {
  const [, day = '', month = '', year = '', time = ''] =
    / (\d\d) (\w+) \d\d(\d\d) (\S+)/.exec(date.toUTCString()) ?? []
  const weekday = date.toLocaleDateString('en-US', { weekday: 'long', timeZone: 'UTC' })
  return `${weekday}, ${day}-${month}-${year} ${time} GMT`
}

const told = (received: readonly Received[]) => received.map(({ event }) => event.type)
const eventId = (paymentId: string, version: number) => `evt_${paymentId.slice(4)}_${version}`

describe('every transition', () => {
  it('is told once, in order, signed, with what never changes about it', async () => {
    const { client, sendAll, receiver, deliveries } = await scene()
    const { id } = await captured(client, { orderId: 'order-1' })
    await client.refund({ paymentId: id })
    await sendAll()
    expect(receiver.unverified).toEqual([])
    expect(told(receiver.received)).toEqual([
      'payment.pending',
      'payment.authorized',
      'payment.captured',
      'payment.refunded',
    ])
    const [, , capture] = receiver.received
    expect(capture?.id).toBe(eventId(id, 3))
    const at = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) as string
    expect(capture?.event).toEqual({
      id: eventId(id, 3),
      type: 'payment.captured',
      timestamp: at,
      data: {
        payment: {
          id,
          orderId: 'order-1',
          customerId: 'customer-1',
          amount: { cents: 4_999, currency: 'USD' },
          card: { brand: 'visa', last4: '1111' },
          state: 'CAPTURED',
          version: 3,
        },
        transition: { version: 3, fromState: 'AUTHORIZED', toState: 'CAPTURED', at, bankAt: at },
      },
    })
    expect(JSON.stringify(receiver.received)).not.toContain(TEST_CARD.number)
    expect(await deliveries(id)).toEqual(
      receiver.received.map(({ event }) => ({
        id: event.id,
        type: event.type,
        status: 'DELIVERED',
        attempts: 1,
        lastHttpStatus: 204,
        lastError: null,
        nextAttemptAt: null,
        endedAt: at,
      })),
    )
  })

  it('of a decline is told, too', async () => {
    const { client, sendAll, receiver } = await scene()
    await client.authorize({ card: { ...TEST_CARD, cvv: '999' } })
    await sendAll()
    expect(told(receiver.received)).toEqual(['payment.pending', 'payment.declined'])
  })

  it('is signed by both secrets while one replaces the other', async () => {
    const { client, gateway, receiver } = await scene()
    const secrets = [`whsec_${Buffer.alloc(24, 1).toString('base64')}`, receiver.secret]
    const to = createReceiver({ url: receiver.url, secrets })
    await authorized(client)
    await sendDue(gateway, to)
    expect([told(receiver.received), receiver.unverified]).toEqual([['payment.pending'], []])
  })
})

describe('a receiver', () => {
  it.each([
    ['answers 500', 500, { lastHttpStatus: 500, lastError: 'HTTP_500' }],
    ['points elsewhere', 308, { lastHttpStatus: 308, lastError: 'HTTP_308' }],
    // There is no other receiver: to stop here would lose what it has not been told.
    ['says that it is gone', 410, { lastHttpStatus: 410, lastError: 'HTTP_410' }],
    ['does not answer in time', null, { lastHttpStatus: null, lastError: 'TIMEOUT' }],
  ])('that %s is asked again, under the same id and with the same words', async (_, status, last) => {
    const { client, sendDue, sendAll, putForward, receiver, deliveries } = await scene(1_000)
    const { id } = await captured(client)
    receiver.answers = () => status
    await sendAll()
    // The second waits for the first.
    expect(told(receiver.received)).toEqual(['payment.pending'])
    const [first, second] = await deliveries(id)
    expect(first).toMatchObject({ status: 'FAILING', attempts: 1, ...last, endedAt: null })
    expect(second).toMatchObject({ status: 'PENDING', attempts: 0, nextAttemptAt: null })
    // An answer that comes too late changes nothing.
    receiver.received[0]?.answer(204)

    receiver.answers = () => 204
    putForward(3_000)
    expect(await sendDue()).toBe(0)
    putForward(4_000)
    await sendAll()
    const [failed, again, ...others] = receiver.received
    expect(again).toMatchObject({ id: failed?.id, body: failed?.body })
    expect(told(others)).toEqual(['payment.authorized', 'payment.captured'])
  })

  it('that is down loses nothing', async () => {
    const { client, sendAll, putForward, receiver, deliveries, logged } = await scene()
    await receiver.goDown()
    const paid = await Promise.all([captured(client), captured(client), captured(client)])
    await sendAll()
    const [first] = await deliveries(paid[0].id)
    expect(first).toMatchObject({ status: 'FAILING', lastHttpStatus: null, lastError: 'ECONNREFUSED' })
    await receiver.comeBack()
    putForward(7_000)
    await sendAll()
    for (const { id } of paid) {
      const own = receiver.received.filter(({ event }) => event.data.payment.id === id)
      expect(told(own)).toEqual(['payment.pending', 'payment.authorized', 'payment.captured'])
    }
    // One line when it begins, one when it ends.
    const lines = logged.filter((line) => /the receiver (does not )?take/.test(line))
    expect(lines.map((line) => (JSON.parse(line) as { level: number }).level)).toEqual([40, 30])
  })

  it('that hangs over one payment gets the others meanwhile', async () => {
    const { client, gateway, receiver, to } = await scene(1_000)
    receiver.answers = ({ event }) => (event.data.payment.orderId === 'slow' ? null : 204)
    const sending = startSending(gateway, to)
    onTestFinished(() => sending.stop())
    await authorized(client, { orderId: 'slow' })
    await receiver.until((received) => received.length === 1)
    const { id } = await captured(client)
    await receiver.until((received) => received.some((one) => one.id === eventId(id, 3)))
    expect(receiver.received.filter(({ event }) => event.data.payment.orderId === 'slow')).toHaveLength(1)
  })

  const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
  const bodies: [string, (socket: Socket) => void][] = [
    ['a body that never comes', (socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n')],
    ['a body that stops', (socket) => socket.write(`${CHUNKED}2\r\nok\r\n`)],
    ['a body that never ends', (socket) => drip(socket, CHUNKED, '2\r\nok\r\n')],
    ['a body without a length that never ends', (socket) => drip(socket, 'HTTP/1.1 200 OK\r\n\r\n', 'ok')],
    ['a huge body', (socket) => drip(socket, CHUNKED, `10000\r\n${' '.repeat(0x10000)}\r\n`)],
    ['100 Continue unasked', (socket) => socket.write(`${CONTINUE}HTTP/1.1 204 No Content\r\n\r\n`)],
    [
      '100 Continue in a packet of its own',
      (socket) =>
        socket.write(CONTINUE, () => setImmediate(() => socket.write('HTTP/1.1 204 No Content\r\n\r\n'))),
    ],
    [
      '103 Early Hints',
      (socket) => socket.write(`HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n`),
    ],
  ]
  it.each(bodies)(
    'that answers 2xx with %s has taken it, and gets the next one at once',
    async (_, answer) => {
      const { client, gateway, deliveries } = await scene()
      const { url, requests } = await rawBank((socket) => {
        answer(socket)
        socket.on('error', () => {})
      })
      const to = createReceiver({ url, secrets: [SECRET], timeoutMs: 60_000 })
      onTestFinished(() => to.close())
      const { id } = await captured(client)
      const startedMs = performance.now()
      while ((await sendDue(gateway, to)) > 0);
      expect(performance.now() - startedMs).toBeLessThan(10_000)
      expect(requests).toHaveLength(3)
      expect(await deliveries(id)).toMatchObject(
        requests.map(() => ({ status: 'DELIVERED', attempts: 1, lastError: null })),
      )
    },
  )

  it('whose bodies are short is asked on the same connection', async () => {
    const { client, gateway } = await scene()
    const { url, connections } = await httpBank((request, response) => {
      request.resume()
      response.end('{"received":true}')
    })
    const to = createReceiver({ url, secrets: [SECRET] })
    onTestFinished(() => to.close())
    await captured(client)
    while ((await sendDue(gateway, to)) > 0);
    expect(connections()).toBeLessThanOrEqual(2)
  })

  const inTwoMinutes = () => new Date(Date.now() + 120_000)
  const OWN_MS = [0.75 * 5_000, 1.25 * 5_000 + SLACK_MS] as const
  const TWO_MINUTES_MS = [120_000 - 1_000 - SLACK_MS, 120_000 + SLACK_MS] as const
  const AN_HOUR_MS = [HOUR_MS, HOUR_MS + SLACK_MS] as const
  it.each<[number, string, () => string, readonly [number, number]]>([
    [429, '120', () => '120', TWO_MINUTES_MS],
    [503, '120', () => '120', TWO_MINUTES_MS],
    [503, 'a date', () => inTwoMinutes().toUTCString(), TWO_MINUTES_MS],
    [429, 'a date of the old form', () => rfc850(inTwoMinutes()), TWO_MINUTES_MS],
    [500, '120', () => '120', TWO_MINUTES_MS],
    // Never sooner than it would be anyway, and never later than an hour.
    [429, '0', () => '0', OWN_MS],
    [503, 'a date that is past', () => 'Wed, 21 Oct 2015 07:28:00 GMT', OWN_MS],
    [429, '7 days', () => '604800', AN_HOUR_MS],
    [429, 'a number without end', () => '9'.repeat(400), AN_HOUR_MS],
    [503, 'a date far away', () => 'Fri, 31 Dec 9999 23:59:59 GMT', AN_HOUR_MS],
    ...['soon', '-120', '1.5', '1e9', '', '120, 240', '2099-01-01', 'Fri, nonsense'].map(
      (text) =>
        [503, `"${text}", which is none`, () => text, OWN_MS] as [
          number,
          string,
          () => string,
          typeof OWN_MS,
        ],
    ),
  ])('that answers %i with Retry-After %s is heard', async (status, _, retryAfter, [atLeastMs, atMostMs]) => {
    const { client, sendDue, receiver, deliveries, database } = await scene()
    const { id } = await authorized(client)
    receiver.answers = () => status
    receiver.headers = { 'retry-after': retryAfter() }
    await sendDue()
    expect(await deliveries(id)).toMatchObject([
      { status: 'FAILING', lastHttpStatus: status, lastError: `HTTP_${status}` },
      { status: 'PENDING' },
    ])
    const [row] = await database.sql<{ waitMs: number }[]>`
      select extract(epoch from due_at - last_attempt_at)::float8 * 1000 as wait_ms from webhook_deliveries
      where payment_id = ${id.slice(4)} and version = 1`
    expect(row?.waitMs).toEqual(within(atLeastMs, atMostMs))
  })

  it('that asks to wait beyond the three days is asked when they end', async () => {
    const { client, sendDue, putForward, receiver, deliveries } = await scene()
    const { id } = await authorized(client)
    receiver.answers = () => 503
    await sendDue()
    putForward(72 * HOUR_MS - 600_000)
    receiver.headers = { 'retry-after': '3600' }
    await sendDue()
    expect((await deliveries(id))[0]).toMatchObject({ status: 'FAILING', attempts: 2 })
    putForward(600_000)
    await sendDue()
    expect((await deliveries(id))[0]).toMatchObject({ status: 'GIVEN_UP', attempts: 3 })
  })

  it('that never takes it is asked for three days, then it is given up, and the next one goes', async () => {
    const { client, database, sendDue, putForward, receiver, deliveries, logged } = await scene()
    const { id } = await authorized(client)
    receiver.answers = ({ event }) => (event.type === 'payment.pending' ? 500 : 204)
    const waits: number[] = []
    for (;;) {
      expect(await sendDue()).toBe(1)
      const [row] = await database.sql<{ due: Date | null; since: Date; last: Date }[]>`
        select due_at as due, first_attempt_at as since, last_attempt_at as last from webhook_deliveries
        where payment_id = ${id.slice(4)} and version = 1`
      if (row === undefined || row.due === null) break
      waits.push(row.due.getTime() - row.last.getTime())
      putForward(row.due.getTime() - row.last.getTime())
      // Never before its time.
      if (waits.length === 5) {
        putForward(-1_000)
        expect(await sendDue()).toBe(0)
        putForward(1_000)
      }
    }
    let total = 0
    for (const wait of waits) {
      // As long as it has been failing, a quarter of chance either way; the last one ends with the three days.
      const usual = Math.min(Math.max(total, 5_000), HOUR_MS)
      expect(wait).toEqual(within(wait === waits.at(-1) ? 0 : 0.75 * usual, 1.25 * usual + SLACK_MS))
      total += wait
    }
    expect(total).toEqual(within(72 * HOUR_MS - SLACK_MS, 72 * HOUR_MS + SLACK_MS))
    const [given, next] = await deliveries(id)
    expect(given).toMatchObject({ status: 'GIVEN_UP', lastError: 'HTTP_500', attempts: waits.length + 1 })
    expect(logged.filter((line) => line.includes('given up after three days'))).toHaveLength(1)
    await sendDue()
    expect(next?.status).toBe('PENDING')
    expect(receiver.received.at(-1)?.id).toBe(eventId(id, 2))
  })
})

describe('a gateway', () => {
  it('that is killed after it has sent, and before it knows, sends it again under the same id', async () => {
    const { client, where, receiver, sendDue, sendAll, putForward } = await scene()
    receiver.answers = () => null
    const doomed = await spawnGateway(environment(where, receiver))
    const { id } = await authorized(doomed.client)
    await receiver.until((received) => received.length === 1)
    doomed.child.kill('SIGKILL')
    await doomed.exited

    receiver.answers = () => 204
    expect(await sendDue()).toBe(0)
    putForward(30_000)
    await sendAll()
    expect(receiver.received.map((one) => one.id)).toEqual([1, 1, 2].map((version) => eventId(id, version)))
    expect(receiver.received[1]?.body).toBe(receiver.received[0]?.body)
    await client.capture({ paymentId: id })
    await sendAll()
    expect(receiver.received.at(-1)?.id).toBe(eventId(id, 3))
  })

  it('that is stopped waits for the answer to what it has sent', async () => {
    const { where, receiver, database } = await scene()
    receiver.answers = () => null
    const gateway = await spawnGateway(environment(where, receiver))
    await authorized(gateway.client)
    await receiver.until((received) => received.length === 1)
    gateway.child.kill('SIGTERM')
    await vi.waitFor(() => expect(gateway.output()).toContain('stopping'), 5_000)
    // It may be just looking for what is due: that is the next one, once this one is answered.
    receiver.answers = () => 200
    receiver.received[0]?.answer(200)
    expect(await gateway.exited).toBe(0)
    const rows = await database.sql`select status, last_http_status from webhook_deliveries order by version`
    const sent = { status: 'DELIVERED', lastHttpStatus: 200 }
    const next = receiver.received.length === 2 ? sent : { status: 'PENDING', lastHttpStatus: null }
    expect(rows).toEqual([sent, next])
  })

  it('has recorded what it knows when it says that it has stopped sending', async () => {
    const { client, gateway, receiver, to, database } = await scene()
    receiver.answers = () => null
    const sending = startSending(gateway, to)
    await authorized(client)
    await receiver.until((received) => received.length === 1)
    let isStopped = false
    const stopped = sending.stop().then(() => (isStopped = true))
    await database.sql`select pg_sleep(0.05)`
    expect(isStopped).toBe(false)
    receiver.received[0]?.answer(200)
    await stopped
    const rows = await database.sql`select status from webhook_deliveries order by version`
    expect(rows).toEqual([{ status: 'DELIVERED' }, { status: 'PENDING' }])
  })

  it('leaves alone what another one is just claiming', async () => {
    const { client, gateway, database } = await scene()
    await authorized(client)
    const second = await authorized(client)
    await database.driver.begin(async (sql) => {
      await sql`select from webhook_deliveries where payment_id <> ${second.id.slice(4)} for update`
      const claimed = await claimDue(gateway, 10)
      expect(claimed.map(({ paymentId }) => `pay_${paymentId}`)).toEqual([second.id])
    })
  })

  it('and another, both sending while payments are made, send each event once and in order', async () => {
    const { client, gateway, where, receiver, to, database } = await scene()
    const second = startTestGateway(where)
    const sendings = [startSending(gateway, to), startSending(second.gateway, to)]
    onTestFinished(async () => void (await Promise.all(sendings.map((sending) => sending.stop()))))
    const ids = await Promise.all(
      Array.from({ length: 40 }, async (_, at) => {
        const by = at % 2 === 0 ? client : second.client
        const { id } = await captured(by)
        await by.refund({ paymentId: id })
        return id
      }),
    )
    await receiver.until((received) => new Set(received.map((one) => one.id)).size === 160)
    for (const id of ids) {
      const own = receiver.received.filter(({ event }) => event.data.payment.id === id)
      expect(own.map(({ event }) => event.data.transition.version)).toEqual([1, 2, 3, 4])
    }
    await Promise.all(sendings.map((sending) => sending.stop()))
    expect(receiver.received).toHaveLength(160)
    const rows =
      await database.sql`select status, attempts, count(*)::int from webhook_deliveries group by 1, 2`
    expect(rows).toEqual([{ status: 'DELIVERED', attempts: 1, count: 160 }])
  })

  it('that learns late what came of it changes nothing but by a receipt', async () => {
    const { client, gateway, putForward, database } = await scene()
    await authorized(client)
    const [slow] = await claimDue(gateway, 10)
    putForward(30_000)
    const [quick] = await claimDue(gateway, 10)
    if (slow === undefined || quick === undefined) throw new Error('nothing was due')
    expect([slow.attempts, quick.attempts]).toEqual([1, 2])
    expect(await settleDelivery(gateway, slow, FAILED)).toBe('PENDING')
    expect(await settleDelivery(gateway, slow, TAKEN)).toBe('DELIVERED')
    expect(await settleDelivery(gateway, quick, FAILED)).toBe('DELIVERED')
    const [next] =
      await database.sql`select due_at is not null as due from webhook_deliveries where version = 2`
    expect(next).toEqual({ due: true })
  })
})

const FAILED = { delivered: false, httpStatus: 500, error: 'HTTP_500', retryAfterMs: null }
const TAKEN = { delivered: true, httpStatus: 200, error: null, retryAfterMs: null }

const environment = (
  { databaseUrl, bankUrl }: { databaseUrl: string; bankUrl: string },
  { url, secret }: { url: string; secret: string },
) => ({ DATABASE_URL: databaseUrl, BANK_URL: bankUrl, WEBHOOK_URL: url, WEBHOOK_SECRET: secret })

const within = (least: number, most: number): unknown =>
  expect.toSatisfy((value: number) => value >= least && value <= most, `${least} to ${most}`)

describe('the next one of a payment', () => {
  const capture = (payment: string) => (sql: Database) => sql`
    insert into transitions (payment_id, version, from_state, to_state, at, operation_id, cause, actor)
    values (${payment}, 3, 'AUTHORIZED', 'CAPTURED', clock_timestamp(), ${randomUUID()}, 'CAPTURE', 'test')`
  const receipt = (payment: string) => (sql: Database) => sql`
    select settle_delivery(${payment}, 2, 1, ${sql.json({ ...TAKEN, giveUpAfterMs: 1_000 })})`

  it.each([
    ['comes while the one before it is being settled', receipt, capture],
    ['is there already, not committed, when the one before it is settled', capture, receipt],
  ])('that %s is not forgotten', async (_, first, then) => {
    const { client, sendDue, gateway, database } = await scene()
    const id = (await authorized(client)).id.slice(4)
    await sendDue()
    await claimDue(gateway, 10)
    let second: Promise<unknown> = Promise.resolve()
    await database.driver.begin(async (sql) => {
      await first(id)(sql as unknown as Database)
      second = then(id)(database.sql).execute()
      await vi.waitFor(async () => {
        const waiting = await database.sql`
          select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
        expect(waiting).toHaveLength(1)
      }, 5_000)
    })
    await second
    const rows = await database.sql`
      select version, status, due_at is not null as due from webhook_deliveries order by version`
    expect(rows.slice(1)).toEqual([
      { version: 2, status: 'DELIVERED', due: false },
      { version: 3, status: 'PENDING', due: true },
    ])
  })
})

describe('operators', () => {
  type Resent = { resendWebhook: { __typename: string; code?: string; delivery?: Delivery } }
  const RESEND = `mutation ($input: ResendWebhookInput!) { resendWebhook(input: $input) {
    __typename ... on PaymentProblem { code } ... on WebhookResent { delivery { id status nextAttemptAt } } } }`

  it('have one that was delivered, and one that was given up, sent again; who and why is kept', async () => {
    const { client, database, sendAll, putForward, receiver, deliveries } = await scene()
    const { id } = await authorized(client)
    receiver.answers = ({ event }) => (event.data.transition.version === 1 ? 500 : 204)
    await sendAll()
    putForward(72 * HOUR_MS)
    await sendAll()
    expect((await deliveries(id)).map((one) => one?.status)).toEqual(['GIVEN_UP', 'DELIVERED'])

    for (const version of [1, 2]) {
      const input = { webhookId: eventId(id, version), reason: `lost in the fire ${version}` }
      const { resendWebhook } = await client.query<Resent>(RESEND, { input })
      expect(resendWebhook).toMatchObject({
        __typename: 'WebhookResent',
        delivery: { id: input.webhookId, status: 'PENDING', nextAttemptAt: expect.any(String) as string },
      })
    }
    receiver.received.length = 0
    await sendAll()
    expect(receiver.received.map((one) => one.id).toSorted()).toEqual([eventId(id, 1), eventId(id, 2)])
    // Three days of its own.
    expect((await deliveries(id)).map((one) => one?.status)).toEqual(['FAILING', 'DELIVERED'])
    receiver.answers = () => 204
    putForward(7_000)
    await sendAll()
    expect((await deliveries(id)).map((one) => one?.status)).toEqual(['DELIVERED', 'DELIVERED'])
    const { payment } = await client.query<{ payment: { auditLines: object[] } }>(
      `{ payment(by: { id: "${id}" }) { auditLines { action actor reason entered { name value } } } }`,
    )
    expect(payment.auditLines).toEqual(
      [1, 2].map((version) => ({
        action: 'RESEND_WEBHOOK',
        actor: 'ops',
        reason: `lost in the fire ${version}`,
        entered: [{ name: 'webhook', value: eventId(id, version) }],
      })),
    )
    expect(await database.sql`select from webhook_deliveries where resent_at is null`).toHaveLength(0)
  })

  it('that ask while it is being sent in vain are not forgotten', async () => {
    const { client, gateway, sendDue, receiver } = await scene()
    const { id } = await authorized(client)
    const [claimed] = await claimDue(gateway, 1)
    if (claimed === undefined) throw new Error('nothing was due')
    await client.query<Resent>(RESEND, { input: { webhookId: eventId(id, 1), reason: 'impatient' } })
    expect(await settleDelivery(gateway, claimed, FAILED)).toBe('PENDING')
    await sendDue()
    expect(told(receiver.received)).toEqual(['payment.pending'])
  })

  it('cannot send one before its turn, one that there is not, or without a reason', async () => {
    const { client, sendDue, receiver } = await scene()
    const { id } = await authorized(client)
    receiver.answers = () => 500
    const resend = async (input: object) => (await client.query<Resent>(RESEND, { input })).resendWebhook
    expect(await resend({ webhookId: eventId(id, 2), reason: 'eager' })).toMatchObject({
      delivery: { nextAttemptAt: null },
    })
    await sendDue()
    expect(told(receiver.received)).toEqual(['payment.pending'])
    expect(await resend({ webhookId: eventId(id, 9), reason: 'why not' })).toMatchObject({
      __typename: 'WebhookNotFound',
      code: 'WEBHOOK_NOT_FOUND',
    })
    expect(await resend({ webhookId: eventId(id, 1), reason: ' ' })).toMatchObject({ code: 'INVALID_INPUT' })
    expect(await resend({ webhookId: id, reason: 'wrong id' })).toMatchObject({ code: 'INVALID_INPUT' })
  })

  it('see what is failing, given up or waiting, page by page and in numbers', async () => {
    const { client, fetch, sendAll, receiver, database } = await scene()
    const paid = [await authorized(client), await authorized(client), await authorized(client)]
    receiver.answers = ({ event }) => (event.data.payment.id === paid[0]?.id ? 204 : 500)
    await sendAll()
    type Page = {
      webhookDeliveries: {
        edges: { node: { id: string; payment: { id: string } } }[]
        pageInfo: { hasNextPage: boolean; endCursor: string }
      }
    }
    const page = async (filter: object | null, after: string | null = null, first = 2) =>
      (
        await client.query<Page>(
          `query ($filter: WebhookDeliveryFilter, $after: String, $first: Int) {
            webhookDeliveries(filter: $filter, after: $after, first: $first) {
              edges { node { id payment { id } } } pageInfo { hasNextPage endCursor } } }`,
          { filter, after, first },
        )
      ).webhookDeliveries
    const ids = ({ edges }: Page['webhookDeliveries']) => edges.map(({ node }) => node.id)
    const [one, two, three] = paid.map(({ id }) => id) as [string, string, string]
    expect(ids(await page({ status: 'FAILING' }))).toEqual([eventId(three, 1), eventId(two, 1)])
    expect(ids(await page({ status: 'PENDING' }))).toEqual([eventId(three, 2), eventId(two, 2)])
    expect(ids(await page({ status: 'DELIVERED' }))).toEqual([eventId(one, 2), eventId(one, 1)])
    expect(ids(await page({ status: 'GIVEN_UP' }))).toEqual([])
    expect(ids(await page({ paymentId: two }))).toEqual([eventId(two, 2), eventId(two, 1)])
    const all: string[] = []
    for (let after: string | null = null, more = true; more;) {
      const { edges, pageInfo } = await page(null, after, 4)
      all.push(...edges.map(({ node }) => node.id))
      after = pageInfo.endCursor
      more = pageInfo.hasNextPage
    }
    expect(all).toEqual([three, two, one].flatMap((id) => [eventId(id, 2), eventId(id, 1)]))

    await database.sql`
      update webhook_deliveries set recorded_at = recorded_at - interval '1 hour'
      where payment_id = ${two.slice(4)} and version = 1`
    await database.sql`
      update webhook_deliveries set status = 'GIVEN_UP', due_at = null, ended_at = clock_timestamp()
      where payment_id = ${three.slice(4)} and version = 1`
    const numbers = await scrape(fetch)
    expect(numbers.value('gateway_webhooks_waiting')).toBe(3)
    expect(numbers.value('gateway_webhooks_given_up')).toBe(1)
    expect(numbers.value('gateway_oldest_webhook_seconds')).toEqual(within(3_600, 3_700))
    expect(numbers.value('gateway_webhooks_sent_total{result="failed"}')).toBeGreaterThanOrEqual(2)
  })
})

describe('recording', () => {
  it('begins with the first start that has a receiver, outlives one without, and ends by a word', async () => {
    const [database, receiver] = await Promise.all([testDatabase(), startReceiver()])
    const { gateway, client, logged } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
    const start = async (webhook: Parameters<typeof startWebhooks>[1]) => {
      await recordAsConfigured(gateway, webhook)
      await startWebhooks(gateway, webhook).stop()
    }
    const recorded = async () => {
      await authorized(client)
      const [row] = await database.sql<{ count: number }[]>`select count(*)::int from webhook_deliveries`
      return row?.count
    }
    await start(null)
    expect(await recorded()).toBe(0)
    await start({ url: receiver.url, secrets: [receiver.secret] })
    expect(await recorded()).toBe(2)
    expect(logged.join()).not.toContain('has no WEBHOOK_URL')
    await start(null)
    expect(logged.join()).toContain('has no WEBHOOK_URL')
    expect(await recorded()).toBe(4)
    await start('off')
    expect(await recorded()).toBe(4)
    await start('off')
    await start(null)
    expect(await recorded()).toBe(4)
  })

  it('that another process has ended is told by those that send, and what is left waits for nobody', async () => {
    const [database, receiver] = await Promise.all([testDatabase(), startReceiver()])
    const where = { databaseUrl: database.url, bankUrl: bank.url }
    const [sender, wrong] = [startTestGateway(where), startTestGateway(where)]
    await receiver.goDown()
    const to = { url: receiver.url, secrets: [receiver.secret] }
    await recordAsConfigured(sender.gateway, to)
    const sending = startWebhooks(sender.gateway, to, 20)
    onTestFinished(() => sending.stop())
    await authorized(wrong.client)
    expect((await scrape(sender.fetch)).value('gateway_webhooks_waiting')).toBe(2)
    await recordAsConfigured(wrong.gateway, 'off')
    await vi.waitFor(() => expect(sender.logged.join()).toContain('switched off by a process'), 5_000)
    expect((await scrape(wrong.fetch)).value('gateway_webhooks_waiting')).toBe(0)
    expect((await scrape(wrong.fetch)).value('gateway_oldest_webhook_seconds')).toBe(0)
  })

  it.each([
    [{ WEBHOOK_URL: 'https://ficmart.example/hooks' }, 'WEBHOOK_SECRET must be'],
    [
      { WEBHOOK_URL: 'ftp://ficmart.example' },
      'WEBHOOK_URL: must be a URL that starts with http:// or https://',
    ],
    [{ WEBHOOK_URL: 'http://x', WEBHOOK_SECRET: 'whsec_dG9vIHNob3J0' }, 'WEBHOOK_SECRET.0: must be whsec_'],
    [{ WEBHOOK_URL: 'http://x', WEBHOOK_SECRET: 'hunter2' }, 'WEBHOOK_SECRET.0: must be whsec_'],
  ])('does not begin with %j', (env, said) => {
    expect(() => readConfig(env)).toThrow(said)
    expect(() => readConfig(env)).not.toThrow(/dG9v|hunter2/)
  })
})
