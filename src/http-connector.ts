import type { Socket } from 'node:net'
import { buildConnector } from 'undici'

/**
 * Connections for undici's clients on which a server may say 100 Continue unasked, as some do to every request, and as a
 * client has to bear (RFC 9110, 15.2). undici passes over every other interim response; at this one it ends the
 * connection ("bad response", in 7.30 as in 8.13), so that no exchange with such a server ever succeeds. It is made to
 * read 102 Processing instead, which means as little.
 */
export function connector(options: buildConnector.BuildOptions): buildConnector.connector {
  const connect = buildConnector(options)
  return (to, done) =>
    connect(to, (...[error, socket]) => {
      if (error !== null) return done(error, null)
      disguiseContinue(socket)
      done(null, socket)
    })
}

const INTERIM = /^HTTP\/1\.\d 1/
const CONTINUE = /^HTTP\/1\.\d 100/
const LAST_DIGIT = 'HTTP/1.1 10'.length
const TWO = 0x32

/** One exchange at a time: after a write, what comes is a response from its first byte on. */
function disguiseContinue(socket: Socket): void {
  const read = socket.read.bind(socket)
  const write = socket.write.bind(socket) as (...args: unknown[]) => boolean
  /** What has come of an interim response, or of one whose status is still to come. Null: the final one has begun. */
  let head: string | null = null
  socket.write = (...args: unknown[]) => {
    head = ''
    return write(...args)
  }
  socket.read = (size) => {
    const chunk: unknown = read(size)
    if (head === null || !Buffer.isBuffer(chunk)) return chunk
    /** Of `head`, in this chunk. */
    let start = -head.length
    head += chunk.toString('latin1')
    for (;;) {
      if (CONTINUE.test(head) && start + LAST_DIGIT >= 0) chunk[start + LAST_DIGIT] = TWO
      if (!INTERIM.test(head)) break
      const end = head.indexOf('\r\n\r\n') + 4
      if (end < 4) return chunk
      head = head.slice(end)
      start += end
    }
    if (head.length >= LAST_DIGIT) head = null
    return chunk
  }
}
