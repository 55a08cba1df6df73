import { BulkheadRejectedError } from 'cockatiel'
import { describe, expect, test } from 'vitest'
import type { Bank } from '../../src/bank/bank.ts'
import { DONE, HEALTHY, REQUESTS, clientOf, done, httpBank, refusal, scriptedBank } from './scripted-bank.ts'
import type { Scripted } from './scripted-bank.ts'

/** When the bank fails, nothing is sent to it any more until /health says that it is well. */

const SETTINGS = { windowMs: 10_000, callsMin: 20, healthWaitMs: 20, healthWaitMsMax: 80 }
const CHAOS = refusal(500, 'internal_error')

const sends = (bank: Bank, count: number) =>
  Promise.all(Array.from({ length: count }, (_, n) => bank.send(`op_${n}`, REQUESTS.captures)))

/** A bank that can be made to fail and be unwell, and the client's view of it. */
async function failingBank(options: { health?: () => Promise<void> } = {}) {
  const bank = { failing: true, sent: 0, healthAskedMs: [] as number[] }
  const { url } = await httpBank(async (request, response) => {
    request.resume()
    if (request.url === '/health') {
      bank.healthAskedMs.push(performance.now())
      await options.health?.()
      response.statusCode = bank.failing ? 503 : 200
      return response.end(`{"status":"${bank.failing ? 'unhealthy' : 'healthy'}"}`)
    }
    bank.sent += 1
    response.statusCode = bank.failing ? 500 : 200
    return response.end(bank.failing ? CHAOS.body : JSON.stringify(DONE.captures))
  })
  const client = clientOf(url, { breaker: SETTINGS, random: () => 1 })
  const opened = async () => {
    await sends(client.bank, SETTINGS.callsMin)
    expect(client.bank.state().circuit).not.toBe('closed')
    bank.sent = 0
  }
  return { ...client, scripted: bank, opened }
}

const logLines = (logged: string[]) => logged.map((line) => (JSON.parse(line) as { msg: string }).msg)

