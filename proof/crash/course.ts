import { setTimeout as pause } from 'node:timers/promises'
import type { Sql } from 'postgres'
import { bankKey } from '../../src/operation/bank-key.ts'
import type { Operation, Payment } from '../../src/payment/payment.ts'
import type { FaultKind, Gate } from '../../src/simulator/faults.ts'
import type { Simulator } from '../../src/simulator/simulator.ts'
import { client, TEST_CARD } from '../../test/support/client.ts'
import type { Answered, Client, PaymentView } from '../../test/support/client.ts'
import { actOf } from '../support/acts.ts'
import { BANK_KEY_SQL } from '../support/bank-key.ts'
import type { Call, CallItem, Held, PostgresWire } from '../support/postgres-wire.ts'
import type { Receiver } from '../support/receiver.ts'
import { startWire } from '../support/wire.ts'
import type { Cell, Fate } from './cells.ts'

/** A cell's request: sent towards the point where its process dies, held there, and let go on when that is dead. */
export type Course = {
  cell: Cell
  /** Null: recovery does it, and nobody repeats it. */
  ask: Ask | null
  /** What FicMart saw of its first request: nothing, where all went as intended. */
  first: Promise<Answered | null>
  trap: Trap
}

/** FicMart's request, or an operator's act, the same each time. */
export type Ask = (by: Client) => Promise<Answered>

/** What holds a request at its point. */
type Trap = {
  /** Where the client sends its request, when it is not the gateway's own address. */
  url?: string
  arrived: Promise<void>
  /** What becomes of it, once who dies is dead. */
  letGo: () => Promise<void>
  /** What comes when everybody else has done. */
  last?: () => Promise<void>
}

/** Where a group of cells is played. */
export type Setting = {
  gatewayUrl: string
  by: Client
  wire: PostgresWire
  bank: Simulator
  sql: Sql
  receiver: Receiver | null
}

export type Prepared = {
  ask: Ask | null
  payment: PaymentView | null
  /** Of what was begun before; else it gets its id with its claim. */
  operation: { id: string; key: string } | null
  /** Makes due what recovery then does by itself. */
  bringAbout?: () => Promise<unknown>
}

/** Makes the payment that the scene needs; null where that did not go well. */
export async function prepare(cell: Cell, setting: Setting): Promise<Prepared | null> {
  const { name, scene, amountCents, operation } = cell
  const { by, wire, bank, sql } = setting
  const order = { orderId: name, customerId: 'matrix', amountCents, card: TEST_CARD }
  const authorize: Ask = (gateway) => gateway.authorize({ ...order, idempotencyKey: name })
  if (scene === 'late look' || scene === 'release') {
    failFirst(name, { wire, bank, payment: null }, 'drop-after-commit')
    await authorize(by)
    const own = await until(async () => {
      const [row] = await sql<{ id: string; key: string; paymentId: string }[]>`
        select o.id, o.payment_id, ${sql.unsafe(BANK_KEY_SQL)} as key
        from operations o join payments p on p.id = o.payment_id
        where o.idempotency_key = ${name} and p.state = 'FAILED'`
      return row ?? null
    })
    if (own === null) return null
    const payment = { id: `pay_${own.paymentId}` } as PaymentView
    return { ask: null, payment, operation: own, bringAbout: () => findAnswer(bank, own.key) }
  }
  if (operation === 'authorize' && scene !== 'expire')
    return { ask: authorize, payment: null, operation: null }
  const held = await by.authorize({ ...order, idempotencyKey: `${name}: hold` })
  if (held.code !== undefined) return null
  let { payment } = held
  const about = { paymentId: payment.id }
  if (scene === 'expire') {
    const bringAbout = async () =>
      await sql`update payments set authorization_expires_at = now() - interval '2 hours' where id = ${uuidOf(payment)}`
    return { ask: null, payment, operation: null, bringAbout }
  }
  if (operation === 'refund') {
    const taken = await by.capture({ ...about, idempotencyKey: `${name}: charge` })
    if (taken.code !== undefined) return null
    payment = taken.payment
  }
  const ask: Ask = (gateway) =>
    gateway[operation === 'authorize' ? 'capture' : operation]({ ...about, idempotencyKey: name })
  if (scene !== 'rerunRecovery' && scene !== 'enterBankReference' && scene !== 'closeReview')
    return { ask, payment, operation: null }

  failFirst(name, { wire, bank, payment }, 'other-amount')
  await ask(by)
  const [own] = await sql<{ id: string; key: string }[]>`
    select o.id, ${sql.unsafe(BANK_KEY_SQL)} as key from operations o join payments p on p.id = o.payment_id
    where o.idempotency_key = ${name} and p.review_reason is not null`
  const [taken] = await bank.sql<{ id: string }[]>`
    select id from transactions where amount_cents = ${amountCents} and type = 'CAPTURE'`
  if (own === undefined || taken === undefined) return null
  const input = { ...about, reason: 'The matrix' }
  const act = {
    rerunRecovery: input,
    enterBankReference: { ...input, bankReference: taken.id },
    closeReview: { ...input, outcome: 'CARRIED_OUT' },
  }[scene]
  return { ask: (gateway) => actOf(gateway, scene, act), payment, operation: own }
}

/** The bank's first work for the request with this idempotency key goes wrong. */
function failFirst(
  name: string,
  { wire, bank, payment }: { wire: PostgresWire; bank: Simulator; payment: PaymentView | null },
  what: FaultKind,
): void {
  let isMet = false
  wire.watch(({ name: called, items }) => {
    const item = called === 'claim' ? items.find(({ idempotencyKey }) => idempotencyKey === name) : undefined
    if (item === undefined || isMet) return
    isMet = true
    bank.faults.add(what, { key: keyOf(item, payment), probe: false })
  })
}

