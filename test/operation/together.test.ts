import { expect, it } from 'vitest'
import { createLine, createTurns, together } from '../../src/db/together.ts'
import { systemClock } from '../../src/gateway.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'

/** Statements that many requests share: what is put together, and that nobody notices. */

/** A database that answers when the test says so, and remembers what each statement was about. */
function heldDatabase({ isPatient = false } = {}) {
  const turns = createTurns(isPatient)
  const said: string[][] = []
  const answers: (() => void)[] = []
  /** Of one kind of statement. */
  const line = () => {
    const waiting = createLine<string, string>(turns)
    return (item: string) =>
      together({ clock: systemClock }, waiting, item, async (items) => {
        said.push([...items])
        await new Promise<void>((answer) => answers.push(answer))
        if (items.includes('bad')) throw new Error('a bad item')
        return items.includes('mute') ? [] : items.map((one) => one.toUpperCase())
      })
  }
  const answer = async (nth: number) => {
    answers[nth]?.()
    await new Promise(setImmediate)
  }
  /** Answers the statements said so far, and those that follow from it. */
  const answerAll = async () => {
    for (let nth = 0; nth < answers.length; nth += 1) await answer(nth)
  }
  return { ask: line(), askOther: line(), said, answer, answerAll }
}

it('each gets the row that names it, whatever order they come in', async () => {
  const line = createLine<string, { item: number; said: string }>(createTurns())
  const ask = (item: string) =>
    together({ clock: systemClock }, line, item, async (items) =>
      items.map((said, index) => ({ item: index, said })).toReversed(),
    )
  const said = await Promise.all(['a', 'b', 'c', 'd'].map(ask))
  expect(said.map((row) => row.said)).toEqual(['a', 'b', 'c', 'd'])
})

it('an item goes at once and alone, and what comes while it is under way goes together', async () => {
  const { ask, said, answerAll } = heldDatabase()
  const rows = Promise.all(['a', 'b', 'c', 'd', 'e'].map(ask))
  expect(said).toEqual([['a']])
  await answerAll()
  expect(said).toEqual([['a'], ['b', 'c', 'd', 'e']])
  expect(await rows).toEqual(['A', 'B', 'C', 'D', 'E'])
})

it('kinds take turns, one statement at a time, and who has waited longest is next', async () => {
  const { ask, askOther, said, answer } = heldDatabase()
  const rows = Promise.all([ask('a'), askOther('x'), ask('b'), askOther('y')])
  expect(said).toEqual([['a']])
  await answer(0)
  expect(said).toEqual([['a'], ['x', 'y']])
  await answer(1)
  expect(said).toEqual([['a'], ['x', 'y'], ['b']])
  await answer(2)
  expect(await rows).toEqual(['A', 'X', 'B', 'Y'])
})

it('who fill a statement wait for none, but for seven that do so already', async () => {
  const { ask, said, answer, answerAll } = heldDatabase()
  const names = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => `item-${from + n}`)
  const full = (nth: number) => names(1 + 32 * nth, 33 + 32 * nth)
  const rows = names(0, 1 + 9 * 32).map(ask)
  const atOnce = [names(0, 1), ...[0, 1, 2, 3, 4, 5, 6].map(full)]
  expect(said).toEqual(atOnce)
  // Those who fill one more go when one of the seven has ended.
  await answer(1)
  expect(said).toEqual([...atOnce, full(7)])
  await answerAll()
  expect(said.at(-1)).toEqual(full(8))
  expect(await Promise.all(rows)).toEqual(names(0, 289).map((name) => name.toUpperCase()))
})

it('where each statement ends soon by itself, the next is for all who wait, however many', async () => {
  const { ask, said, answer } = heldDatabase({ isPatient: true })
  const rows = Array.from({ length: 1 + 500 }, (_, n) => ask(`item-${n}`))
  await answer(0)
  expect(said.map((items) => items.length)).toEqual([1, 500])
  await answer(1)
  expect(await Promise.all(rows)).toHaveLength(501)
})

it('the next statement has left before those of the last go on', async () => {
  const line = createLine<string, string>(createTurns())
  const left: string[] = []
  const ask = (item: string) =>
    together({ clock: systemClock }, line, item, async ([said = '']) => {
      // The driver takes as many steps before it writes.
      for (let step = 0; step < 20; step += 1) await Promise.resolve()
      left.push(said)
      await new Promise(setImmediate)
      return [said]
    })
  const leftThen = ask('first').then(() => [...left])
  void ask('second')
  expect(await leftThen).toEqual(['first', 'second'])
})

it('nobody fails for a neighbour that is bad', async () => {
  const { ask, said, answerAll } = heldDatabase()
  const rows = Promise.allSettled(['first', 'left', 'bad', 'right'].map(ask))
  await answerAll()
  expect(said).toEqual([['first'], ['left', 'bad', 'right'], ['left'], ['bad'], ['right']])
  expect((await rows).map((row) => (row.status === 'fulfilled' ? row.value : 'failed'))).toEqual([
    'FIRST',
    'LEFT',
    'failed',
    'RIGHT',
  ])
})

