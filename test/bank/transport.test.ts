import dns from 'node:dns'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { DONE, REQUESTS, clientOf, done, httpBank, rawBank, scriptedBank } from './scripted-bank.ts'

/** A bank that fails below HTTP: what is certainly not sent, what is lost on the way, and that every wait ends. */

const BODY = JSON.stringify(DONE.captures)
const HEAD = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n`
const CHUNKED = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n'

function drip(socket: Socket, bytes: string, first = '') {
  socket.write(first)
  const timer = setInterval(() => socket.write(bytes), 10)
  socket.on('close', () => clearInterval(timer))
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

describe('a request that was sent and not answered is ambiguous', () => {
  const FAULTS: [string, string, (socket: Socket) => void][] = [
    ['reset', 'ECONNRESET', (socket) => socket.resetAndDestroy()],
    ['closed without an answer', 'UND_ERR_SOCKET', (socket) => socket.end()],
    ['closed in the headers', 'UND_ERR_SOCKET', (socket) => socket.end('HTTP/1.1 200 OK\r\nContent-')],
    ['closed in the body', 'UND_ERR_SOCKET', (socket) => socket.end(HEAD + BODY.slice(0, 20))],
    [
      'closed in a chunk',
      'UND_ERR_SOCKET',
      (socket) => socket.end(`${CHUNKED}${BODY.length.toString(16)}\r\n{`),
    ],
    ['no HTTP', 'HTTPParserError', (socket) => socket.end('220 mail.example ESMTP\r\n')],
    [
      'a body of 1 MB',
      'UND_ERR_RES_EXCEEDED_MAX_SIZE',
      (socket) => socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n${' '.repeat(1_000_000)}`),
    ],
    [
      'a body without an end',
      'UND_ERR_RES_EXCEEDED_MAX_SIZE',
      (socket) => drip(socket, `4000\r\n${' '.repeat(0x4000)}\r\n`, CHUNKED),
    ],
    [
      'headers without an end',
      'UND_ERR_HEADERS_OVERFLOW',
      (socket) => drip(socket, `X: ${'x'.repeat(4096)}\r\n`, 'HTTP/1.1 200 OK\r\n'),
    ],
  ]
  test.each(FAULTS)('%s: %s', async (_fault, errorCode, act) => {
    const { url, requests } = await rawBank(act)
    const { bank } = clientOf(url)
    const { answer, calls } = await bank.send('op_1', REQUESTS.captures)
    expect(answer).toEqual({ is: 'ambiguous', reason: `no complete answer: ${errorCode}` })
    expect(calls).toMatchObject([{ httpStatus: null, errorCode, replayed: false, conclusion: 'ambiguous' }])
    expect(requests).toHaveLength(1)
  })

  const STALLS: [string, (socket: Socket) => void][] = [
    ['says nothing', () => {}],
    ['stops in the headers', (socket) => socket.write('HTTP/1.1 200 OK\r\nContent-')],
    ['stops after the headers', (socket) => socket.write(HEAD)],
    ['stops in the body', (socket) => socket.write(HEAD + BODY.slice(0, -1))],
    ['drips the body', (socket) => drip(socket, '1\r\n \r\n', CHUNKED)],
    ['drips the headers', (socket) => drip(socket, 'X: x\r\n', 'HTTP/1.1 200 OK\r\n')],
    ['drips 100 Continue', (socket) => drip(socket, 'HTTP/1.1 100 Continue\r\n\r\n')],
    ['drips 102 Processing', (socket) => drip(socket, 'HTTP/1.1 102 Processing\r\n\r\n')],
  ]
  test.each(STALLS)('the attempt ends in time when the bank %s', async (_stall, act) => {
    const { url, requests } = await rawBank(act)
    const { bank } = clientOf(url, { attemptTimeoutMs: 200 })
    const before = performance.now()
    const { answer, calls } = await bank.send('op_1', REQUESTS.captures)
    expect(performance.now() - before).toBeLessThan(1_000)
    expect(answer).toEqual({ is: 'ambiguous', reason: 'no complete answer: TIMEOUT' })
    expect(calls[0]?.durationMs).toBeGreaterThanOrEqual(199)
    expect(calls).toMatchObject([{ httpStatus: null, errorCode: 'TIMEOUT' }])
    expect(requests).toHaveLength(1)
  })

  test('reset in the body', async () => {
    const { url } = await rawBank((socket) => {
      socket.write(HEAD + BODY.slice(0, 20), () => socket.resetAndDestroy())
    })
    expect((await clientOf(url).bank.send('op_1', REQUESTS.captures)).answer.is).toBe('ambiguous')
  })

  test('TLS that cannot be agreed on', async () => {
    const { url } = await rawBank((socket) => socket.end(HEAD + BODY))
    const { bank } = clientOf(url.replace('http:', 'https:'))
    expect((await bank.send('op_1', REQUESTS.captures)).answer.is).toBe('ambiguous')
  })

  test('a probe and a look that get no answer say nothing', async () => {
    const { url } = await httpBank((request, response) => {
      if (request.url === '/health') response.end('{"status":"healthy"}')
      else request.socket.destroy()
    })
    const { bank } = clientOf(url)
    const { answer, calls } = await bank.probe('op_1', REQUESTS.captures)
    expect(answer.is).toBe('ambiguous')
    expect(calls).toMatchObject([{ purpose: 'HEALTH' }, { purpose: 'PROBE', httpStatus: null }])
    expect((await bank.look('captures', 'cap_1')).found.is).toBe('noAnswer')
  })
})