describe('the circuit', () => {
  test('opens when half of the exchanges fail: nothing is sent, and that is said', async () => {
    const { bank, scripted, opened, logged } = await failingBank()
    await opened()

    const [sent] = await sends(bank, 1)
    expect(sent).toEqual({
      answer: { is: 'notDone', reason: 'the circuit is open, nothing was sent' },
      calls: [],
    })
    expect(await bank.probe('op_1', REQUESTS.captures)).toEqual(sent)
    expect(await bank.look('captures', 'cap_1')).toMatchObject({ found: { is: 'noAnswer' }, calls: [] })
    expect(await bank.healthy()).toEqual({ healthy: false, calls: [] })
    expect(scripted.sent).toBe(0)
    expect(logLines(logged)[0]).toBe('bank circuit open: nothing is sent')
  })

  test('opens when connections fail, too', async () => {
    const { url } = await httpBank((request) => request.socket.destroy())
    const { bank } = clientOf(url, { breaker: SETTINGS })
    await sends(bank, 20)
    expect(bank.state().circuit).toBe('open')
  })

  test('asks only for health, at growing intervals, and closes when the bank is well', async () => {
    const { bank, scripted, opened, logged } = await failingBank()
    await opened()
    await expect.poll(() => scripted.healthAskedMs.length).toBeGreaterThanOrEqual(5)
    await sends(bank, 3)
    expect(scripted.sent).toBe(0)
    const waits = scripted.healthAskedMs.slice(1, 5).map((ms, n) => ms - (scripted.healthAskedMs[n] ?? 0))
    for (const [n, atLeast] of [40, 80, 80].entries()) expect(waits[n]).toBeGreaterThanOrEqual(atLeast - 2)

    scripted.failing = false
    await expect.poll(() => bank.state().circuit, { interval: 5 }).toBe('closed')
    const asked = scripted.healthAskedMs.length
    const after = await sends(bank, 30)
    expect(after.every(({ answer }) => answer.is === 'done')).toBe(true)
    expect(scripted.healthAskedMs).toHaveLength(asked)
    expect(logLines(logged).at(-1)).toBe('bank circuit closed: the bank is healthy')
  })

  test('opens again when the bank fails again, and asks as soon as the first time', async () => {
    const { bank, scripted, opened, logged } = await failingBank()
    for (let outage = 0; outage < 2; outage += 1) {
      scripted.failing = true
      await opened()
      await expect.poll(() => scripted.healthAskedMs.length, { interval: 5 }).toBeGreaterThanOrEqual(3)
      scripted.failing = false
      await expect.poll(() => bank.state().circuit, { interval: 5 }).toBe('closed')
      scripted.healthAskedMs.length = 0
    }
    const waits = logged.map((line) => (JSON.parse(line) as { nextAskInMs?: number }).nextAskInMs)
    expect(waits.filter((wait) => wait === 20)).toHaveLength(2)
  })

  test('sends nothing while it waits for the answer of health', async () => {
    let answer: () => void = () => {}
    const answered = new Promise<void>((resolve) => (answer = resolve))
    const { bank, scripted, opened } = await failingBank({ health: () => answered })
    await opened()
    await expect.poll(() => bank.state().circuit, { interval: 5 }).toBe('halfOpen')
    expect((await sends(bank, 5)).flatMap(({ calls }) => calls)).toEqual([])
    expect(await bank.admit(async (refused) => refused?.retryAfterMs)).toBe(20)
    scripted.failing = false
    answer()
    await expect.poll(() => bank.state().circuit, { interval: 5 }).toBe('closed')
    expect(scripted).toMatchObject({ sent: 0, healthAskedMs: [expect.any(Number)] })
  })

  test('stops a probe when it opens between health and probe', async () => {
    let answer: () => void = () => {}
    const answered = new Promise<void>((resolve) => (answer = resolve))
    const { url } = await httpBank(async (request, response) => {
      if (request.url !== '/health') return request.socket.destroy()
      await answered
      return response.end(HEALTHY.body)
    })
    const { bank } = clientOf(url, { breaker: { ...SETTINGS, healthWaitMs: 5_000 } })
    const probe = bank.probe('op_1', REQUESTS.captures)
    await sends(bank, 20)
    answer()
    expect(await probe).toMatchObject({
      answer: { is: 'notDone' },
      calls: [{ purpose: 'HEALTH', httpStatus: 200 }],
    })
  })

  test('ends with the client, in the middle of a question for health as well', async () => {
    const waiting = await failingBank({ health: () => new Promise(() => {}) })
    await waiting.opened()
    await expect.poll(() => waiting.scripted.healthAskedMs.length, { interval: 5 }).toBe(1)
    const before = performance.now()
    await waiting.bank.close()
    expect(performance.now() - before).toBeLessThan(1_000)
    expect(waiting.bank.state().circuit).toBe('open')
    expect(logLines(waiting.logged)).toHaveLength(1)

    const open = await failingBank()
    await open.opened()
    await open.bank.close()
    expect(open.bank.state().circuit).toBe('open')
  })

  const STAYS_CLOSED: [string, number, (n: number) => Scripted][] = [
    ['at 20 % chaos', 300, (n) => (n % 5 === 0 ? CHAOS : done('captures'))],
    ['at half', 200, (n) => (n % 2 === 1 ? CHAOS : done('captures'))],
    ['after 3 failures at a quiet hour', 3, () => CHAOS],
    ['when the bank refuses', 100, () => refusal(400, 'internal_error', 'failed to start transaction')],
    ['when cards are declined', 100, () => refusal(402, 'insufficient_funds')],
    ['when paths are missing', 100, () => refusal(404, 'not_found')],
    ['when the bank answers nonsense', 100, () => ({ body: '<html>' })],
    ['when amounts differ', 100, () => done('captures', { amount: 1 })],
  ]
  test.each(STAYS_CLOSED)('stays closed %s', async (_when, count, script) => {
    let n = 0
    const { url, received } = await scriptedBank(() => script(n++))
    const { bank, logged } = clientOf(url, { breaker: SETTINGS })
    for (let done = 0; done < count; done += 1) await sends(bank, 1)
    expect(bank.state().circuit).toBe('closed')
    expect(received).toHaveLength(count)
    expect(logLines(logged).filter((line) => line.includes('circuit'))).toEqual([])
  })
})

