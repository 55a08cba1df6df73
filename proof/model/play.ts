import type { Database } from '../../src/db/connection.ts'
import { isPassing } from '../../src/db/persist.ts'
import { drained } from '../../src/operation/lock.ts'
import type { Request, Result } from '../../src/operation/result.ts'
import { perform } from '../../src/operation/run.ts'
import { sweep } from '../../src/recovery/sweep.ts'
import { HOUR_MS, ModelBank, START } from './bank.ts'
import type { Asking, Deed, Failing, Story, Wish } from './deeds.ts'
import { seeded } from '../support/random.ts'
import { err, rerun, settleFirst } from './operator.ts'
import { kill, SETTINGS, startProcess } from './process.ts'
import type { Process, World } from './process.ts'
import { emptyReceipts, readReceipts, somethingDue } from './receipts.ts'
import type { Receipts } from './receipts.ts'
import { requestOf } from './requests.ts'
import { Time } from './time.ts'

/**
 * Plays a story on an empty database, then lets the faults end: recovery goes on until nothing is left for it, then an
 * operator with the bank's statement settles the rest, and every request that has an operation is repeated. What
 * everyone did, was told and wrote is the history that rules.ts judges.
 */
export type History = {
  bank: ModelBank
  told: Told[]
  /** When the last fault had ended, and when recovery had nothing more to do at once. */
  wellAtMs: number
  recoveredAtMs: number
  /** Then, after the late looks of a day, and at the very end. */
  recovered: Receipts
  waited: Receipts
  settled: Receipts
  interruptions: number
  pauses: number
  /** What operators did before the faults had ended. */
  acts: number
  errors: World['errors']
}

export type Told = {
  request: Request
  /** Null: its process died before the answer. */
  result: Result | null
  askedMs: number
  answeredMs: number
  /** Nothing has failed so far, and nothing else was under way. */
  isPlain: boolean
  /** Asked again at the end, when all was known. */
  isRepeat: boolean
}

export async function play(sql: Database, story: Story): Promise<History> {
  await emptyReceipts(sql)
  const random = seeded(story.chance)
  const time = new Time()
  const bank = new ModelBank(time, random)
  const world: World = {
    time,
    bank,
    sql,
    random,
    databaseFaults: [],
    trips: new Set(),
    interruptions: 0,
    pauses: 0,
    errors: [],
  }
  const run = new Run(world)
  if (story.scene !== 'empty') await run.do(plainly(AUTHORIZE))
  if (story.scene === 'captured') await run.do(plainly(CAPTURE))
  for (const deed of story.deeds) await run.do(deed)

  const wellAtMs = await run.endFaults()
  await run.sweepWhileDue('at once')
  const recoveredAtMs = time.nowMs
  const recovered = await readReceipts(sql)
  const waited = (await run.sweepWhileDue('ever')) ? await readReceipts(sql) : recovered
  const settled = await run.settle(waited)
  await run.repeatAll(settled)
  const { interruptions, pauses, errors } = world
  return {
    bank,
    told: run.told,
    wellAtMs,
    recoveredAtMs,
    recovered,
    waited,
    settled,
    interruptions,
    pauses,
    acts: run.acts,
    errors,
  }
}

const AUTHORIZE: Wish = { what: 'AUTHORIZE', order: 0, cents: 100, card: 'good', another: false, key: 'new' }
const CAPTURE: Wish = { what: 'CAPTURE', payment: 0, isExpected: true, key: 'new' }
const plainly = (ask: Wish): Asking => ({ do: 'ask', by: 0, ask, bank: [], database: [], trouble: null })

const ACTS = { settle: settleFirst, rerun, err }

/** The answer comes at the deadline at the latest, whatever fails. */
const PATIENCE_MS = SETTINGS.requestDeadlineMs + 1
const SWEEP_EVERY_MS = 3_000
const ROUNDS_MAX = 40
/** A late look that found nothing is followed by a hundred that find nothing: after so many rounds the next are left out. */
const ROUNDS_CLOSE = 10
const LONG_LOOK_MS = 6 * HOUR_MS
/** Nothing that is under way takes as long as this, hung exchanges, paused processes and a silent database included. */
const LONG_MS = 600_000

class Run {
  readonly told: Told[] = []
  readonly #world: World
  readonly #processes: Process[]
  acts = 0
  #isPlain = true
  #work: Promise<unknown>[] = []

  constructor(world: World) {
    this.#world = world
    this.#processes = [startProcess(world), startProcess(world)]
  }

