import { once } from 'node:events'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { httpServer } from '../../src/graphql/http.ts'
import { createServer } from '../../src/graphql/server.ts'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { serving, startTestGateway } from '../support/gateway.ts'

/** HTTP as proxies, health checks, old libraries and strangers speak it, byte by byte over a socket. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway, logged } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const http = httpServer(createServer(gateway, serving())).listen(0, '127.0.0.1')
await once(http, 'listening')
afterAll(() => {
  http.closeAllConnections()
  http.close()
})
const { port } = http.address() as AddressInfo

type Answer = { status: number; headers: Headers; body: string; isClosed: boolean }

/** What comes back, until the gateway closes the connection or the answer is whole. */
async function say(text: string): Promise<Answer> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  let said = ''
  const closed = once(socket, 'close')
  socket.on('data', (chunk: Buffer) => (said += chunk.toString()))
  socket.write(text, 'latin1')
  const isWhole = () => {
    const [head = '', body = ''] = said.split('\r\n\r\n')
    const length = /^content-length: (\d+)/im.exec(head)?.[1] ?? (head.includes('chunked') ? 1 : 0)
    return head !== '' && !/^connection: close/im.test(head) && Buffer.byteLength(body) >= Number(length)
  }
  await Promise.race([closed, vi.waitUntil(isWhole, { timeout: 5_000, interval: 5 }).catch(() => null)])
  const isClosed = socket.closed
  socket.destroy()
  const [head = '', ...rest] = said.split('\r\n\r\n')
  const [statusLine = '', ...lines] = head.split('\r\n')
  const headers = new Headers(lines.map((line) => line.split(/: */, 2) as [string, string]))
  return { status: Number(statusLine.split(' ')[1]), headers, body: rest.join('\r\n\r\n'), isClosed }
}

const BODY = '{"query":"{ __typename }"}'
const post = (start: string, headers = 'Host: gateway\r\n', body = BODY, type = 'application/json') =>
  `${start}\r\n${headers}Content-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n${body}`

const PREFLIGHTED =
  'Host: gateway\r\nAccept: application/graphql-response+json\r\ngraphql-require-preflight: 1\r\n'
const SSE = 'Host: gateway\r\nAccept: text/event-stream\r\n'
const SUBSCRIPTION = '{"query":"subscription { paymentUpdated(by: { orderId: \\"o\\" }) { id } }"}'

describe('HTTP/1.0', () => {
  it.each(['/health/ready', '/health/live', '/metrics'])('without Host may ask for %s', async (path) => {
    expect(await say(`GET ${path} HTTP/1.0\r\n\r\n`)).toMatchObject({ status: 200, isClosed: true })
    expect((await say(`HEAD ${path} HTTP/1.0\r\n\r\n`)).status).toBe(200)
  })

  it('is answered at the API, and its connection kept if it says so', async () => {
    const kept = await say(post('POST /graphql HTTP/1.0', 'Connection: keep-alive\r\n'))
    expect(kept).toMatchObject({ status: 200, body: '{"data":{"__typename":"Query"}}', isClosed: false })
    expect(kept.headers.get('connection')).toBe('keep-alive')
    expect(await say(post('POST /graphql HTTP/1.0', ''))).toMatchObject({ status: 200, isClosed: true })
  })
})

