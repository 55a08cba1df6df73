import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { afterAll, describe, expect, it } from 'vitest'
import { httpServer } from '../../src/graphql/http.ts'
import { startTestBank } from '../support/bank.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { ASKERS, serverFor } from './askers.ts'

/** Clients that are slow, silent or gone, over real sockets; with a fiftieth of the real patience. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const IMPATIENT = { headersMs: 200, requestMs: 400, idleMs: 300, stalledMs: 900, checkEveryMs: 20 }

async function listening(graphql: { requestListener: RequestListener }) {
  const http = httpServer(graphql, IMPATIENT).listen(0, '127.0.0.1')
  await once(http, 'listening')
  afterAll(() => {
    http.closeAllConnections()
    http.close()
  })
  return { http, port: (http.address() as AddressInfo).port }
}
const { port } = await listening(serverFor(gateway, ASKERS.dev))

const BODY = '{"query":"{ __typename }"}'
const HEAD = `POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n`

/** What is said until the gateway closes, and how long that takes. */
async function untilClosed(socket: Socket): Promise<{ said: string; afterMs: number }> {
  const started = performance.now()
  let said = ''
  socket.on('data', (chunk: Buffer) => (said += chunk.toString()))
  socket.on('error', () => {})
  await once(socket, 'close')
  return { said, afterMs: performance.now() - started }
}
/** Sends a text a character at a time, so that no single wait is long. */
function dribble(socket: Socket, text: string): void {
  let at = 0
  const timer = setInterval(() => socket.write(text.charAt(at++) || '\n'), 50)
  socket.once('close', () => clearInterval(timer))
}

describe('a client is hung up on that', () => {
  it('says nothing', async () => {
    const { said } = await untilClosed(connect(port, '127.0.0.1'))
    expect(said).toMatch(/^HTTP\/1\.1 408 |^$/)
  })

  it('dribbles its headers', async () => {
    const socket = connect(port, '127.0.0.1')
    dribble(socket, `POST /graphql HTTP/1.1\r\nHost: gateway\r\n${'X-A: b\r\n'.repeat(1_000)}`)
    expect((await untilClosed(socket)).said).toMatch(/^HTTP\/1\.1 408 Request Timeout/)
  })

  it('dribbles its body', async () => {
    const socket = connect(port, '127.0.0.1')
    socket.write(HEAD.replace(String(BODY.length), '5000'))
    dribble(socket, ' '.repeat(5_000))
    expect((await untilClosed(socket)).said).toMatch(/^HTTP\/1\.1 408 Request Timeout/)
  })

  it('asks no more', async () => {
    const socket = connect(port, '127.0.0.1')
    socket.write(HEAD + BODY)
    const { said, afterMs } = await untilClosed(socket)
    expect(said).toMatch(/^HTTP\/1\.1 200 OK/)
    expect(afterMs).toBeGreaterThan(IMPATIENT.idleMs * 0.9)
  })

  it('does not take its answer', async () => {
    const { http, port } = await listening(serverFor(gateway, ASKERS.dev))
    const socket = connect(port, '127.0.0.1')
    socket.pause()
    socket.on('error', () => {})
    const [connection] = (await once(http, 'connection')) as [Socket]
    // The page is larger than what the kernel takes for somebody who does not read.
    socket.write('GET /graphql HTTP/1.1\r\nHost: gateway\r\nAccept: text/html\r\n\r\n')
    await once(connection, 'close')
    expect(connection.bytesWritten).toBeGreaterThan(0)
    socket.destroy()
  })
})

describe('a client is served that', () => {
  it('asks again on the same connection', async () => {
    const socket = connect(port, '127.0.0.1')
    socket.write(HEAD + BODY)
    await once(socket, 'data')
    socket.write(HEAD + BODY)
    expect((await untilClosed(socket)).said).toMatch(/^HTTP\/1\.1 200 OK/)
  })

  it('waits for an answer that takes longer than any of that', async () => {
    const { port } = await listening({
      requestListener: (_, response) => void setTimeout(() => response.end('late'), 2 * IMPATIENT.stalledMs),
    })
    const response = await fetch(`http://127.0.0.1:${port}/graphql`)
    expect(await response.text()).toBe('late')
  })

  it('listens to a stream for longer than any of that, as long as there are pings', async () => {
    const { port } = await listening({
      requestListener: (_, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        let pings = 0
        const timer = setInterval(() => {
          response.write(':\n\n')
          if (++pings < 40) return
          clearInterval(timer)
          response.end('event: complete\n\n')
        }, IMPATIENT.stalledMs / 16)
      },
    })
    const response = await fetch(`http://127.0.0.1:${port}/graphql`)
    expect(await response.text()).toMatch(/event: complete\n\n$/)
  })
})
