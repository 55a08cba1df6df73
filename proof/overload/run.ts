import { existsSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { connect } from '../../src/db/connection.ts'
import type { Database } from '../../src/db/connection.ts'
import { startSimulator } from '../../src/simulator/simulator.ts'
import { startGatewayProcess } from '../../test/support/gateway-process.ts'
import type { GatewayProcess } from '../../test/support/gateway-process.ts'
import { privateServer } from '../../test/support/private-server.ts'
import { TEST_CARD } from '../../test/support/client.ts'
import type { Answered, Plan } from './load.ts'
import type { Seen } from './watch.ts'

/**
 * A gateway as users run it, before a bank whose every answer takes the same time: the places at the bank divided by
 * that time are what can be carried out in a second, the capacity. Load of 1, 3 and 10 times that comes, for so long
 * each. What is carried out must stay at the capacity; the rest must be refused at once, with nothing recorded.
 */
export type Options = {
  places: number
  latencyMs: number
  secondsEach: number
  times: readonly number[]
  seed: number
  /** The load, in this process or another. */
  load: (plan: Plan) => Promise<Answered[]>
  /** The compiled watch.ts; null: the event loop and the memory are not looked at. */
  watch: string | null
  show: (line: string) => void
}

export type Phase = {
  times: number
  seconds: number
  capacityPerSecond: number
  answers: Answered[]
  /** Keys that were refused and that the receipts know all the same. */
  recorded: string[]
  seen: Seen | null
  /** What was alive in the heap when the load began. */
  liveHeapMbBefore: number
}

export async function overload(options: Options): Promise<Phase[]> {
  const { places, latencyMs, show } = options
  show('starting Postgres, the bank and the gateway')
  const server = await privateServer()
  await Promise.all([server.createDatabase('gateway'), server.createDatabase('bank')])
  const bank = await startSimulator({
    databaseUrl: server.url('bank'),
    port: 0,
    settings: { minLatencyMs: latencyMs, maxLatencyMs: latencyMs, failureRate: 0, authExpiryHours: 168 },
  })
  const receipts = connect(server.url('gateway'), { connectionsMax: 1, statementTimeoutMs: 60_000 })
  await bank.sql`update accounts set balance_cents = 1e12, available_cents = 1e12 where card_number = ${TEST_CARD.number}`
  const gateway = await startGatewayProcess({
    DATABASE_URL: server.url('gateway'),
    BANK_URL: bank.url,
    BANK_IN_FLIGHT_MAX: String(places),
    BANK_QUEUE_MAX: String(places),
    CLIENT_REQUESTS_PER_SECOND_MAX: '1000000',
    ...(options.watch === null ? {} : { NODE_OPTIONS: `--import=${options.watch}` }),
  })
  try {
    const phases: Phase[] = []
    // The first is to warm up: code is compiled, connections are made, caches fill.
    for (const times of [Math.max(...options.times), ...options.times]) {
      const isFirst = phases.length === 0
      const capacityPerSecond = (places / latencyMs) * 1_000
      const seconds = isFirst ? Math.min(5, options.secondsEach) : options.secondsEach
      show(isFirst ? 'warming up' : `${times} times the capacity of ${capacityPerSecond}/s, ${seconds} s`)
      const name = `${phases.length}x${times}`
      const before = await seenBy(gateway, options.watch)
      const answers = await options.load({
        url: gateway.url,
        name,
        perSecond: times * capacityPerSecond,
        seconds,
        seed: options.seed + phases.length,
        repeats: REPEATS,
      })
      const seen = await seenBy(gateway, options.watch)
      phases.push({
        times,
        seconds,
        capacityPerSecond,
        answers,
        recorded: await recorded(receipts, name, answers),
        seen,
        liveHeapMbBefore: before?.liveHeapMb ?? Number.NaN,
      })
    }
    return phases.slice(1)
  } finally {
    await gateway.end('SIGKILL')
    await receipts.end({ timeout: 1 })
    await bank.close()
    await server.stop()
  }
}

const REPEATS = 0.05

/** What the gateway has seen of itself since it was last asked. */
async function seenBy(gateway: GatewayProcess, watch: string | null): Promise<Seen | null> {
  if (watch === null) return null
  if (!existsSync(new URL(watch))) throw new Error(`${watch} is missing: run npm run build:tools`)
  const before = gateway.output().length
  gateway.child.kill('SIGUSR2')
  for (;;) {
    const line = /^\{"seen":.*\}$/m.exec(gateway.output().slice(before))
    if (line !== null) return (JSON.parse(line[0]) as { seen: Seen }).seen
    if (gateway.child.exitCode !== null) throw new Error(`the gateway has ended: ${gateway.output()}`)
    await pause(20)
  }
}

async function recorded(receipts: Database, name: string, answers: Answered[]): Promise<string[]> {
  const rows = await receipts<{ key: string }[]>`
    select idempotency_key as key from operations where idempotency_key like ${`${name}-%`}`
  const known = new Set(rows.map(({ key }) => key))
  // A repeat may have been let in after the first was refused.
  const letIn = new Set(answers.filter(({ answer }) => answer !== REFUSED).map(({ key }) => key))
  return answers
    .filter(({ answer, key }) => answer === REFUSED && !letIn.has(key) && known.has(key))
    .map(({ key }) => key)
}

export const REFUSED = 'BANK_UNAVAILABLE'
