import { pick, seeded } from '../support/random.ts'

/** What will be asked in a run, all of it from the seed: a random life for each payment, and who else asks for it. */

export type FollowUp = 'capture' | 'void' | 'refund'
export type Life = {
  number: number
  /** Pays once more for the order of the life before it. */
  isAnother: boolean
  /** Of each try to authorize: no other payment has it, so that a row of the bank's ledger names its payment. */
  amountsCents: number[]
  /** After the authorize, one after the other; what stands together is asked for at once, under a key each. */
  steps: FollowUp[][]
  /** Beside the first client, each at an operation of the life (counted from 0; the last when there are fewer). */
  others: { who: 'duplicate' | 'conflict' | 'late'; at: number }[]
  /** Asks again until there is an answer. One that is not leaves the rest to recovery, and all others come afterwards. */
  isPatient: boolean
  random: () => number
}

const LIVES: readonly [FollowUp[][], ...FollowUp[][][]] = [
  [],
  [['void']],
  [['capture']],
  [['capture']],
  [['capture'], ['refund']],
  [['capture'], ['refund']],
  [['capture', 'void']],
  [['capture'], ['refund', 'refund']],
]

const AMOUNT_CENTS_MIN = 1_000
const AUTHORIZE_TRIES = 2
const PATIENT_SHARE = 0.75
const ANOTHER_SHARE = 0.1

export const orderOf = ({ number, isAnother }: Life) => `order ${isAnother ? number - 1 : number}`

export function planLives(payments: number, seed: number): Life[] {
  return Array.from({ length: payments }, (_, number) => {
    // Each life has numbers of its own: how others go on does not change it.
    const random = seeded(seed + number)
    const steps = pick(random, LIVES)
    const isPatient = random() < PATIENT_SHARE
    const at = () => (isPatient ? Math.floor(random() * (steps.length + 1)) : Infinity)
    return {
      number,
      isAnother: number > 0 && random() < ANOTHER_SHARE,
      amountsCents: Array.from(
        { length: AUTHORIZE_TRIES },
        (_try, index) => AMOUNT_CENTS_MIN + index * payments + number,
      ),
      steps,
      others: (['duplicate', 'duplicate', 'conflict', 'late'] as const).map((who) => ({ who, at: at() })),
      isPatient,
      random,
    }
  })
}

/** Above every amount that is asked for in earnest, so that a conflicting one would show in the bank's ledger. */
export const CONFLICT_CENTS = 1_000_000
