import type { Operation } from '../../src/payment/payment.ts'
import { startWire } from './wire.ts'
import type { Link, Watch, Wire } from './wire.ts'

/**
 * The wire between a gateway and its Postgres, read just far enough to know that a call of one of the functions of
 * sql/ is on its way, for which operations, and when the server has committed and answered it.
 */
export type PostgresWire = Wire & {
  /** The same database by way of this wire. */
  url: string
  /** Told of each call when it comes from the gateway, before it is passed on. */
  watch(see: (call: Call) => void): void
  /**
   * Holds the first call that `fits`: the `request` before the server gets it, or the `answer` after the server has
   * committed it.
   */
  hold(what: 'request' | 'answer', fits: (call: Call) => boolean): Held
}

export type Call = {
  name: 'claim' | 'claim_again' | 'settle' | 'settle_delivery'
  /** The ids by which sql/ knows them; of a webhook only its payment. */
  items: CallItem[]
}
/** What a claim says of the operation, the others do not. */
export type CallItem = { operationId: string; paymentId: string } & Partial<
  Pick<Operation, 'client' | 'idempotencyKey' | 'kind' | 'input'>
>

export type Held = {
  /** The request has come to the wire, or the answer has. */
  arrived: Promise<void>
  /** Passes on what is held, though the gateway may be gone; resolves when the server has answered the call. */
  deliver(): Promise<void>
  /** Cuts the connection; what is held is lost. */
  lose(): void
}

type Holding = {
  what: 'request' | 'answer'
  fits: (call: Call) => boolean
  catch: (link: Link) => void
  arrive: () => void
  answer: () => void
}

export async function startPostgresWire(databaseUrl: string): Promise<PostgresWire> {
  const target = new URL(databaseUrl)
  const watchers: ((call: Call) => void)[] = []
  const holdings = new Set<Holding>()
  const wire = await startWire(Number(target.port), (link) =>
    readPostgres(link, (call) => {
      for (const see of watchers) see(call)
      const holding = [...holdings].find(({ fits }) => fits(call)) ?? null
      if (holding !== null) {
        holdings.delete(holding)
        holding.catch(link)
      }
      return holding
    }),
  )
  target.port = String(wire.port)
  return {
    ...wire,
    url: target.href,
    watch: (see) => void watchers.push(see),
    hold: (what, fits) => {
      let arrive = () => {}
      let answer = () => {}
      let caught: Link | null = null
      const arrived = new Promise<void>((resolve) => (arrive = resolve))
      const answered = new Promise<void>((resolve) => (answer = resolve))
      holdings.add({ what, fits, arrive, answer, catch: (link) => (caught = link) })
      return {
        arrived,
        deliver: async () => {
          caught?.toServer.release()
          caught?.toClient.release()
          await answered
        },
        lose: () => caught?.cut(),
      }
    },
  }
}

/** Follows one connection; `meet` is told of each call and says whether it is to be held. */
function readPostgres(link: Link, meet: (call: Call) => Holding | null): Watch {
  const statements = new Map<string, Call['name'] | null>()
  /** How many times the server owes or has said that it is ready: once for the start, then for each Sync or Query. */
  let asked = 1
  let ready = 0
  let pending: { at: number; holding: Holding } | null = null

  const fromClient = messages('startup', (type, whole) => {
    if (type === 'P') {
      const [name = '', text = ''] = texts(whole.subarray(5), 2)
      statements.set(name, (CALLED.exec(text)?.[1] as Call['name'] | undefined) ?? null)
    } else if (type === 'B') {
      const [, statement = ''] = texts(whole.subarray(5), 2)
      const name = statements.get(statement) ?? null
      const holding = name === null ? null : meet({ name, items: itemsOf(name, firstParameter(whole)) })
      if (holding !== null) {
        pending = { at: asked, holding }
        if (holding.what === 'request') {
          link.toServer.hold()
          holding.arrive()
        } else if (ready === asked) link.toClient.hold()
      }
    } else if (type === 'S' || type === 'Q') asked += 1
    link.toServer.pass(whole)
  })

  const fromServer = messages('typed', (type, whole) => {
    link.toClient.pass(whole)
    if (type !== 'Z') return
    ready += 1
    if (pending?.at === ready && pending.holding.what === 'answer') link.toClient.hold()
    if (pending?.at === ready - 1) {
      // The transaction is committed before the server says that it is ready.
      pending.holding.answer()
      if (pending.holding.what === 'answer') pending.holding.arrive()
      pending = null
    }
  })
  return { fromClient, fromServer }
}

const CALLED = /\b(?:from|select) (claim|claim_again|settle|settle_delivery)\(/

/** Cuts a stream into whole messages: a type, a length that counts itself, the rest. The first has no type. */
function messages(first: 'startup' | 'typed', take: (type: string, whole: Buffer) => void) {
  let rest: Buffer = Buffer.alloc(0)
  let typeBytes = first === 'startup' ? 0 : 1
  return (bytes: Buffer) => {
    rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes])
    while (rest.length >= typeBytes + 4) {
      const end = typeBytes + rest.readInt32BE(typeBytes)
      if (rest.length < end) return
      const whole = rest.subarray(0, end)
      rest = rest.subarray(end)
      take(typeBytes === 0 ? '' : String.fromCharCode(whole[0] ?? 0), whole)
      typeBytes = 1
    }
  }
}

/** The texts, each ended by a zero, that a message begins with. */
function texts(bytes: Buffer, count: number): string[] {
  return bytes.toString('utf8').split('\0', count)
}

/** Of a Bind: portal, statement, formats, parameters. */
function firstParameter(bind: Buffer): string {
  let at = bind.indexOf(0, bind.indexOf(0, 5) + 1) + 1
  at += 2 + 2 * bind.readInt16BE(at)
  const length = bind.readInt32BE(at + 2)
  return bind.toString('utf8', at + 6, at + 6 + length)
}

function itemsOf(name: Call['name'], parameter: string): CallItem[] {
  if (name === 'settle_delivery') return [{ operationId: '', paymentId: parameter }]
  return JSON.parse(parameter) as CallItem[]
}