it('a statement that the database did not answer fails for all: each is said again in its own time', async () => {
  const { ask, said, answerAll } = heldDatabase()
  const rows = Promise.allSettled(['first', 'left', 'mute'].map(ask))
  await answerAll()
  expect(said).toEqual([['first'], ['left', 'mute']])
  expect((await rows).map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected'])
})

it('nobody waits for a statement that hangs, whatever its kind, and it is answered when it ends', async () => {
  const { ask, askOther, said, answer } = heldDatabase()
  const hangs = ask('hangs')
  const others = Promise.all([ask('a'), ask('b'), askOther('x')])
  await expect.poll(() => said).toEqual([['hangs'], ['a', 'b']])
  await answer(1)
  // Others have gone on: no further statement waits for the one that hangs.
  expect(said).toEqual([['hangs'], ['a', 'b'], ['x']])
  await answer(2)
  expect(await others).toEqual(['A', 'B', 'X'])
  void ask('c')
  expect(said.at(-1)).toEqual(['c'])
  await answer(0)
  expect(await hangs).toBe('HANGS')
})

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
// Patient: a hundred at once are slow on a busy machine.
const { client } = startTestGateway({
  databaseUrl: database.url,
  bankUrl: bank.url,
  settings: { attemptTimeoutMs: 20_000, requestDeadlineMs: 30_000 },
})

it('a hundred requests at once are claimed by a few statements, each with its own outcome', async () => {
  const orders = Array.from({ length: 100 }, (_, n) => `order-${n}`)
  const answers = await Promise.all(orders.map(async (orderId) => await client.authorize({ orderId })))
  const written = await database.sql<{ id: string; orderId: string; state: string }[]>`
    select 'pay_' || id as id, order_id, state from payments`
  const ofOrder = new Map(written.map((row) => [row.orderId, row]))
  expect(answers.map(({ payment }) => payment?.id)).toEqual(orders.map((order) => ofOrder.get(order)?.id))
  expect(answers.map(({ payment }) => payment?.state)).toEqual(orders.map(() => 'AUTHORIZED'))
  // Each commit has a transaction of its own.
  const [commits] =
    await database.sql`select count(distinct xmin::text)::int as claims from transitions where version = 1`
  expect(commits?.['claims']).toBeLessThan(50)
})

it('one key for several orders at once is used once, and no other request fails for it', async () => {
  const key = 'used-for-several'
  const [results, others] = await Promise.all([
    Promise.all(Array.from({ length: 10 }, async () => await client.authorize({ idempotencyKey: key }))),
    Promise.all(Array.from({ length: 10 }, async () => await client.authorize())),
  ])
  const codes = results.map((result) => result.code ?? result.payment?.state).toSorted()
  expect(codes).toEqual(['AUTHORIZED', ...results.slice(1).map(() => 'IDEMPOTENCY_KEY_REUSED')])
  expect(others.map(({ payment }) => payment?.state)).toEqual(others.map(() => 'AUTHORIZED'))
})

it('an id that another payment has keeps no other outcome from being written', async () => {
  const [first, ...others] = await Promise.all(
    Array.from({ length: 12 }, async () => await authorized(client)),
  )
  await client.capture({ paymentId: first?.id ?? '' })
  const before = (await bank.transactions('CAPTURE')).map(({ id }) => id)
  const gate = bank.faults.hold('after-store', { endpoint: 'captures' })
  const captures = Promise.all(others.map(async ({ id }) => await client.capture({ paymentId: id })))
  const captured = async () => (await bank.transactions('CAPTURE')).filter(({ id }) => !before.includes(id))
  await expect.poll(async () => (await captured()).length).toBe(others.length)
  // Whatever made it so: one of the ids that are on their way is on another receipt already.
  const [{ id: taken } = { id: '' }] = (await captured()).slice(-1)
  await database.sql`update payments set capture_id = ${taken} where id = ${first?.id.slice(4) ?? ''}`
  gate.open()
  const states = (await captures).map(({ payment }) => payment?.state)
  expect(states.filter((state) => state === 'CAPTURED')).toHaveLength(others.length - 1)
  const flagged = await database.sql`select review_reason from payments where review_reason is not null`
  expect(flagged).toEqual([{ reviewReason: 'The bank gave an id that another payment has' }])
})

it('a payment whose row another session holds keeps no other from being captured', async () => {
  const payments = await Promise.all(Array.from({ length: 12 }, async () => await authorized(client)))
  const before = (await bank.transactions('CAPTURE')).length
  const gate = bank.faults.hold('after-store', { endpoint: 'captures' })
  const captures = payments.map(async ({ id }) => await client.capture({ paymentId: id }))
  // In their midst, so that it comes in one statement with others.
  const [held, others] = [payments[6], captures.toSpliced(6, 1)]
  await expect.poll(async () => (await bank.transactions('CAPTURE')).length).toBe(before + captures.length)
  await database.sql.begin(async (session) => {
    await session`select from payments where id = ${held?.id.slice(4) ?? ''} for update`
    const openedMs = performance.now()
    gate.open()
    const states = (await Promise.all(others)).map(({ payment }) => payment?.state)
    expect(states).toEqual(others.map(() => 'CAPTURED'))
    // Long before the statement would have been given up (10 s).
    expect(performance.now() - openedMs).toBeLessThan(5_000)
  })
  expect(await captures[6]).toMatchObject({ payment: { state: 'CAPTURED' } })
})