  async do(deed: Deed): Promise<void> {
    const { time } = this.#world
    if (deed.do !== 'wait' && deed.do !== 'ask') this.#isPlain = false
    switch (deed.do) {
      case 'wait':
        return await time.pass(deed.ms)
      case 'ask':
        return await this.#ask([deed])
      case 'together':
        return await this.#ask([deed.one, deed.other])
      case 'sweep':
        if (deed.isDue) await this.#passUntilDue('ever')
        return await this.#failing(
          [deed],
          async (process) => await this.#beginning(this.#sweeping(process), process),
        )
      case 'kill':
        return kill(this.#world, this.#process(deed.by))
      case 'drain':
        this.#process(deed.by).gateway.inFlight.draining = true
        return
      case 'outage':
        this.#world.bank.outage = { fault: deed.fault, untilMs: time.nowMs + deed.ms }
        return
      case 'step':
        this.#process(deed.by).skewMs = deed.ms
        return
      case 'settle':
      case 'rerun':
      case 'err':
        this.acts += 1
        return await this.#failing([deed], async (process) => {
          const act = ACTS[deed.do]
          const receipts = await time.real(() => readReceipts(this.#world.sql))
          // An operator whose reads find no database is told so, and comes again.
          const acting = act(process, this.#world, receipts).catch(onlyWhenPassing)
          await this.#beginning(acting, process)
        })
    }
  }

  async #ask(askings: Asking[]): Promise<void> {
    await this.#failing(askings, async (process, { ask }) => {
      const request = requestOf(ask, this.told)
      if (request !== null) await this.#tell(process, request, false)
    })
  }

  /** Does something by processes that fail meanwhile. */
  async #failing<F extends Failing>(
    failing: F[],
    work: (process: Process, one: F) => Promise<void>,
  ): Promise<void> {
    const { time, bank } = this.#world
    bank.faults = failing.flatMap((one) => one.bank)
    this.#world.databaseFaults = failing.flatMap((one) => one.database)
    const isTroubled = failing.some(({ trouble }) => trouble !== null)
    if (bank.faults.length + this.#world.databaseFaults.length > 0 || isTroubled) this.#isPlain = false
    const all = failing.map(async (one) => {
      const process = this.#process(one.by)
      process.trouble = one.trouble ?? process.trouble
      await work(process, one)
    })
    await time.until(Promise.all(all), SWEEP_EVERY_MS + 1)
    for (const process of this.#processes) process.trouble = null
  }

  async #tell(process: Process, request: Request, isRepeat: boolean): Promise<void> {
    const { time } = this.#world
    const told: Told = {
      request,
      result: null,
      askedMs: time.nowMs,
      answeredMs: Infinity,
      isPlain: this.#isPlain,
      isRepeat,
    }
    this.told.push(told)
    const answer = time.live(process, () => perform(process.gateway, request))
    const result = await Promise.race([answer, process.death])
    if (result === undefined) return
    Object.assign(told, { result, answeredMs: time.nowMs })
    // The work goes on.
    if (result.is === 'problem' && result.problem.code === 'OUTCOME_UNKNOWN') this.#isPlain = false
  }

  #process(which: number): Process {
    const process = this.#processes[which]
    if (process !== undefined && !process.hasEnded) return process
    return (this.#processes[which] = startProcess(this.#world))
  }

  async #sweeping(process: Process): Promise<void> {
    await this.#world.time.live(process, () => sweep(process.gateway))
  }

  /** Waits for it, but not for ever: then it goes on by itself. */
  async #beginning(work: Promise<unknown>, process: Process): Promise<void> {
    const ended = Promise.race([work, process.death])
    this.#work.push(ended)
    await Promise.race([ended, this.#world.time.sleep(SWEEP_EVERY_MS)])
  }

  /** Waits for what is under way. */
  async endFaults(): Promise<number> {
    this.#world.bank.faults = []
    this.#world.bank.outage.untilMs = 0
    this.#world.databaseFaults = []
    this.#isPlain = false
    await this.#untilQuiet()
    for (const process of this.#processes) {
      process.skewMs = 0
      if (process.gateway.inFlight.draining && !process.hasEnded) kill(this.#world, process)
    }
    return this.#world.time.nowMs
  }

  /** Both processes sweep until nothing is left for them; false when there was nothing. */
  async sweepWhileDue(when: 'at once' | 'ever'): Promise<boolean> {
    const { time } = this.#world
    let rounds = 0
    for (; rounds < ROUNDS_MAX && (await this.#passUntilDue(when)); rounds += 1) {
      const process = this.#process(rounds % 2)
      await time.until(this.#beginning(this.#sweeping(process), process), SWEEP_EVERY_MS)
      await this.#untilQuiet()
      await time.pass(rounds < ROUNDS_CLOSE ? SWEEP_EVERY_MS : LONG_LOOK_MS)
    }
    return rounds > 0
  }

  /** False when nothing will be. */
  async #passUntilDue(when: 'at once' | 'ever'): Promise<boolean> {
    const { time, sql } = this.#world
    const due = await somethingDue(sql, new Date(START + time.nowMs), when)
    if (due !== null) await time.pass(Math.max(0, due.getTime() - START - time.nowMs))
    return due !== null
  }

  /** An operator settles what is left, one thing after the other. */
  async settle(receipts: Receipts): Promise<Receipts> {
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      const settling = settleFirst(this.#process(round % 2), this.#world, receipts)
      if (!(await this.#world.time.until(settling, LONG_MS))) break
      // A circuit that the last outage has opened refuses operators, too, until the bank's health has been seen: later.
      if (!(await this.sweepWhileDue('ever'))) await this.#world.time.pass(SWEEP_EVERY_MS)
      receipts = await readReceipts(this.#world.sql)
    }
    return receipts
  }

  async #untilQuiet(): Promise<void> {
    const { time, trips } = this.#world
    while (trips.size > 0) await time.until(Promise.allSettled(trips), LONG_MS)
    const drains = this.#processes.map((_, which) => drained(this.#process(which).gateway.inFlight))
    await time.until(Promise.all([...drains, ...this.#work]), LONG_MS)
  }

  /** Each request that has an operation, once more. */
  async repeatAll({ operations }: Receipts): Promise<void> {
    const keys = new Set(operations.map(({ idempotencyKey }) => idempotencyKey))
    const firsts = new Map(this.told.toReversed().map(({ request }) => [request.idempotencyKey, request]))
    for (const [key, request] of firsts) {
      if (keys.has(key))
        await this.#world.time.until(this.#tell(this.#process(1), request, true), PATIENCE_MS)
    }
  }
}

function onlyWhenPassing(error: unknown): void {
  if (!isPassing(error)) throw error
}
