import { median, spread } from '../support/measured.ts'
import { allWell, withStage } from '../support/stage.ts'
import type { Section } from './section.ts'

/** The same requests once more: what a replayed key costs in CPU, of gateway and Postgres, against a fresh one. */

export const duplicates: Section = async ({ rounds, ms, connections }, show) =>
  await withStage(async (stage) => {
    const gateway = await stage.startGateway()
    const costs: { fresh: number; replay: number }[] = []
    for (let round = 0; round <= rounds; round += 1) {
      show(round === 0 ? 'duplicates: warming up' : `duplicates: round ${round} of ${rounds}`)
      const name = `d${round}`
      const fresh = await measure({ name, until: { ms } })
      const replay = await measure({ name, until: { count: fresh.count } })
      if (fresh.replayed !== 0 || replay.replayed !== replay.count)
        throw new Error(`${replay.replayed} of ${replay.count} duplicates were answered as such`)
      if (round > 0) costs.push({ fresh: fresh.cpuMsEach, replay: replay.cpuMsEach })
    }
    const ratios = costs.map(({ fresh, replay }) => replay / fresh)
    return {
      title: `Duplicates: ${connections} connections, ${rounds} rounds`,
      rows: [
        ['', 'CPU ms each'],
        [
          'fresh authorize',
          spread(
            costs.map(({ fresh }) => fresh),
            2,
          ),
        ],
        [
          'replayed key',
          spread(
            costs.map(({ replay }) => replay),
            2,
          ),
        ],
        ['replay / fresh', spread(ratios, 2)],
      ],
      notes: [],
      aims: [{ what: 'CPU of a replay / of a fresh authorize', seen: median(ratios), atMost: 0.5 }],
    }

    async function measure(part: { name: string; until: { count: number } | { ms: number } }) {
      const cpu = () => gateway.cpuMs() + stage.postgresCpuMs()
      const before = cpu()
      const done = allWell(
        await stage.load({ gateways: [gateway], connections, work: { do: 'authorize' }, ...part }),
      )
      return { ...done, cpuMsEach: (cpu() - before) / done.count }
    }
  })
