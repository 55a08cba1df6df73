import { writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { Semaphore } from 'async-mutex'
import { startSimulator } from '../../src/simulator/simulator.ts'
import type { Simulator } from '../../src/simulator/simulator.ts'
import { privateServer } from '../../test/support/private-server.ts'
import type { PrivateServer } from '../../test/support/private-server.ts'
import { temporaryFolder } from '../../test/support/temporary.ts'
import { CARDS } from '../soak/cards.ts'
import { nothingSeen } from '../soak/clients.ts'
import type { Seen, World } from '../soak/clients.ts'
import { startGateways } from '../soak/gateways.ts'
import type { Gateways } from '../soak/gateways.ts'
import { lookLate } from '../soak/late-looks.ts'
import { live } from '../soak/life.ts'
import type { ComeBack } from '../soak/life.ts'
import { planLives } from '../soak/plan.ts'
import { rowsOf, START_CENTS } from '../soak/stage.ts'
import { seeded } from '../support/random.ts'
import { judge } from './judge.ts'
import type { Judged } from './judge.ts'
import { LOG_OF_FAILURE } from './receipts.ts'
import type { FailedOver, Receipts } from './receipts.ts'
import { rowsSoon } from './server.ts'
import { compareWithStatement } from './statement.ts'

/**
 * One scene: FicMart's order service makes payments through two gateways, the server of the receipts fails and another
 * has them. The old one comes back, the clients repeat what they have asked for, and both ledgers are laid side by side.
 * The bank has a server of its own, which does not fail.
 */
export type Scene = {
  name: string
  /** Commits of the last seconds are lost with the server. */
  loses: boolean
  open(): Promise<Receipts>
}

export type Outcome = Judged & {
  scene: string
  seed: number
  /** Final answers to requests before the failure, and those of them that the receipts did not know after it. */
  answered: number
  lost: string[]
  isLossy: boolean
  /** From the failure to the first success afterwards; and to that from when the other server was told to take over. */
  withoutWritesMs: number
  servingMs: number
  /** What clients were told between the two, by code. */
  meanwhile: Map<string, number>
  log: string
}

const GATEWAYS = 2
/** Of all durations of the gateway's that have to do with the bank: what is ambiguous is resolved within seconds. */
const SCALE = 0.1
const LIVES_PER_SECOND = 20
const LIVES_AT_ONCE = 20
/** More than there will be. */
const LIVES_MAX = 20_000
const PART_MS_MAX = 60_000
const LAST_ANSWERS_MS = 60_000
const RECOVERY_MS = 30_000
const POLL_MS = 20

export async function play(
  scene: Scene,
  options: {
    seed: number
    /** Final answers that clients get in each part: however busy the machine is, so much happens in it. */
    answersEach: number
    show: (line: string) => void
  },
): Promise<Outcome> {
  const { seed, answersEach, show } = options
  show('starting the servers, the bank and the gateways')
  const bankServer = await privateServer()
  const receipts = await scene.open()
  const bank = await openBank(bankServer, seed)
  const gateways = await startGateways(GATEWAYS, {
    DATABASE_URL: receipts.databaseUrl,
    BANK_URL: bank.url,
    DATA_FOLDER: await temporaryFolder('gateway-failover-'),
    ...SETTINGS,
  })
  const over = new AbortController()
  const seen = nothingSeen()
  try {
    const load = startLoad(
      { gatewayUrl: (random) => gateways.url(random), scale: SCALE, over: over.signal, seen },
      seed,
    )
    show('payments are made')
    await answers(seen, answersEach)
    if (scene.loses) {
      await receipts.beginToLose()
      await answers(seen, answersEach)
    }
    show('the server of the receipts fails')
    const failed = await receipts.failOver()
    const lost = await lostAnswers(seen, failed, receipts)
    show(`another has the receipts ${Math.round(performance.now() - failed.struckMs)} ms later`)
    await answers(seen, answersEach)
    show('the server that failed is back')
    await receipts.bringBack()
    // Its next one, which starts anew, finds both.
    await gateways.restart(seeded(seed))
    await answers(seen, answersEach)
    await load.end()

    show('clients repeat their requests')
    await Promise.race([load.repeat(wantedOf(seen, scene)), pause(LAST_ANSWERS_MS)])
    const unresolved = await recovered(receipts)
    await lookLate(() => gateways.url(Math.random), receipts.url())
    over.abort()
    show('both ledgers are laid side by side')
    const listed = await compareWithStatement(bank, receipts)
    const exitCodes = await gateways.stop()
    const judged = await judge(
      { bankServer, bank, receipts, gateways },
      { seen, exitCodes, unresolved, listed, loses: scene.loses },
    )
    return {
      ...judged,
      ...timesOf(seen, failed),
      scene: scene.name,
      seed,
      answered: answersBefore(seen, failed).length,
      lost,
      isLossy: scene.loses,
      log: gateways.output(),
    }
  } catch (error) {
    await writeFile(LOG_OF_FAILURE, `${gateways.output()}\n${await receipts.output()}`)
    throw new Error(`${scene.name} broke off; what was logged is in ${LOG_OF_FAILURE}`, { cause: error })
  } finally {
    over.abort()
    await gateways.stop()
    await bank.close()
    await Promise.all([receipts.end(), bankServer.stop()])
  }
}

const SETTINGS = {
  // Nobody hangs up on the bank here: a key that is lost by that, on a busy machine, is the soak's to prove.
  BANK_ATTEMPT_TIMEOUT_MS: '10000',
  BANK_QUIET_PERIOD_MS: '3000',
  BANK_CONFIRM_AFTER_MS: '100',
  RECOVER_AFTER_MS: '500',
  REQUEST_DEADLINE_MS: '1000',
  SWEEP_EVERY_MS: '300',
}

async function answers(seen: Seen, count: number): Promise<void> {
  const wanted = seen.answers.length + count
  const untilMs = performance.now() + PART_MS_MAX
  while (seen.answers.length < wanted && performance.now() < untilMs) await pause(POLL_MS)
}

/** It fails a little, as it always does, so that what is ambiguous is among what is lost. Its keys are not. */
async function openBank(server: PrivateServer, seed: number): Promise<Simulator> {
  await server.createDatabase('bank')
  const bank = await startSimulator({
    databaseUrl: server.url('bank'),
    port: 0,
    settings: {
      minLatencyMs: 100 * SCALE,
      maxLatencyMs: 2_000 * SCALE,
      failureRate: 0.05,
      authExpiryHours: 168,
    },
    random: seeded(seed),
    receivedMax: Infinity,
  })
  for (const { number, cvv, expiryMonth, expiryYear } of CARDS) {
    await bank.sql`
      insert into accounts values (${number}, ${cvv}, ${expiryMonth}, ${expiryYear}, ${START_CENTS}, ${START_CENTS})`
  }
  bank.faults.add('drop-before', { times: null, probability: 0.02 })
  bank.faults.add('drop-after-store', { times: null, probability: 0.02 })
  return bank
}

type Load = {
  /** No new payments are begun; resolves when those that were have had their answers. */
  end(): Promise<void>
  /** What was asked, by all clients, once more. */
  repeat(isWanted: (key: string) => boolean): Promise<unknown>
}

function startLoad(world: World, seed: number): Load {
  const plan = planLives(LIVES_MAX, seed)
  const places = new Semaphore(LIVES_AT_ONCE)
  const begun: Promise<ComeBack>[] = []
  let isEnding = false
  const beginning = (async () => {
    for (const life of plan) {
      if (isEnding) return
      // Nobody asks for something else under a key that is used: after a loss it could be the first.
      const others = life.others.filter(({ who }) => who !== 'conflict')
      begun.push(places.runExclusive(async () => await live(world, { ...life, others })))
      await pause(1_000 / LIVES_PER_SECOND)
    }
  })()
  return {
    end: async () => {
      isEnding = true
      await beginning
      await Promise.race([Promise.all(begun), pause(LAST_ANSWERS_MS)])
    },
    repeat: async (isWanted) =>
      await Promise.all(
        begun.map(async (life) => {
          const comeBack = await life
          await places.runExclusive(async () => await comeBack(isWanted))
        }),
      ),
  }
}

/**
 * What was refused for good is not asked for again where its receipt may be lost: it could be carried out now, beside
 * what its client has asked for since in its place.
 */
function wantedOf({ answers }: Seen, { loses }: Scene): (key: string) => boolean {
  const done = new Set(answers.filter(({ answer }) => 'version' in answer).map(({ key }) => key))
  const refused = new Set(answers.map(({ key }) => key).filter((key) => loses && !done.has(key)))
  return (key) => !refused.has(key)
}

const answersBefore = (seen: Seen, { struckMs }: FailedOver) =>
  seen.answers.filter(({ atMs }) => atMs < struckMs)

/** Keys whose final answers the server that has the receipts now does not know. */
async function lostAnswers(seen: Seen, failed: FailedOver, receipts: Receipts): Promise<string[]> {
  const answered = new Set(answersBefore(seen, failed).map(({ key }) => key))
  // Repeats can have come already: they count as lost all the same.
  const rows = await rowsSoon(
    receipts.url(),
    `select idempotency_key as key from operations where status <> 'UNRESOLVED' and created_at < now() - interval '${Math.round(performance.now() - failed.struckMs)} ms'`,
  )
  const known = new Set(rows.map(({ key }) => key))
  return [...answered].filter((key) => !known.has(key))
}

function timesOf(seen: Seen, { struckMs, promotedMs, takenOverMs }: FailedOver) {
  const first = seen.answers.find(({ answer, atMs }) => 'version' in answer && atMs >= takenOverMs)
  const servedMs = first?.atMs ?? Infinity
  const meanwhile = new Map<string, number>()
  for (const { code } of seen.notYet.filter(({ atMs }) => atMs >= struckMs && atMs < servedMs))
    meanwhile.set(code, (meanwhile.get(code) ?? 0) + 1)
  return { withoutWritesMs: servedMs - struckMs, servingMs: servedMs - promotedMs, meanwhile }
}

/** Waits until nothing is unresolved, or recovery has had its time. */
async function recovered(receipts: Receipts): Promise<object[]> {
  for (const untilMs = performance.now() + RECOVERY_MS; ; await pause(POLL_MS)) {
    const unresolved = await rowsOf(
      receipts.url(),
      `select id, kind, attempt, attempt_purpose, ambiguous_at, leased_until from operations where status = 'UNRESOLVED'`,
    )
    if (unresolved?.length === 0 || performance.now() > untilMs)
      return unresolved ?? [{ kind: 'The receipts do not answer.' }]
  }
}

export type Played = { bankServer: PrivateServer; bank: Simulator; receipts: Receipts; gateways: Gateways }
