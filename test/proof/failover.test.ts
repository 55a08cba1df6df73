import { expect, it } from 'vitest'
import { evidenceText, told, troubleOf } from '../../proof/failover/report.ts'
import { play } from '../../proof/failover/run.ts'
import { scenesOfPair } from '../../proof/failover/scenes.ts'
import { readSeed } from '../../proof/support/program.ts'

/** The short form of `npm run failover`: two of its scenes, few payments, servers that do not wait for the disk. */

it.concurrent.each(scenesOfPair({ durable: false }).filter(({ name }) => name.startsWith('standby')))(
  'the server of the receipts dies: $name',
  { timeout: 300_000 },
  async (scene) => {
    const seed = readSeed(undefined)
    const outcome = await play(scene, { seed, answersEach: 20, show: () => {} })
    expect(troubleOf(outcome), `--seed ${seed}\n${evidenceText(outcome)}${told([outcome])}`).toEqual([])
    expect(outcome.answered).toBeGreaterThanOrEqual(20)
  },
)
