import { expect, it } from 'vitest'
import { load } from '../../proof/overload/load.ts'
import { told, violations } from '../../proof/overload/report.ts'
import { overload, REFUSED } from '../../proof/overload/run.ts'
import { readSeed } from '../../proof/support/program.ts'

/**
 * The short form of `npm run overload`: the same gateway, load and rules, for a few seconds. How fast it was is not
 * judged here, where other tests run at the same time.
 */

it(
  'at ten times what the bank can take every request is answered, and what is refused leaves no trace',
  { timeout: 120_000 },
  async () => {
    const seed = readSeed(undefined)
    const phases = await overload({
      places: 8,
      latencyMs: 400,
      secondsEach: 3,
      times: [1, 10],
      seed,
      load,
      watch: null,
      show: () => {},
    })
    expect(phases.flatMap(violations), `seed ${seed}\n${told(phases)}`).toEqual([])
    // It was an overload, and repeats of what had been carried out were answered all the same.
    const answers = phases.at(-1)?.answers ?? []
    const count = (is: string) => answers.filter(({ answer }) => answer === is).length
    expect(count(REFUSED)).toBeGreaterThan(100)
    expect(count('SUCCESS')).toBeGreaterThan(20)
    expect(answers.some(({ replayed }) => replayed)).toBe(true)
  },
)