describe('a target that is answered', () => {
  it.each<[string, string]>([
    ['the whole URL', post('POST http://gateway:4000/graphql HTTP/1.1', 'Host: gateway:4000\r\n')],
    ['the whole URL, by TLS', post('POST https://gateway:443/graphql HTTP/1.1')],
    [
      'the whole URL, of another host than Host',
      post('POST http://gateway/graphql HTTP/1.1', 'Host: other\r\n'),
    ],
    ['with two slashes', post('POST //graphql HTTP/1.1')],
    ['with one at the end', post('POST /graphql/ HTTP/1.1')],
    ['with a query of no use', post('POST /graphql?a=/health/live&b=%zz HTTP/1.1')],
    ['with an empty Host', post('POST /graphql HTTP/1.1', 'Host:\r\n')],
    ['with an IPv6 Host', post('POST /graphql HTTP/1.1', 'Host: [::1]:4000\r\n')],
    [
      'with an offer of HTTP/2, as Java makes it',
      post(
        'POST /graphql HTTP/1.1',
        'Host: gateway\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n',
      ),
    ],
    ...['Application/Json', 'APPLICATION/JSON;charset=UTF-8', 'application/json ; charset=utf-8'].map(
      (type): [string, string] => [`as ${type}`, post('POST /graphql HTTP/1.1', undefined, BODY, type)],
    ),
  ])('%s', async (_, text) => {
    expect(await say(text)).toMatchObject({ status: 200, body: '{"data":{"__typename":"Query"}}' })
  })

  it('is a server as a whole', async () => {
    expect((await say('OPTIONS * HTTP/1.1\r\nHost: gateway\r\n\r\n')).status).toBe(204)
    expect((await say('OPTIONS / HTTP/1.0\r\n\r\n')).status).toBe(204)
  })
})

describe('what is refused says why, in JSON, and shows nothing of the inside', () => {
  const get = (target: string, headers = 'Host: gateway\r\n') => `GET ${target} HTTP/1.1\r\n${headers}\r\n`
  it.each<[string, string, number]>([
    ['without Host', get('/health/ready', ''), 400],
    ['two Hosts', get('/graphql', 'Host: a\r\nHost: b\r\n'), 400],
    ['a Host that is none', get('/graphql', 'Host: [4111\r\n'), 400],
    ['a Host with a path', get('/metrics', 'Host: gateway/graphql?\r\n'), 400],
    ['a Host with a user', get('/metrics', 'Host: me@gateway\r\n'), 400],
    ['a Host with a blank', get('/metrics', 'Host: a b\r\n'), 400],
    ['a Host with no port there is', get('/metrics', 'Host: gateway:99999\r\n'), 400],
    ['a whole URL that is none', get('http://[::1/graphql'), 400],
    ['a whole URL of another kind', get('ftp://gateway/graphql'), 400],
    ['a whole URL of nothing', get('http://gateway'), 404],
    ['a server as a whole', get('*'), 400],
    ['an authority', get('gateway:80'), 400],
    ['a tunnel', 'CONNECT gateway:80 HTTP/1.1\r\nHost: gateway\r\n\r\n', 405],
    ['a path that is none', get('/%zz%ff%00'), 404],
    ['a path that ends as the API does', post('POST /elsewhere/graphql HTTP/1.1'), 404],
    ['a path that ends as the health check does', get('/elsewhere/health/live'), 404],
    ['the root', get('/'), 404],
    ['variables that are none', get('/graphql?query=%E0%A4%A&variables=%7', PREFLIGHTED), 400],
    ['a long URL', get(`/graphql?query=${'a'.repeat(14_000)}`, PREFLIGHTED), 400],
    ['a URL that is too long', get(`/graphql?query=${'a'.repeat(40_000)}`), 431],
    ['a URL with what belongs into none', get('/gr\u00e4phql'), 400],
    ['no HTTP', 'hello\r\n\r\n', 400],
    ['TLS', '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc', 400],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['two lengths', post('POST /graphql HTTP/1.1', 'Host: gateway\r\nTransfer-Encoding: chunked\r\n'), 400],
    ['another expectation', 'POST /graphql HTTP/1.1\r\nHost: gateway\r\nExpect: tea\r\n\r\n', 417],
    ['PUT', post('PUT /graphql HTTP/1.1'), 405],
    ['DELETE', post('DELETE /graphql HTTP/1.1'), 405],
    ['another kind of body', post('POST /graphql HTTP/1.1', undefined, BODY, 'text/xml'), 415],
    ['a simple body in capitals', post('POST /graphql HTTP/1.1', undefined, BODY, 'TEXT/plain'), 403],
    ['another kind of answer', post('POST /graphql HTTP/1.1', 'Host: gateway\r\nAccept: text/html\r\n'), 406],
    [
      'another kind of stream',
      post('POST /graphql HTTP/1.1', 'Host: gateway\r\nAccept: multipart/mixed\r\n', SUBSCRIPTION),
      406,
    ],
    [
      'a body that is refused to a client of streams',
      post('POST /graphql HTTP/1.1', 'Host: gateway\r\nAccept: text/event-stream\r\n', BODY, 'text/plain'),
      403,
    ],
  ])('%s', async (_, text, status) => {
    const answer = await say(text)
    expect([answer.status, answer.headers.get('content-type')]).toEqual([
      status,
      expect.stringMatching(/^application\/(graphql-response\+)?json; charset=utf-8$/),
    ])
    const { errors } = JSON.parse(answer.body) as {
      errors: { message: string; extensions: { code: string } }[]
    }
    expect(errors).toEqual([
      expect.objectContaining({
        message: expect.stringMatching(/\w{3}.*\.$/s) as string,
        extensions: expect.objectContaining({ code: expect.stringMatching(/^[A-Z_]+$/) as string }) as object,
      }),
    ])
    expect(answer.body).not.toMatch(/\n +at |\/src\/|node_modules|file:|4111/)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
  })
})

