import { expect, it } from 'vitest'
import { evidenceText, told, troubleOf } from '../../proof/failover/report.ts'
import { play } from '../../proof/failover/run.ts'
import { scenesOfPair } from '../../proof/failover/scenes.ts'
import { readSeed } from '../../proof/support/program.ts'

/** The short form of `npm run failover`: one of its scenes, few payments, servers that do not wait for the disk. */

it(
  'the primary dies, and its standby lacks the last seconds: the repeats bring them back, with nothing done twice',
  { timeout: 300_000 },
  async () => {
    const [scene] = scenesOfPair({ durable: false }).filter(({ loses }) => loses)
    if (scene === undefined) throw new Error('there is no such scene')
    const seed = readSeed(undefined)
    const outcome = await play(scene, { seed, answersEach: 20, show: () => {} })
    expect(troubleOf(outcome), `--seed ${seed}\n${evidenceText(outcome)}${told([outcome])}`).toEqual([])
  },
)
