import { writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { Semaphore } from 'async-mutex'
import { seeded } from '../support/random.ts'
import { nothingSeen } from './clients.ts'
import type { Seen, World } from './clients.ts'
import { startFaults } from './faults.ts'
import { lookLate } from './late-looks.ts'
import { live } from './life.ts'
import { planLives } from './plan.ts'
import type { Life } from './plan.ts'
import { operate } from './operator.ts'
import { askAllAlong, askAtTheEnd } from './shipments.ts'
import { rowsOf, setStage } from './stage.ts'
import type { Stage } from './stage.ts'
import { judge } from './verdict.ts'
import type { Verdict } from './verdict.ts'

/**
 * One soak: payments live their lives through three gateways while all that can fail does; then the faults end, recovery
 * has its time, and both ledgers are laid side by side.
 */
export type SoakOptions = {
  payments: number
  /** Of all durations; 1 as in production. */
  scale: number
  seed: number
  show: (line: string) => void
}
export type SoakReport = Verdict & {
  faults: Map<string, number>
  seen: Seen
  /** What the operator settled; webhooks that came. */
  acts: number
  events: number
  tookMs: number
  /** From the last fault until nothing was unresolved. */
  settledMs: number
  /** Of all gateways. */
  log: string
}

/** What two cores carry; and the least time in which lives begin, for every fault to strike twice. */
const LIVES_PER_SECOND = 20
const BEGIN_MS_MIN = 200_000
/**
 * Where a machine that is busy with other things cannot keep up, the next ones wait. At a tenth of the durations
 * recovery asks ten times as often; for hundreds at once it would then need all of the time that there is.
 */
const LIVES_AT_ONCE = 400
const LIVES_AT_ONCE_MIN = 40
/** A lease, in which lives that have begun still meet faults. */
const LAST_FAULTS_MS = 50_000
const RECOVERY_MS = 90_000
/** For each thousand of payments, whatever the scale: who comes back then needs it only when something has gone wrong. */
const LAST_ANSWERS_MS = 60_000

export async function soak({ payments, scale, seed, show }: SoakOptions): Promise<SoakReport> {
  const startedMs = performance.now()
  show('starting two Postgres servers, a bank and three gateways')
  const stage = await setStage(scale, seeded(seed))
  const { gateways } = stage
  const receiptsUrl = stage.receiptsServer.url('gateway')
  const over = new AbortController()
  const seen = nothingSeen()
  try {
    const faults = startFaults({
      ...stage,
      scale,
      random: seeded(seed + 1),
      answers: () => seen.answers.length,
    })
    const gatewayUrl = (random: () => number) => gateways.url(random)
    const anyUrl = () => gatewayUrl(Math.random)
    const plan = planLives(payments, seed)
    const lives = begin(plan, { gatewayUrl, scale, over: over.signal, seen })
    const warehouse = { lives: plan, gatewayUrl: anyUrl, seen, random: seeded(seed + 2) }
    const asking = askAllAlong(warehouse, () => lives.count.begun, over.signal)
    const closed = new AbortController()
    const operating = operate({ gatewayUrl: anyUrl, receiptsUrl, bank: stage.bank, scale }, closed.signal)
    const watching = watch(over.signal, async () => {
      const { begun, done } = lives.count
      const unresolved = (await unresolvedIn(receiptsUrl))?.length ?? 'not to be told'
      const struck = [...faults.counts().values()].reduce((sum, times) => sum + times, 0)
      show(
        `${done} of ${payments} payments done, ${begun - done} under way, ${struck} faults so far, unresolved now: ${unresolved}`,
      )
    })

    await lives.allBegun
    await Promise.race([lives.allDone, pause(LAST_FAULTS_MS * scale)])
    await faults.stop()
    stage.isReceiverIll.now = false
    const struck = faults.counts()
    const recovered = await recovery(receiptsUrl, scale)
    await lookLate(anyUrl, receiptsUrl)
    await Promise.race([lives.comeBack(), pause(LAST_ANSWERS_MS * (1 + payments / 1_000))])
    over.abort()
    await Promise.all([lives.allDone, watching, asking])
    show('waiting for reviews, expired authorizations and webhooks')
    await allOver(receiptsUrl, stage)
    closed.abort()
    const { acts } = await operating
    await askAtTheEnd(warehouse)

    show('laying both ledgers side by side')
    const exitCodes = await gateways.stop()
    const verdict = await judge(stage, seen, { exitCodes, unresolved: recovered.unresolved })
    const tookMs = performance.now() - startedMs
    return {
      ...verdict,
      faults: struck,
      seen,
      acts,
      events: stage.receiver.events.length,
      tookMs,
      settledMs: recovered.tookMs,
      log: gateways.output(),
    }
  } catch (error) {
    await writeFile(LOG_OF_FAILURE, gateways.output())
    throw new Error(`the soak broke off; what the gateways logged is in ${LOG_OF_FAILURE}`, { cause: error })
  } finally {
    over.abort()
    await stage.end()
  }
}

const LOG_OF_FAILURE = 'build/soak-broke-off.log'

type Lives = {
  count: { begun: number; done: number }
  allBegun: Promise<void>
  allDone: Promise<unknown>
  /** Late clients, when all is done. */
  comeBack(): Promise<unknown>
}

function begin(plan: Life[], world: World): Lives {
  const { scale } = world
  const withinMs = Math.max((plan.length / LIVES_PER_SECOND) * 1_000, BEGIN_MS_MIN * scale)
  const places = new Semaphore(Math.max(LIVES_AT_ONCE_MIN, LIVES_AT_ONCE * scale))
  const count = { begun: 0, done: 0 }
  let lastBegins = () => {}
  const allBegun = new Promise<void>((resolve) => (lastBegins = resolve))
  const allDone = Promise.all(
    plan.map(async (life) => {
      await pause((life.number / plan.length) * withinMs)
      return await places.runExclusive(async () => {
        count.begun += 1
        if (count.begun === plan.length) lastBegins()
        const comeBack = await live(world, life)
        count.done += 1
        return comeBack
      })
    }),
  )
  const comeBack = async () =>
    await Promise.all(
      (await allDone).map(async (again) => await places.runExclusive(async () => await again())),
    )
  return { count, allBegun, allDone, comeBack }
}

/**
 * Waits until all is resolved that had begun when the faults ended, or recovery has had its time. Looks are counted, not
 * the time: on a machine that is busy with other things recovery is as late as they are.
 */
async function recovery(url: string, scale: number) {
  const quiet = { at: new Date().toISOString(), ms: performance.now() }
  for (let looks = 1; ; looks += 1) {
    const unresolved = await unresolvedIn(url, quiet.at)
    const isOver = looks * POLL_MS > RECOVERY_MS * scale
    if (unresolved?.length === 0 || (unresolved !== null && isOver))
      return { unresolved, tookMs: performance.now() - quiet.ms }
    if (isOver) throw new Error('The receipts do not answer, long after their Postgres was restarted.')
    await pause(POLL_MS)
  }
}

/** Reviews are settled, authorizations that have ended are released, and FicMart knows all; or they have had their time. */
async function allOver(url: string, { receiver }: Stage): Promise<void> {
  for (const untilMs = performance.now() + LAST_MS; performance.now() < untilMs; await pause(POLL_MS)) {
    const rows = await rowsOf(
      url,
      `select (select count(*)::int from transitions) as transitions,
              (select count(*)::int from payments where review_reason is not null
                 or state = 'AUTHORIZED' and authorization_expires_at < now() + interval '1 hour') as open`,
    )
    const [row] = rows ?? []
    const told = new Set(receiver.events.map(({ id }) => id)).size
    if (row?.['open'] === 0 && told >= Number(row['transitions'])) return
  }
}

/** A webhook that went to a gateway which died is sent again after half a minute, a refused one later still. */
const LAST_MS = 180_000
const POLL_MS = 200
const WATCH_MS = 500

async function watch(over: AbortSignal, look: () => Promise<void>): Promise<void> {
  while (!over.aborted) {
    await look()
    await pause(WATCH_MS)
  }
}

/** Of the operations that had begun by then and wait for no operator. Null while the receipts are away. */
async function unresolvedIn(url: string, begunBy = 'infinity'): Promise<Record<string, unknown>[] | null> {
  return await rowsOf(
    url,
    `select id, kind, attempt, attempt_purpose, ambiguous_at, leased_until from operations
     where status = 'UNRESOLVED' and leased_until is not null and created_at <= '${begunBy}'`,
  )
}
