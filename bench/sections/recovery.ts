import { setTimeout as pause } from 'node:timers/promises'
import { withStage } from '../support/stage.ts'
import type { Section } from './section.ts'

/**
 * A gateway is killed with thousands of payments at the bank, which has carried them out and has not answered. Their
 * leases are then ended by hand, since only the recovery is timed: from the start of the next gateway until the last
 * one is settled, against what the bank's places alone would allow.
 */

const BANK_MS = 600_000
/** The bank's least latency, here for the health check and for the probe that follows it. */
const LOOK_MS = 100
const POLL_MS = 100
const GIVE_UP_MS = 600_000
/** Of the default BANK_IN_FLIGHT_MAX, for recovery; see config.ts. */
const PLACES = 128

export const recovery: Section = async ({ unresolved }, show) =>
  await withStage(async (stage) => {
    const { sql, bank } = stage
    const patient = {
      BANK_IN_FLIGHT_MAX: String(2 * unresolved),
      BANK_ATTEMPT_TIMEOUT_MS: '300000',
      REQUEST_DEADLINE_MS: '300000',
    }
    // Two: with all clients and all exchanges one would need more file descriptors than machines allow a process.
    const killed = [await stage.startGateway(patient), await stage.startGateway(patient)]
    bank.answerAfter(BANK_MS)
    show(`recovery: ${unresolved} payments on their way to the bank`)
    const load = stage.load({
      gateways: killed,
      connections: unresolved,
      work: { do: 'authorize' },
      name: 'r',
      until: { count: unresolved },
    })
    for (const since = performance.now(); ; await pause(POLL_MS)) {
      const { carriedOut } = await bank.count()
      show(`recovery: ${carriedOut} of ${unresolved} payments at the bank`)
      if (carriedOut === unresolved) break
      if (performance.now() - since > GIVE_UP_MS) throw new Error('the payments do not reach the bank')
    }
    await Promise.all(killed.map(async (gateway) => await gateway.end('SIGKILL')))
    await load
    const left = async () => {
      const [row] = await sql<{ count: number }[]>`
        select count(*)::int as count from operations where status = 'UNRESOLVED'`
      return row?.count ?? 0
    }
    const found = await left()
    await sql`update operations set leased_until = clock_timestamp() where status = 'UNRESOLVED'`

    bank.answerAfter(LOOK_MS, LOOK_MS)
    const startedMs = performance.now()
    const next = await stage.startGateway()
    const readyMs = performance.now() - startedMs
    for (let now = found; now > 0; now = await left()) {
      show(`recovery: ${now} of ${found} unresolved`)
      if (performance.now() - startedMs > GIVE_UP_MS) throw new Error(`${now} are never settled`)
      await pause(POLL_MS)
    }
    const tookMs = performance.now() - startedMs
    const [wrong] = await sql<{ count: number }[]>`
      select count(*)::int as count from payments where state <> 'AUTHORIZED'`
    const cpu = next.cpuMs()
    const recoveryMs = tookMs - readyMs
    const boundMs = (found * 2 * LOOK_MS) / PLACES
    return {
      title: `Recovery: ${found} unresolved after kill -9, a bank that takes ${LOOK_MS} ms to be looked at`,
      rows: [
        ['', ''],
        ['start of the next gateway', `${readyMs.toFixed(0)} ms`],
        ['from then until the last is settled', `${recoveryMs.toFixed(0)} ms`],
        [`the bank alone: two looks each, in ${PLACES} places`, `${boundMs.toFixed(0)} ms`],
        ['times that', (recoveryMs / boundMs).toFixed(2)],
        ['CPU of the gateway each', `${(cpu / found).toFixed(2)} ms`],
      ],
      notes: [],
      aims: [
        { what: 'unresolved when it was killed', seen: found, atLeast: unresolved, isAsserted: true },
        {
          what: 'not authorized in the end',
          seen: wrong?.count ?? -1,
          atLeast: 0,
          atMost: 0,
          isAsserted: true,
        },
      ],
    }
  })