describe('admission', () => {
  const gate = () => {
    let open: () => void = () => {}
    const opened = new Promise<void>((resolve) => (open = resolve))
    return { opened, open }
  }

  test('runs what there are slots for, queues some, and refuses the rest at once', async () => {
    const { url } = await scriptedBank(() => done('captures'))
    const { bank } = clientOf(url, { maxInFlight: 2, maxQueued: 1 })
    const first = gate()
    const began: string[] = []
    const work = (name: string) => async (refused: unknown) => {
      began.push(name)
      await first.opened
      return refused
    }
    const running = [work('a'), work('b'), work('c')].map((each) => bank.admit(each))
    expect(began).toEqual(['a', 'b'])
    expect(bank.state()).toEqual({ circuit: 'closed', inFlight: 2, inFlightMax: 2, queued: 1 })

    expect(await bank.admit(async (refused) => refused)).toEqual({
      retryAfterMs: 1_000,
      reason: 'too many payments are in flight',
    })
    expect(began).toEqual(['a', 'b'])

    first.open()
    expect(await Promise.all(running)).toEqual([null, null, null])
    expect(began).toEqual(['a', 'b', 'c'])
    expect(bank.state()).toEqual({ circuit: 'closed', inFlight: 0, inFlightMax: 2, queued: 0 })
  })

  test('gives a slot back when the work fails', async () => {
    const { url } = await scriptedBank(() => done('captures'))
    const { bank } = clientOf(url, { maxInFlight: 1, maxQueued: 0 })
    await expect(bank.admit(() => Promise.reject(new Error('lost')))).rejects.toThrow('lost')
    expect(bank.state().inFlight).toBe(0)
  })

  test('does not take a failure of the work for a refusal of its own', async () => {
    const { url } = await scriptedBank(() => done('captures'))
    const { bank } = clientOf(url)
    let runs = 0
    const work = async () => {
      runs += 1
      throw new BulkheadRejectedError(1, 1)
    }
    await expect(bank.admit(work)).rejects.toThrow(BulkheadRejectedError)
    expect(runs).toBe(1)
  })

  test('refuses queued work whose place newcomers have taken, and does not lose it', async () => {
    const { url } = await scriptedBank(() => done('captures'))
    const { bank } = clientOf(url, { maxInFlight: 1, maxQueued: 1 })
    const { opened, open } = gate()
    const running = bank.admit(() => opened)
    const queued = bank.admit(async (refused) => refused?.reason)
    const newcomers = opened.then(() =>
      Promise.all([bank.admit(async (refused) => refused), bank.admit(async (refused) => refused)]),
    )
    open()
    expect(await queued).toBe('too many payments are in flight')
    expect(await newcomers).toEqual([null, null])
    await running
  })

  test('refuses at once while the circuit is open, without a slot', async () => {
    const { bank, opened } = await failingBank()
    await opened()
    const refused = await bank.admit(async (refused) => ({ refused, inFlight: bank.state().inFlight }))
    expect(refused).toEqual({
      refused: {
        retryAfterMs: expect.any(Number) as number,
        reason: 'the bank is not answering as it should; its circuit is open',
      },
      inFlight: 0,
    })
  })

  test('refuses work that waited while the circuit opened', async () => {
    const { url } = await scriptedBank(() => CHAOS)
    const { bank } = clientOf(url, {
      maxInFlight: 1,
      maxQueued: 1,
      breaker: { ...SETTINGS, healthWaitMs: 5_000 },
    })
    const { opened, open } = gate()
    const running = bank.admit(() => opened)
    const queued = bank.admit(async (refused) => refused?.retryAfterMs)
    await sends(bank, 20)
    open()
    expect(await queued).toBe(5_000)
    await running
  })
})