describe('a request of which nothing was sent is not done', () => {
  const HOSTS: [string, string[]][] = [
    ['one address', ['127.0.0.1']],
    ['each of two addresses', ['127.0.0.1', '127.0.0.2']],
  ]
  test.each(HOSTS)('connection refused by %s', async (_which, addresses) => {
    const port = await freePort()
    const known = addresses.map((address) => ({ address, family: 4 }))
    const lookup = (_host: string, _options: object, found: (error: null, all: typeof known) => void) =>
      found(null, known)
    vi.spyOn(dns, 'lookup').mockImplementation(lookup as unknown as typeof dns.lookup)
    onTestFinished(() => void vi.restoreAllMocks())
    const { bank } = clientOf(`http://bank.example:${port}`)
    const { answer, calls } = await bank.send('op_1', REQUESTS.authorizations)
    expect(answer).toEqual({ is: 'notDone', reason: 'nothing was sent: ECONNREFUSED' })
    expect(calls).toMatchObject([{ httpStatus: null, errorCode: 'ECONNREFUSED', conclusion: 'notDone' }])
  })

  test('a host without an address', async () => {
    const { bank } = clientOf('http://bank.invalid')
    const { answer } = await bank.send('op_1', REQUESTS.authorizations)
    expect(answer).toMatchObject({ is: 'notDone' })
  })

  test('a connection that is never accepted', async () => {
    // A thread that listens and then sleeps: the kernel takes a few connections for it and drops the rest.
    const sleeper = new Worker(
      `const { parentPort } = require('node:worker_threads')
       const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
         parentPort.postMessage(server.address().port)
         setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0))
       })`,
      { eval: true },
    )
    onTestFinished(async () => void (await sleeper.terminate()))
    const [port] = (await once(sleeper, 'message')) as [number]
    const fillers = Array.from({ length: 8 }, () => connect(port, '127.0.0.1').on('error', () => {}))
    onTestFinished(() => fillers.forEach((filler) => filler.destroy()))
    await once(fillers[1] as Socket, 'connect')

    const { bank } = clientOf(`http://127.0.0.1:${port}`, { attemptTimeoutMs: 2_000 })
    const { answer } = await bank.send('op_1', REQUESTS.authorizations)
    expect(answer).toEqual({ is: 'notDone', reason: 'nothing was sent: UND_ERR_CONNECT_TIMEOUT' })
  })
})

