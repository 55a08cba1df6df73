import { expect, it } from 'vitest'
import { told } from '../../proof/soak/report.ts'
import { soak } from '../../proof/soak/run.ts'
import { readSeed } from '../../proof/support/program.ts'

/** The short form of `npm run soak`: the same program, at a tenth of all durations. */

it(
  '100 payments come through everything that can fail, and both ledgers agree',
  { timeout: 400_000 },
  async () => {
    const seed = readSeed(undefined)
    const report = await soak({ payments: 100, scale: 0.1, seed, show: () => {} })
    const broken = report.checked.filter(({ rows }) => rows.length > 0).map(({ id, says }) => `${id} ${says}`)
    expect(broken, `--payments 100 --scale 0.1 --seed ${seed}\n${told(report)}`).toEqual([])
    // It was no walk in the park.
    for (const fault of [
      '500 before any work',
      'gateway killed',
      "bank's database cut off",
      'our Postgres restarted',
    ]) {
      expect([fault, report.faults.get(fault)]).toEqual([
        fault,
        expect.toSatisfy((times: number) => times > 0),
      ])
    }
    expect(report.outcomes.map(({ state }) => state)).toEqual(
      expect.arrayContaining(['AUTHORIZED', 'CAPTURED', 'REFUNDED', 'VOIDED']),
    )
  },
)
