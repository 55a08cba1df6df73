import { READS } from '../support/documents.ts'
import { explained, planTrouble } from '../support/plans.ts'
import type { Explained } from '../support/plans.ts'
import { median } from '../support/measured.ts'
import { samples, store } from '../support/stored.ts'
import { allWell, withStage } from '../support/stage.ts'
import type { Aim, Section } from './section.ts'

/**
 * Reading one payment, an order and a page of history while ever more is stored. Time depends on the machine and is
 * only reported; the pages that a statement touches do not: they may grow by one for each level that an index gains,
 * each time it is searched.
 */

const CONNECTIONS = 4

export const reads: Section = async ({ ms, stored }, show) =>
  await withStage(async (stage) => {
    const gateway = await stage.startGateway()
    const rows: (string | number)[][] = []
    const aims: Aim[] = []
    const smallest = new Map<string, Explained>()
    for (const count of stored) {
      show(`reads: storing ${count} payments`)
      await store(stage.sql, count)
      const asked = await samples(stage.sql)
      for (const name of NAMES) {
        show(`reads: ${name} of ${count}`)
        const work = { do: 'read', document: READS[name], variables: asked[name] } as const
        await stage.load({
          gateways: [gateway],
          connections: CONNECTIONS,
          work,
          name: 'r',
          until: { ms: ms / 4 },
        })
        const done = allWell(
          await stage.load({
            gateways: [gateway],
            connections: CONNECTIONS,
            work,
            name: 'r',
            until: { ms },
          }),
        )
        const plans = await explained(stage.sql, name, asked[name])
        const first = smallest.get(name) ?? plans
        smallest.set(name, first)
        const allowed = first.buffers + plans.searches * (plans.levels - first.levels)
        rows.push([
          name,
          count,
          ((done.count / done.ms) * 1_000).toFixed(0),
          `${done.p50Ms.toFixed(1)} ms`,
          `${done.p99Ms.toFixed(1)} ms`,
          plans.buffers,
          allowed,
        ])
        aims.push({
          what: `${name}, ${count} stored: buffers (at most ${allowed})`,
          seen: plans.buffers,
          atMost: allowed,
          isAsserted: true,
        })
        const trouble = plans.roots.flatMap(planTrouble)
        aims.push({
          what: `${name}, ${count} stored: sorts of more than a page, scans of a table ${trouble.join(', ')}`,
          seen: trouble.length,
          atMost: 0,
          isAsserted: true,
        })
      }
    }
    return {
      title: `Reads: through the gateway, ${CONNECTIONS} connections; each with its transitions`,
      rows: [['', 'stored', 'a second', 'p50', 'p99', 'buffers', 'allowed'], ...rows],
      notes: [
        `Buffers: of all statements of one such query, the median of ${median([...smallest.values()].map(({ samples }) => samples))}.`,
      ],
      aims,
    }
  })

const NAMES = ['payment', 'paymentsByOrder', 'customerHistory'] as const
