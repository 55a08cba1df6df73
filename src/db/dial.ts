import { connect as connectTo, isIP } from 'node:net'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { checkServerIdentity, connect as connectTls } from 'node:tls'
import type { SecureContext } from 'node:tls'

/** `name` is what the server's certificate must be for. */
export type Host = { name: string; at: { host: string; port: number } | { path: string } }

export type Tls = {
  /** Else only where the server has it. */
  isDemanded: boolean
  /** Without the question whether the server has it, which those before Postgres 17 need. */
  isDirect: boolean
  sendsName: boolean
  checksName: boolean
  checksChain: boolean
  context: SecureContext
}

/**
 * Makes a connection up to Postgres's first word. The driver's own TLS takes a refusal of it for consent, and checks the
 * certificate of an IP address against `localhost`.
 */
export async function dial({ name, at }: Host, tls: Tls | null, timeoutMs: number): Promise<Socket> {
  let socket = connectTo({ ...at })
  const timer = setTimeout(() => {
    socket.destroy(new ConnectionFailed('CONNECT_TIMEOUT', 'no answer in time'))
  }, timeoutMs)
  try {
    await event(socket, 'connect')
    if (tls === null || 'path' in at) return socket
    if (!tls.isDirect && !(await hasTls(socket))) {
      if (!tls.isDemanded) return socket
      throw new ConnectionFailed('NO_TLS', 'the server has no TLS, and sslmode demands it')
    }
    const isAddress = isIP(name) !== 0
    const secured = connectTls({
      socket,
      secureContext: tls.context,
      rejectUnauthorized: tls.checksChain,
      checkServerIdentity: (_, certificate) =>
        tls.checksName ? checkServerIdentity(name, certificate) : undefined,
      ...(tls.sendsName && !isAddress && { servername: name }),
      ALPNProtocols: ['postgresql'],
    })
    socket = secured
    await event(secured, 'secureConnect')
    if (tls.isDirect && secured.alpnProtocol !== 'postgresql')
      throw new ConnectionFailed('NO_TLS', 'the server does not know sslnegotiation=direct')
    return secured
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** Its code is one of those that the driver and Node use. */
export class ConnectionFailed extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

async function hasTls(socket: Socket): Promise<boolean> {
  socket.write(SSL_REQUEST)
  const answer = await event<Buffer>(socket, 'data')
  // More would be somebody's in between, to be taken for the server's own once TLS is there (CVE-2021-23222).
  if (answer.length === 1 && answer[0] === 83) return true
  if (answer.length === 1 && answer[0] === 78) return false
  throw new ConnectionFailed('CONNECTION_CLOSED', 'the server did not answer whether it has TLS')
}

/** Its listeners stay: an error that comes before the driver listens must be nobody's. */
async function event<What>(socket: Socket, name: string): Promise<What> {
  return await new Promise((resolve, reject) => {
    socket.once(name, resolve)
    socket.once('error', reject)
    socket.once('close', () => reject(new ConnectionFailed('CONNECTION_CLOSED', 'the server hung up')))
  })
}

/**
 * The driver loses its place for a connection whose making is rejected; one that fails at its first word it gives back.
 */
export function refusing(error: unknown): Duplex {
  return new Duplex({
    read: () => {},
    write: (_, __, done) => done(error instanceof Error ? error : new Error(String(error))),
  })
}
