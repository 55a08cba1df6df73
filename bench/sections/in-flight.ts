import { allWell, withStage } from '../support/stage.ts'
import type { Section } from './section.ts'

/**
 * Thousands of payments open at once while the bank takes its second, on twelve database connections: the bank's delay
 * may cost nothing but time.
 */

const BANK_MS = 1_000
const DATABASE_CONNECTIONS = 12

export const inFlight: Section = async ({ ms, connections, inFlight }, show) =>
  await withStage(async (stage) => {
    const gateway = await stage.startGateway({
      DATABASE_CONNECTIONS_MAX: String(DATABASE_CONNECTIONS),
      BANK_IN_FLIGHT_MAX: String(2 * inFlight),
      REQUEST_DEADLINE_MS: '120000',
    })
    const gateways = [gateway]
    const work = { do: 'authorize' } as const
    show('in flight: warming up')
    await stage.load({ gateways, connections, work, name: 'warm', until: { ms } })
    show('in flight: a bank that answers at once')
    const quick = allWell(await stage.load({ gateways, connections, work, name: 'quick', until: { ms } }))
    const idleMb = gateway.residentMb()

    stage.bank.answerAfter(BANK_MS)
    await stage.bank.count()
    show(`in flight: ${inFlight} at once, a bank that takes ${BANK_MS} ms`)
    let mostMb = 0
    const watch = setInterval(() => (mostMb = Math.max(mostMb, gateway.residentMb())), 100)
    // Six times through all of them, however slow the machine: the last second carries less.
    const until = { count: 6 * inFlight }
    const slow = allWell(
      await stage
        .load({ gateways, connections: inFlight, work, name: 'slow', until })
        .finally(() => clearInterval(watch)),
    )
    const { atOnceMax } = await stage.bank.count()
    const perSecond = ({ count, ms }: { count: number; ms: number }) => (count / ms) * 1_000
    // In the bank's first second nobody can be answered: it is time, and no less throughput.
    const slowPerSecond = perSecond({ ...slow, ms: slow.ms - BANK_MS })
    const half = slowPerSecond / 2
    show(`in flight: at ${half.toFixed(0)}/s, half of that`)
    const steady = allWell(
      await stage.load({
        gateways,
        connections: inFlight,
        work,
        name: 'steady',
        // Long: one pause to collect what the 5,000 have left weighs little.
        until: { ms: Math.max(3 * ms, 2 * BANK_MS) },
        perSecond: half,
      }),
    )
    return {
      title: `In flight: ${inFlight} payments open at once in a bank that takes ${BANK_MS / 1_000} s, ${DATABASE_CONNECTIONS} database connections`,
      rows: [
        ['', 'payments/s', 'p50', 'p99'],
        ...(
          [
            [`a bank that answers at once, ${connections} connections`, perSecond(quick), quick],
            [`a bank that takes ${BANK_MS} ms, ${inFlight} connections`, slowPerSecond, slow],
            ['the same at a steady half of that', perSecond(steady), steady],
          ] as const
        ).map(([name, rate, done]) => [
          name,
          rate.toFixed(0),
          `${done.p50Ms.toFixed(0)} ms`,
          `${done.p99Ms.toFixed(0)} ms`,
        ]),
      ],
      notes: [
        `At the bank at once: ${atOnceMax} at most.`,
        `Memory per payment in flight: ${(((mostMb - idleMb) / inFlight) * 1_024).toFixed(0)} kB (${idleMb.toFixed(0)} MB before, ${mostMb.toFixed(0)} MB at most).`,
      ],
      aims: [
        {
          what: 'throughput / that with a bank that answers at once',
          seen: slowPerSecond / perSecond(quick),
          atLeast: 0.9,
        },
        { what: "ms added to the bank's second at half load, p99", seen: steady.p99Ms - BANK_MS, atMost: 50 },
      ],
    }
  })
