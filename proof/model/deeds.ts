import fc from 'fast-check'
import { BANK_FAULTS, CARDS, HOUR_MS, OUTAGES } from './bank.ts'
import type { BankFault, Outage } from './bank.ts'
import { DATABASE_FAULTS } from './process.ts'
import type { DatabaseFault } from './process.ts'

/** What happens in a run, as data that reads as a story and shrinks to the shortest one. */
export type Story = {
  scene: 'empty' | 'authorized' | 'captured'
  deeds: Deed[]
  /** For latencies, backoff and what the bank notices. */
  chance: number
}

export type Deed =
  | Asking
  | Joint
  | { do: 'wait'; ms: number }
  /** `isDue`: when there is something to do for it. */
  | ({ do: 'sweep'; isDue: boolean } & Failing)
  /** SIGKILL; SIGTERM, and the process is there until its work is done. */
  | { do: 'kill' | 'drain'; by: Which }
  /** Every request meets this, so long. */
  | { do: 'outage'; fault: Outage['fault']; ms: number }
  /** The machine's clock is set wrong by so much; the database's is right. */
  | { do: 'step'; by: Which; ms: number }
  /**
   * An operator with the bank's statement settles the first thing that waits for one, lets recovery try again, or errs
   * and enters what the statement has of another payment.
   */
  | ({ do: 'settle' | 'rerun' | 'err' } & Failing)

/** Two at once, in one process or in two. */
type Joint = { do: 'together'; one: Asking; other: Asking }

export type Asking = { do: 'ask'; ask: Wish } & Failing

/** Meanwhile the bank, the database and the process fail so. */
export type Failing = {
  by: Which
  bank: BankFault[]
  database: DatabaseFault[]
  /** At this event on its wires, counted from here, the process dies, or stands still for longer than a lease. */
  trouble: { at: number; is: 'death' | 'pause' } | null
}
type Which = 0 | 1

/** `payment`: 0 is the newest that a client knows of. `key`: a new one, or the one of that many requests before. */
export type Wish =
  | {
      what: 'AUTHORIZE'
      order: number
      cents: 60 | 100
      card: keyof typeof CARDS
      another: boolean
      key: Key
    }
  | { what: 'CAPTURE' | 'VOID' | 'REFUND'; payment: number; isExpected: boolean; key: Key }
  | { what: 'REPEAT'; back: number }
type Key = 'new' | number

const weighted = <T>(...choices: [weight: number, arbitrary: fc.Arbitrary<T>][]) =>
  fc.oneof({ withCrossShrink: true }, ...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })))

const which = fc.constantFrom<Which>(0, 1)
const key = weighted<Key>([10, fc.constant('new')], [1, fc.constantFrom(0, 0, 1, 2)])

const wish: fc.Arbitrary<Wish> = weighted<Wish>(
  [
    4,
    fc.record({
      what: fc.constant('AUTHORIZE'),
      order: fc.nat(2),
      cents: weighted<60 | 100>([5, fc.constant(100)], [1, fc.constant(60)]),
      card: weighted<keyof typeof CARDS>(
        [12, fc.constant('good')],
        [3, fc.constant('poor')],
        [2, fc.constantFrom('unknown', 'wrongCvv', 'expired')],
      ),
      another: weighted([6, fc.constant(false)], [1, fc.constant(true)]),
      key,
    }),
  ],
  [
    8,
    fc.record({
      what: fc.constantFrom('CAPTURE', 'CAPTURE', 'VOID', 'REFUND'),
      payment: weighted([16, fc.constant(0)], [2, fc.constant(1)], [1, fc.constant(2)]),
      isExpected: weighted([12, fc.constant(true)], [1, fc.constant(false)]),
      key,
    }),
  ],
  [3, fc.record({ what: fc.constant('REPEAT'), back: weighted([4, fc.constant(0)], [1, fc.nat(2)]) })],
)

/** Some, or one that does not go away. */
const few = <T>(fault: fc.Arbitrary<T>, [none, some, again]: [none: number, some: number, again: number]) =>
  weighted<T[]>(
    [none, fc.constant([])],
    [some, fc.array(fault, { minLength: 1, maxLength: 4 })],
    [
      again,
      fc
        .tuple(fault, fc.integer({ min: 2, max: 4 }))
        .map(([one, times]) => Array.from({ length: times }, () => one)),
    ],
  )

/** Those whose harm shows only by what comes next come more often. */
const bankFault = fc.constantFrom<BankFault>(
  ...BANK_FAULTS,
  'chaos',
  'redirect',
  'redirect',
  'droppedStored',
  'droppedUnstored',
  'hangsStored',
  'lateStored',
  'commitFailsButDone',
  ...(['lookupFault', 'lookupFault', 'lookupFault'] as const),
)

const failing = {
  by: which,
  bank: few(bankFault, [2, 3, 1]),
  database: few(fc.constantFrom(...DATABASE_FAULTS), [20, 2, 1]),
  trouble: weighted<Failing['trouble']>(
    [6, fc.constant(null)],
    [1, fc.record({ at: weighted([3, fc.nat(5)], [1, fc.nat(16)]), is: fc.constantFrom('death', 'pause') })],
  ),
}

const asking: fc.Arbitrary<Asking> = fc.record({ do: fc.constant('ask'), ask: wish, ...failing })

const WAITS_MS = [2_000, 20_000, 60_000, 60_000, HOUR_MS, 23 * HOUR_MS + 60_000, 25 * HOUR_MS, 169 * HOUR_MS]

const deed: fc.Arbitrary<Deed> = weighted<Deed>(
  [16, asking],
  [5, fc.record({ do: fc.constant('wait'), ms: fc.constantFrom(...WAITS_MS) })],
  [
    6,
    fc.record({
      do: fc.constant('sweep'),
      isDue: weighted([3, fc.constant(true)], [1, fc.constant(false)]),
      ...failing,
    }),
  ],
  [3, fc.record({ do: fc.constant('together'), one: asking, other: asking })],
  [2, fc.record({ do: fc.constantFrom('settle', 'rerun'), ...failing })],
  [1, fc.record({ do: fc.constant('err'), ...failing })],
  [
    1,
    fc.record({ do: fc.constant('step'), by: which, ms: fc.constantFrom(-HOUR_MS, HOUR_MS, 192 * HOUR_MS) }),
  ],
  [1, fc.record({ do: fc.constantFrom('kill', 'drain'), by: which })],
  [
    2,
    fc.record({
      do: fc.constant('outage'),
      fault: fc.constantFrom(...OUTAGES),
      ms: fc.constantFrom(5_000, 60_000, HOUR_MS, 30 * HOUR_MS),
    }),
  ],
)

export const story: fc.Arbitrary<Story> = fc.record({
  scene: weighted<Story['scene']>(
    [2, fc.constant('empty')],
    [3, fc.constant('authorized')],
    [2, fc.constant('captured')],
  ),
  deeds: fc.array(deed, { maxLength: 10 }),
  chance: fc.nat(1_000),
})