/** A bank that stores an answer long after it has given up: whoever asks by key is told from now on. */
async function findAnswer(bank: Simulator, key: string): Promise<void> {
  const [row] = await bank.sql<{ id: string }[]>`select id from transactions where idempotency_key = ${key}`
  const path = '/api/v1/authorizations'
  const answer = await (await fetch(`${bank.url}${path}/${row?.id}`)).text()
  await bank.sql`insert into idempotency_keys (key, path, body) values (${key}, ${path}, ${answer})`
}

function keyOf(item: CallItem, payment: PaymentView | null): string {
  return bankKey(
    { ...item, id: item.operationId } as unknown as Operation,
    (payment ?? {}) as unknown as Payment,
  )
}

const uuidOf = ({ id }: PaymentView) => id.slice('pay_'.length)

/** Null when it has not come in time. */
async function until<T>(look: () => Promise<T | null>): Promise<T | null> {
  for (const untilMs = performance.now() + UNTIL_MS; performance.now() < untilMs; await pause(100)) {
    const found = await look()
    if (found !== null) return found
  }
  return null
}

const UNTIL_MS = 25_000

export async function sendOff(cell: Cell, prepared: Prepared, setting: Setting): Promise<Course> {
  const { ask, bringAbout } = prepared
  const trap = await setTrap(cell, prepared, setting)
  const first = ask?.(client(`${trap.url ?? setting.gatewayUrl}/graphql`)).catch(() => null)
  await bringAbout?.()
  return { cell, ask, first: first ?? Promise.resolve(null), trap }
}

/** Scenes whose own claim is that of an operation which was begun before. */
const CLAIMED_AGAIN: ReadonlySet<Cell['scene']> = new Set(['probe', 're-send', 'late look', 'rerunRecovery'])

async function setTrap(cell: Cell, { payment, operation }: Prepared, setting: Setting): Promise<Trap> {
  const { name, scene, point, fate, dies } = cell
  const { gatewayUrl, wire, bank, receiver } = setting
  // The operation's id is made up with its claim: from there on it is known in the settle, and its key at the bank.
  let own = operation
  const isBegun = ({ name: called, items }: Call) => {
    const item = called === 'claim' ? items.find(begins) : undefined
    if (item !== undefined) own ??= { id: item.operationId, key: keyOf(item, payment) }
    return item !== undefined
  }
  function begins({ idempotencyKey, kind, paymentId }: CallItem): boolean {
    return scene === 'expire' || scene === 'release'
      ? kind === scene.toUpperCase() && payment !== null && paymentId === uuidOf(payment)
      : idempotencyKey === name
  }
  const isOwn = (called: Call['name']) => (call: Call) =>
    own !== null && call.name === called && call.items.some(({ operationId }) => operationId === own?.id)
  if (scene === 'release') own = null
  wire.watch(isBegun)
  if (scene === 'probe') failFirst(name, { wire, bank, payment }, 'drop-after-store')
  if (scene === 're-send') failFirst(name, { wire, bank, payment }, 'chaos')
  const isClaim = CLAIMED_AGAIN.has(scene) ? isOwn('claim_again') : isBegun
  const isSettle = isOwn('settle')
  const settles = scene === 'webhook' ? settlesWebhook() : isSettle

  switch (point) {
    case 'claim sent':
      return atDatabase(wire.hold('request', isClaim), fate)
    case 'claim committed, its answer withheld':
      return atDatabase(wire.hold('answer', isClaim), 'lost')
    case 'probe at the bank':
      return atBank('before', true)
    case 'at the bank, before the work':
      return atBank('before', false)
    case 'bank committed, key unstored':
      return atBank('after-commit', false)
    case 'key stored, answer withheld':
      return atBank('after-store', false)
    case 'settle sent':
      return atDatabase(wire.hold('request', settles), fate)
    case 'settle committed, its answer withheld':
      return atDatabase(wire.hold('answer', settles), 'lost')
    case "client's answer unsent":
      return await beforeClient(gatewayUrl)
    case 'webhook received, its answer withheld':
      if (receiver === null) throw new Error('a webhook has no receiver')
      return { arrived: receiver.hold(({ orderId }) => orderId === name), letGo: async () => {} }
  }

  /** Of the first transition that FicMart is told of. */
  function settlesWebhook() {
    let paymentId: string | null = null
    wire.watch((call) => {
      if (isBegun(call)) paymentId = call.items.find(begins)?.paymentId ?? null
    })
    return ({ name: called, items }: Call) =>
      called === 'settle_delivery' && items.some((item) => item.paymentId === paymentId)
  }

  function atBank(at: 'before' | 'after-commit' | 'after-store', probe: boolean): Trap {
    let gate: Gate | null = null
    const arrived = new Promise<void>((arrive) =>
      wire.watch((call) => {
        if (gate !== null || !isClaim(call) || own === null) return
        gate = bank.faults.hold(at, { key: own.key, probe })
        void gate.arrived.then(arrive)
      }),
    )
    const letGo = async () => {
      // The bank has seen the connection go: a key that was not stored by then never is.
      if (dies === 'gateway')
        await bank.until((received) => {
          const lines = received.filter((line) => line.key === own?.key && line.probe === probe)
          return lines.length > 0 && lines.every(({ over }) => over)
        })
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