describe('an answer', () => {
  it.each<[string, string]>([
    ['of the API', post('POST /graphql HTTP/1.1')],
    ['of a health check', 'GET /health/ready HTTP/1.1\r\nHost: gateway\r\n\r\n'],
    ['of the metrics', 'GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n'],
    ['to a preflight', 'OPTIONS /graphql HTTP/1.1\r\nHost: gateway\r\n\r\n'],
  ])('%s is kept in no cache', async (_, text) => {
    const { headers } = await say(text)
    expect(Object.fromEntries(headers)).toMatchObject({
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      vary: 'Origin',
    })
  })

  it('that is a stream is passed on as it comes', async () => {
    const refused = SUBSCRIPTION.replace('{ id }', '{ nothing }')
    const { headers, body } = await say(post('POST /graphql HTTP/1.0', SSE, refused))
    expect(Object.fromEntries(headers)).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      'x-content-type-options': 'nosniff',
      vary: 'Origin',
    })
    expect(body).toMatch(/event: complete\ndata:\n\n$/)
  })

  it.each(['HTTP/1.1', 'HTTP/1.0'])(
    'that is a stream ends with its connection, when its client said so, by %s',
    async (version) => {
      const refused = SUBSCRIPTION.replace('{ id }', '{ nothing }')
      const started = performance.now()
      const { isClosed, headers } = await say(
        post(`POST /graphql ${version}`, `${SSE}Connection: close\r\n`, refused),
      )
      expect([isClosed, headers.get('connection')]).toEqual([true, 'close'])
      expect(performance.now() - started).toBeLessThan(4_000)
    },
  )
})

describe('a body that breaks off', () => {
  it.each(['Content-Length: 500\r\n\r\n{"que', 'Transfer-Encoding: chunked\r\n\r\n5\r\n{"que\r\n'])(
    'is not the fault of the database: %j',
    async (rest) => {
      const before = logged.length
      for (const hangUp of ['destroy', 'resetAndDestroy', 'end'] as const) {
        const socket = connect(port, '127.0.0.1')
        socket.on('error', () => {})
        const [, served] = await Promise.all([
          once(socket, 'connect'),
          once(http, 'connection') as Promise<[NodeJS.EventEmitter]>,
        ])
        const gone = new Promise((resolve) => served[0].once('close', resolve))
        const asked = once(http, 'request')
        socket.write(`POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n${rest}`)
        await asked
        socket[hangUp]()
        await gone
      }
      // Whatever was to be said of them has been by the time that another is answered.
      await say(post('POST /graphql HTTP/1.1'))
      expect(logged.slice(before)).toEqual([])
    },
  )
})
