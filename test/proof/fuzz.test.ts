import { expect, it } from 'vitest'
import { fuzz } from '../../proof/fuzz/run.ts'
import { readSeed } from '../../proof/support/program.ts'
import { testDatabase } from '../support/database.ts'

/** The short form of `npm run fuzz`. FUZZ_SEED repeats the choices of an earlier run; FUZZ_SECONDS makes it longer. */

const SECONDS = Number(process.env['FUZZ_SECONDS'] ?? 4)
const SEED = readSeed(process.env['FUZZ_SEED'])

it(
  'whoever races whom over a payment, each change of a row is one that may be',
  { timeout: SECONDS * 1_000 + 60_000 },
  async () => {
    const { url } = await testDatabase()
    const { wrongs, answers } = await fuzz(url, { seconds: SECONDS, seed: SEED })
    expect(wrongs, `FUZZ_SEED=${SEED}`).toEqual([])
    // It was a race.
    const raced = [
      'claim CLAIMED',
      'claim BUSY',
      'claim_again CLAIMED',
      'claim_again TAKEN',
      'settle SETTLED',
    ]
    for (const answer of raced) expect([answer, answers[answer]]).toEqual([answer, expect.any(Number)])
  },
)
