import type { OperationKind, PaymentState } from '../../src/payment/payment.ts'
import { pick, seeded } from '../support/random.ts'

/**
 * The cells of the matrix: where on the wires the gateway dies, in which operation, whether the client repeats its
 * request, and who takes over; and, for each, what must have come of it. An outcome follows from three facts alone: was
 * the claim committed, did the bank do its work, did it store the key.
 */

export const POINTS = [
  'claim sent',
  'claim committed, its answer withheld',
  'at the bank, before the work',
  'bank committed, key unstored',
  'key stored, answer withheld',
  'settle sent',
  'settle committed, its answer withheld',
  "client's answer unsent",
] as const
export type Point = (typeof POINTS)[number]

export const OPERATIONS = ['authorize', 'capture', 'void', 'refund'] as const
export type OperationName = (typeof OPERATIONS)[number]

/**
 * What becomes of a statement that was on its way to Postgres when its process died: it is lost with the process, the
 * server gets it at once, or it gets it when everybody else has done with the operation.
 */
export type Fate = 'lost' | 'delivered' | 'delivered last'

export type Cell = {
  name: string
  point: Point
  operation: OperationName
  repeats: boolean
  /** One: it is started again. Two: the other takes over. */
  processes: 1 | 2
  fate: Fate
  /** No other payment of the run has it, so that each row of the bank's ledger belongs to one cell. */
  amountCents: number
  round: number
}

export type Expected = {
  /** Null: no payment at all. */
  path: PaymentState[] | null
  isMarked: boolean
  /** Rows of the bank's ledger. */
  ledger: Record<LedgerType, number>
  /** The receipt has the id of the operation's own row; where the key is unstored nobody can know it. */
  knowsId: boolean
  /** Requests with a body to authorize: a second one, ever, may be a second hold. */
  authorizes: number
  /** The key's final answer. */
  answer: 'success' | 'BANK_UNAVAILABLE' | 'none'
}
export type LedgerType = 'AUTHORIZATION' | 'CAPTURE' | 'VOID' | 'REFUND'

/** Each path up to the operation, and past it. */
export const KINDS: Record<
  OperationName,
  { kind: OperationKind; before: PaymentState[]; to: PaymentState; rows: LedgerType[]; row: LedgerType }
> = {
  authorize: { kind: 'AUTHORIZE', before: ['PENDING'], to: 'AUTHORIZED', rows: [], row: 'AUTHORIZATION' },
  capture: {
    kind: 'CAPTURE',
    before: ['PENDING', 'AUTHORIZED'],
    to: 'CAPTURED',
    rows: ['AUTHORIZATION'],
    row: 'CAPTURE',
  },
  void: {
    kind: 'VOID',
    before: ['PENDING', 'AUTHORIZED'],
    to: 'VOIDED',
    rows: ['AUTHORIZATION'],
    row: 'VOID',
  },
  refund: {
    kind: 'REFUND',
    before: ['PENDING', 'AUTHORIZED', 'CAPTURED'],
    to: 'REFUNDED',
    rows: ['AUTHORIZATION', 'CAPTURE'],
    row: 'REFUND',
  },
}

const FIRST_AMOUNT_CENTS = 1_001

/** The 128 cells of one round. Everything random in a cell comes from its own seed, so it can be run alone. */
export function cellsOf(seed: number, round: number): Cell[] {
  const cells: Cell[] = []
  for (const processes of [1, 2] as const) {
    for (const repeats of [false, true]) {
      for (const operation of OPERATIONS) {
        for (const point of POINTS) {
          const index = round * 128 + cells.length
          cells.push({
            name: `${operation}, ${point}, ${processes} process${processes === 2 ? 'es' : ''}, ${repeats ? 'repeated' : 'not repeated'}${round > 0 ? `, round ${round + 1}` : ''}`,
            point,
            operation,
            repeats,
            processes,
            // A claim that comes when all is over, and nobody has repeated it, is one that comes at once.
            fate: pick(seeded(seed + index), ['lost', 'delivered', repeats ? 'delivered last' : 'delivered']),
            amountCents: FIRST_AMOUNT_CENTS + index,
            round,
          })
        }
      }
    }
  }
  return cells
}

/** The process died with its claim committed, now or a moment later. One that comes last finds its key taken. */
export function isClaimed({ point, fate }: Cell): boolean {
  return point !== 'claim sent' || fate === 'delivered'
}

export function expectedOf(cell: Cell): Expected {
  const { operation, point, repeats } = cell
  const { before, to, rows, row } = KINDS[operation]
  const ledger = { AUTHORIZATION: 0, CAPTURE: 0, VOID: 0, REFUND: 0 }
  for (const done of rows) ledger[done] += 1
  const done: Expected = {
    path: [...before, to],
    isMarked: false,
    ledger: { ...ledger, [row]: 1 },
    knowsId: true,
    authorizes: 1,
    answer: 'success',
  }

  if (!isClaimed(cell) && !repeats) {
    const isNew = operation === 'authorize'
    const authorizes = isNew ? 0 : 1
    return {
      path: isNew ? null : before,
      isMarked: false,
      ledger,
      knowsId: false,
      authorizes,
      answer: 'none',
    }
  }
  const isUnstored = point === 'bank committed, key unstored'
  if (operation !== 'authorize') return { ...done, knowsId: !isUnstored }
  const isUnknown = isUnstored || (!isStored(point) && isClaimed(cell))
  if (!isUnknown) return done
  return {
    path: ['PENDING', 'FAILED'],
    isMarked: true,
    ledger: { ...ledger, AUTHORIZATION: isUnstored ? 1 : 0 },
    knowsId: false,
    authorizes: point === 'claim sent' || point === 'claim committed, its answer withheld' ? 0 : 1,
    answer: 'BANK_UNAVAILABLE',
  }
}

function isStored(point: Point): boolean {
  return POINTS.indexOf(point) >= POINTS.indexOf('key stored, answer withheld')
}
