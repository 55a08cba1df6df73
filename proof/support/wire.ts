import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

/**
 * A wire in a proof's hands: a TCP proxy whose connections can be watched, held and cut in each direction. Nothing in
 * the gateway knows of it, so what is killed at a wire is what production runs.
 */
export type Wire = {
  port: number
  /** Cuts every connection, and with `for good` every one that is made from now on until `mend`. */
  cut(how?: 'for good'): void
  mend(): void
  close(): Promise<void>
}

/** One connection through the wire. */
export type Link = { toServer: Lane; toClient: Lane; cut(): void }

/** What to do with the bytes of each direction; `pass` them on, now or later. */
export type Watch = { fromClient: (bytes: Buffer) => void; fromServer: (bytes: Buffer) => void }

export async function startWire(port: number, watch: (link: Link) => Watch = passOn): Promise<Wire> {
  const links = new Set<Link>()
  let isCut = false
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    if (isCut) return client.destroy()
    const upstream = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    const link: Link = {
      toServer: new Lane(upstream),
      toClient: new Lane(client),
      cut: () => {
        client.destroy()
        upstream.destroy()
      },
    }
    links.add(link)
    const { fromClient, fromServer } = watch(link)
    flow(client, link.toServer, fromClient)
    flow(upstream, link.toClient, fromServer)
    let open = 2
    const forget = () => (open -= 1) === 0 && links.delete(link)
    client.on('close', forget)
    upstream.on('close', forget)
    return undefined
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const cut = () => links.forEach((link) => link.cut())
  return {
    port: (server.address() as AddressInfo).port,
    cut: (how) => {
      isCut = how === 'for good'
      cut()
    },
    mend: () => (isCut = false),
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      cut()
      await closed
    },
  }
}

const passOn = ({ toServer, toClient }: Link): Watch => ({
  fromClient: (bytes) => toServer.pass(bytes),
  fromServer: (bytes) => toClient.pass(bytes),
})

/** A peer that is gone (a killed process resets or ends its connections) ends the other side, after what is held. */
function flow(from: Socket, to: Lane, take: (bytes: Buffer) => void): void {
  from.on('data', take)
  from.on('error', () => from.destroy())
  from.on('end', () => to.end())
  from.on('close', () => to.end())
}

/** One direction of a connection: passes bytes on, or keeps them and the end while it is held. */
export class Lane {
  readonly #to: Socket
  #kept: Buffer[] | null = null
  #isEnded = false

  constructor(to: Socket) {
    this.#to = to
  }

  hold(): void {
    this.#kept ??= []
  }

  release(): void {
    const kept = this.#kept ?? []
    this.#kept = null
    for (const bytes of kept) this.pass(bytes)
    if (this.#isEnded) this.end()
  }

  pass(bytes: Buffer): void {
    if (this.#kept !== null) this.#kept.push(bytes)
    else if (this.#to.writable) this.#to.write(bytes)
  }

  end(): void {
    this.#isEnded = true
    if (this.#kept === null) this.#to.end()
  }
}
