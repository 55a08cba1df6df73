import { bankKey } from '../../src/operation/bank-key.ts'
import type { Operation, Payment } from '../../src/payment/payment.ts'
import type { Gate } from '../../src/simulator/faults.ts'
import type { Simulator } from '../../src/simulator/simulator.ts'
import { client, TEST_CARD } from '../../test/support/client.ts'
import type { Answered, Client, PaymentView } from '../../test/support/client.ts'
import type { Call, Held, PostgresWire } from '../support/postgres-wire.ts'
import { startWire } from '../support/wire.ts'
import type { Cell, Fate } from './cells.ts'

/** A cell's request: sent towards the point where its process dies, held there, and let go on when that is dead. */
export type Course = {
  cell: Cell
  ask: Ask
  /** What FicMart saw of its first request: nothing, where all went as intended. */
  first: Promise<Answered | null>
  trap: Trap
}

/** FicMart's request, the same each time. */
export type Ask = (by: Client) => Promise<Answered>

/** What holds a request at its point. */
type Trap = {
  /** Where the client sends its request, when it is not the gateway's own address. */
  url?: string
  arrived: Promise<void>
  /** What becomes of it, once the process is dead. */
  letGo: () => Promise<void>
  /** What comes when everybody else has done. */
  last?: () => Promise<void>
}

type Prepared = { ask: Ask; payment: PaymentView | null }

/** Makes the payment that the operation needs, authorized or captured; null where that did not go well. */
export async function prepare({ name, amountCents, operation }: Cell, by: Client): Promise<Prepared | null> {
  const order = { orderId: name, customerId: 'matrix', amountCents, card: TEST_CARD }
  if (operation === 'authorize')
    return { ask: (gateway) => gateway.authorize({ ...order, idempotencyKey: name }), payment: null }
  const held = await by.authorize({ ...order, idempotencyKey: `${name}: hold` })
  if (held.code !== undefined) return null
  let { payment } = held
  const about = { paymentId: payment.id }
  if (operation === 'refund') {
    const taken = await by.capture({ ...about, idempotencyKey: `${name}: charge` })
    if (taken.code !== undefined) return null
    payment = taken.payment
  }
  return { ask: (gateway) => gateway[operation]({ ...about, idempotencyKey: name }), payment }
}

export async function sendOff(
  cell: Cell,
  { ask, payment }: Prepared,
  to: { gatewayUrl: string; wire: PostgresWire; bank: Simulator },
): Promise<Course> {
  const trap = await setTrap(cell, payment, to)
  const first = ask(client(`${trap.url ?? to.gatewayUrl}/graphql`)).catch(() => null)
  return { cell, ask, first, trap }
}

async function setTrap(
  { name, point, fate }: Cell,
  payment: PaymentView | null,
  { gatewayUrl, wire, bank }: { gatewayUrl: string; wire: PostgresWire; bank: Simulator },
): Promise<Trap> {
  // The operation's id is made up with its claim: from there on it is known in the settle, and its key at the bank.
  let operationId: string | null = null
  let key = ''
  const isClaim = ({ name: called, items }: Call) => {
    const item = called === 'claim' ? items.find(({ idempotencyKey }) => idempotencyKey === name) : undefined
    if (item !== undefined && operationId === null) {
      operationId = item.operationId
      const about = (payment ?? {}) as unknown as Payment
      key = bankKey({ ...item, id: operationId } as unknown as Operation, about)
    }
    return item !== undefined
  }
  const isSettle = ({ name: called, items }: Call) =>
    called === 'settle' && items.some((item) => item.operationId === operationId)
  wire.watch(isClaim)

  switch (point) {
    case 'claim sent':
      return atDatabase(wire.hold('request', isClaim), fate)
    case 'claim committed, its answer withheld':
      return atDatabase(wire.hold('answer', isClaim), 'lost')
    case 'at the bank, before the work':
      return atBank('before')
    case 'bank committed, key unstored':
      return atBank('after-commit')
    case 'key stored, answer withheld':
      return atBank('after-store')
    case 'settle sent':
      return atDatabase(wire.hold('request', isSettle), fate)
    case 'settle committed, its answer withheld':
      return atDatabase(wire.hold('answer', isSettle), 'lost')
    case "client's answer unsent":
      return await beforeClient(gatewayUrl)
  }

  function atBank(at: 'before' | 'after-commit' | 'after-store'): Trap {
    let gate: Gate | null = null
    const arrived = new Promise<void>((arrive) =>
      wire.watch((call) => {
        if (gate !== null || !isClaim(call)) return
        gate = bank.faults.hold(at, { key, probe: false })
        void gate.arrived.then(arrive)
      }),
    )
    const letGo = async () => {
      // The bank has seen the connection go: a key that was not stored by then never is.
      await bank.until((received) => received.some((line) => line.key === key && !line.probe && line.over))
      gate?.open()
    }
    return { arrived, letGo }
  }
}

function atDatabase(held: Held, fate: Fate): Trap {
  const { arrived } = held
  switch (fate) {
    case 'lost':
      return { arrived, letGo: async () => held.lose() }
    case 'delivered':
      return { arrived, letGo: () => held.deliver() }
    case 'delivered last':
      return { arrived, letGo: async () => {}, last: () => held.deliver() }
  }
}

/** The answer has left the gateway, and never reaches the client. */
async function beforeClient(gatewayUrl: string): Promise<Trap> {
  let arrive = () => {}
  const arrived = new Promise<void>((done) => (arrive = done))
  const wire = await startWire(Number(new URL(gatewayUrl).port), ({ toServer, toClient }) => ({
    fromClient: (bytes) => toServer.pass(bytes),
    fromServer: () => {
      toClient.hold()
      arrive()
    },
  }))
  return { url: `http://127.0.0.1:${wire.port}`, arrived, letGo: () => wire.close() }
}