describe('an interim response that nobody asked for is passed over', () => {
  const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'
  const HINTS = 'HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n'
  const bytewise = (text: string) => text.split('')
  const SENT: [string, string[]][] = [
    ['100 Continue, and the answer in the same packet', [CONTINUE + HEAD + BODY]],
    ['100 Continue, and the answer in a later packet', [CONTINUE, HEAD, BODY]],
    ['100 Continue twice, in one packet', [CONTINUE + CONTINUE, HEAD + BODY]],
    [
      '100 Continue with fields of its own',
      ['HTTP/1.1 100 Continue\r\nServer: x\r\nVia: 1.1 y\r\n\r\n', HEAD + BODY],
    ],
    ['100 without a reason phrase', ['HTTP/1.1 100 \r\n\r\n', HEAD + BODY]],
    ['103 Early Hints, then 100 Continue', [HINTS + CONTINUE + HEAD + BODY]],
    ['102, 103 and 100, all in pieces', [`HTTP/1.1 102 Processing\r\n\r\n${HINTS}`, CONTINUE, HEAD + BODY]],
    ['100 Continue, byte by byte', [...bytewise(CONTINUE + CONTINUE), HEAD + BODY]],
    ['everything byte by byte', bytewise(HINTS + CONTINUE + HEAD + BODY)],
  ]
  test.each(SENT)('%s', async (_, pieces) => {
    const { url, requests } = await rawBank((socket) => {
      // Each a packet, with time to be read alone.
      const next = (at = 0) => {
        if (at < pieces.length) socket.write(pieces[at] ?? '', () => setImmediate(next, at + 1))
      }
      socket.setNoDelay(true)
      next()
    })
    const { bank } = clientOf(url)
    for (const request of [REQUESTS.captures, REQUESTS.captures]) {
      const { answer, calls } = await bank.send('op_1', request)
      expect(answer).toMatchObject({ is: 'done', fact: { bankId: DONE.captures.capture_id } })
      expect(calls).toMatchObject([{ httpStatus: 200, errorCode: null }])
    }
    expect(requests).toHaveLength(2)
  })

  test.each([
    ['100 Continue and no more', 'TIMEOUT', CONTINUE],
    [
      '101 Switching Protocols',
      'UND_ERR_SOCKET',
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n',
    ],
  ])('but %s is no answer', async (_, errorCode, sent) => {
    const { url } = await rawBank((socket) => socket.write(sent))
    const { bank } = clientOf(url, { attemptTimeoutMs: 300 })
    const { answer } = await bank.send('op_1', REQUESTS.captures)
    expect(answer).toEqual({ is: 'ambiguous', reason: `no complete answer: ${errorCode}` })
  })
})

describe('connections', () => {
  test('are used again', async () => {
    const { url, connections } = await scriptedBank(() => done('captures'))
    const { bank } = clientOf(url)
    for (let n = 0; n < 20; n++) expect((await bank.send('op_1', REQUESTS.captures)).answer.is).toBe('done')
    // Two, not one: undici waits an event loop cycle before it uses a connection again.
    expect(connections()).toBeLessThanOrEqual(2)
  })

  test('are not used again when the bank has ended them', async () => {
    const { url } = await rawBank((socket) => socket.end(HEAD + BODY))
    const { bank } = clientOf(url)
    for (let n = 0; n < 20; n++) expect((await bank.send('op_1', REQUESTS.captures)).answer.is).toBe('done')
  })

  test('are not used again after an attempt that timed out', async () => {
    const { url, requests } = await rawBank((socket) => {
      if (requests.length > 1) socket.end(HEAD + BODY)
    })
    const { bank } = clientOf(url, { attemptTimeoutMs: 200 })
    expect((await bank.send('op_1', REQUESTS.captures)).answer.is).toBe('ambiguous')
    expect((await bank.send('op_2', REQUESTS.captures)).answer.is).toBe('done')
  })

  test('carry 2,000 requests at the same time', async () => {
    let open: () => void
    const allHere = new Promise<void>((resolve) => (open = resolve))
    let here = 0
    const { url } = await httpBank(async (request, response) => {
      request.resume()
      here += 1
      if (here === 2_000) open()
      await allHere
      response.end(BODY)
    })
    const { bank } = clientOf(url, { attemptTimeoutMs: 20_000 })
    const asked = await Promise.all(
      Array.from({ length: 2_000 }, (_, n) => bank.send(`op_${n}`, REQUESTS.captures)),
    )
    expect(asked.filter(({ answer }) => answer.is !== 'done')).toEqual([])
  })

  test('end with the client, and what is under way is waited for', async () => {
    let answerNow: () => void = () => {}
    const asked = new Promise<void>((resolve) => (answerNow = resolve))
    const { url, received } = await scriptedBank(async () => {
      await asked
      return done('captures')
    })
    const { bank } = clientOf(url)
    const sent = bank.send('op_1', REQUESTS.captures)
    await expect.poll(() => received.length).toBe(1)
    const closed = bank.close()
    answerNow()
    await closed
    expect((await sent).answer.is).toBe('done')
    expect((await bank.send('op_2', REQUESTS.captures)).answer.is).toBe('ambiguous')
    expect(received).toHaveLength(1)
  })
})
