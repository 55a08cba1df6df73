import type { OperationKind, PaymentState } from '../../src/payment/payment.ts'
import { pick, seeded } from '../support/random.ts'

/**
 * The cells of the matrix: who dies and where on the wires, in which scene of which operation, whether the client repeats
 * its request, and who takes over; and, for each, what must have come of it. An outcome follows from three facts alone:
 * was the claim committed, did the bank do its work, did it store the key.
 */

export const POINTS = [
  'claim sent',
  'claim committed, its answer withheld',
  'probe at the bank',
  'at the bank, before the work',
  'bank committed, key unstored',
  'key stored, answer withheld',
  'settle sent',
  'settle committed, its answer withheld',
  "client's answer unsent",
  'webhook received, its answer withheld',
] as const
export type Point = (typeof POINTS)[number]

const CLAIM = ['claim sent', 'claim committed, its answer withheld'] as const
const WORK = [
  'at the bank, before the work',
  'bank committed, key unstored',
  'key stored, answer withheld',
] as const
const SETTLE = ['settle sent', 'settle committed, its answer withheld'] as const

/**
 * What the gateway is doing. `first send`: what a client asked for. `probe`: asking after a send whose answer was lost.
 * `re-send`: after one that was not carried out. `late look`: a hold turns up after its authorize has failed; `release`:
 * it is voided. The last four: an operator settles a capture in review, and FicMart is told by webhook.
 */
export const SCENES = {
  'first send': [...CLAIM, ...WORK, ...SETTLE, "client's answer unsent"],
  probe: [...CLAIM, 'probe at the bank', ...SETTLE],
  're-send': [...CLAIM, ...WORK, ...SETTLE],
  'late look': [...CLAIM, 'probe at the bank', ...SETTLE],
  release: [...CLAIM, ...WORK, ...SETTLE],
  expire: [...CLAIM, ...WORK, ...SETTLE],
  rerunRecovery: [...CLAIM, 'probe at the bank', ...SETTLE],
  enterBankReference: SETTLE,
  closeReview: SETTLE,
  webhook: ['webhook received, its answer withheld', ...SETTLE],
} as const satisfies Record<string, readonly Point[]>
export type Scene = keyof typeof SCENES

export const OPERATIONS = ['authorize', 'capture', 'void', 'refund'] as const
export type OperationName = (typeof OPERATIONS)[number]

/**
 * What becomes of a statement that was on its way to Postgres when its process died: it is lost with the process, the
 * server gets it at once, or it gets it when everybody else has done with the operation.
 */
export type Fate = 'lost' | 'delivered' | 'delivered last'

export type Cell = {
  name: string
  scene: Scene
  point: Point
  /** SIGKILL for a gateway, or for the Postgres of the receipts. */
  dies: 'gateway' | 'Postgres'
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
  /** The row of the bank's whose id the receipt lacks, since the key is unstored and nobody can know it. */
  lacksId: LedgerType | null
  isInReview: boolean
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

/** The cells of one round. Everything random in a cell comes from its own seed, so it can be run alone. */
export function cellsOf(seed: number, round: number): Cell[] {
  const cells = [...firstSends(seed, round), ...later(seed, round), ...deathsOfPostgres(round)]
  // No other cell of a run has its amount.
  const distinct = (cell: Cell, index: number) => ({
    ...cell,
    amountCents: FIRST_AMOUNT_CENTS + round * cells.length + index,
    name: `${cell.name}${round > 0 ? `, round ${round + 1}` : ''}`,
  })
  return cells.map(distinct)
}

/** All of them, whoever repeats and takes over. */
function firstSends(seed: number, round: number): Cell[] {
  const cells: Cell[] = []
  for (const processes of [1, 2] as const) {
    for (const repeats of [false, true]) {
      for (const operation of OPERATIONS) {
        for (const point of SCENES['first send']) {
          const index = round * 1_000 + cells.length
          cells.push({
            name: `${operation}, ${point}, ${processes} process${processes === 2 ? 'es' : ''}, ${repeats ? 'repeated' : 'not repeated'}`,
            scene: 'first send',
            point,
            dies: 'gateway',
            operation,
            repeats,
            processes,
            // A claim that comes when all is over, and nobody has repeated it, is one that comes at once.
            fate: pick(seeded(seed + index), ['lost', 'delivered', repeats ? 'delivered last' : 'delivered']),
            amountCents: 0,
            round,
          })
        }
      }
    }
  }
  return cells
}

/** Which of the four operations a scene is played with. */
const PLAYED: Record<Exclude<Scene, 'first send'>, readonly OperationName[]> = {
  probe: OPERATIONS,
  're-send': OPERATIONS,
  'late look': ['authorize'],
  release: ['authorize'],
  expire: ['authorize'],
  rerunRecovery: ['capture'],
  enterBankReference: ['capture'],
  closeReview: ['capture'],
  webhook: ['authorize'],
}

/** Who repeats and takes over is chance, by scene. */
function later(seed: number, round: number): Cell[] {
  return Object.entries(PLAYED).flatMap(([name, operations], at) => {
    const scene = name as keyof typeof PLAYED
    const random = seeded(seed + 500 + round * 1_000 + at)
    const [processes, mayRepeat] = [pick(random, [1, 2] as const), pick(random, [true, false])]
    const repeats = OF_OPERATORS.has(scene) || (mayRepeat && (scene === 'probe' || scene === 're-send'))
    return operations.flatMap((operation) =>
      SCENES[scene].map((point): Cell => ({
        name: `${scene} of ${operation}, ${point}`,
        scene,
        point,
        dies: 'gateway',
        operation,
        repeats,
        processes,
        fate: pick(random, ['lost', 'delivered', 'delivered last']),
        amountCents: 0,
        round,
      })),
    )
  })
}

/** The gateway lives, its client repeats, and the server is started again. What was on its way to it is lost. */
function deathsOfPostgres(round: number): Cell[] {
  return OPERATIONS.flatMap((operation) =>
    [...CLAIM, ...WORK, ...SETTLE].map((point): Cell => ({
      name: `Postgres dies: ${operation}, ${point}`,
      scene: 'first send',
      point,
      dies: 'Postgres',
      operation,
      repeats: true,
      processes: 1,
      fate: 'lost',
      amountCents: 0,
      round,
    })),
  )
}

/** Who was not answered asks again. */
export const OF_OPERATORS: ReadonlySet<Scene> = new Set([
  'rerunRecovery',
  'enterBankReference',
  'closeReview',
])

/** The process died with its claim committed, now or a moment later. One that comes last finds its key taken. */
export function isClaimed({ scene, point, fate }: Cell): boolean {
  return scene !== 'first send' || point !== 'claim sent' || fate === 'delivered'
}

export function expectedOf(cell: Cell): Expected {
  const { operation, point, repeats } = cell
  const { before: path, to, rows, row } = KINDS[operation]
  const ledger = { AUTHORIZATION: 0, CAPTURE: 0, VOID: 0, REFUND: 0 }
  for (const done of rows) ledger[done] += 1
  const done: Expected = {
    path: [...path, to],
    isMarked: false,
    ledger: { ...ledger, [row]: 1 },
    lacksId: null,
    isInReview: false,
    authorizes: 1,
    answer: 'success',
  }
  // The bank and its client are well: nothing is lost but time.
  if (cell.dies === 'Postgres') return done
  const isUnstored = point === 'bank committed, key unstored'
  switch (cell.scene) {
    case 'first send':
    case 're-send':
      break
    case 'probe':
    case 'webhook':
    case 'enterBankReference':
    case 'closeReview':
      return done
    // The bank has told another amount before: an operator shall look at that.
    case 'rerunRecovery':
      return { ...done, isInReview: true }
    case 'late look':
    case 'release':
    case 'expire': {
      const isExpired = cell.scene === 'expire'
      return {
        ...done,
        path: isExpired ? ['PENDING', 'AUTHORIZED', 'EXPIRED'] : ['PENDING', 'FAILED', 'VOIDED'],
        ledger: { ...ledger, AUTHORIZATION: 1, VOID: 1 },
        lacksId: isUnstored ? 'VOID' : null,
        answer: isExpired ? 'success' : 'BANK_UNAVAILABLE',
      }
    }
  }

  if (!isClaimed(cell) && !repeats) {
    const isNew = operation === 'authorize'
    const authorizes = isNew ? 0 : 1
    return {
      path: isNew ? null : path,
      isMarked: false,
      ledger,
      lacksId: null,
      isInReview: false,
      authorizes,
      answer: 'none',
    }
  }
  if (operation !== 'authorize') return { ...done, lacksId: isUnstored ? row : null }
  const isUnknown = isUnstored || (!isStored(point) && isClaimed(cell))
  // The bank has refused the first.
  const before = cell.scene === 're-send' ? 1 : 0
  if (!isUnknown) return { ...done, authorizes: before + 1 }
  return {
    path: ['PENDING', 'FAILED'],
    isMarked: true,
    ledger: { ...ledger, AUTHORIZATION: isUnstored ? 1 : 0 },
    lacksId: 'AUTHORIZATION',
    isInReview: false,
    authorizes: before + (CLAIM.some((one) => one === point) ? 0 : 1),
    answer: 'BANK_UNAVAILABLE',
  }
}

function isStored(point: Point): boolean {
  return POINTS.indexOf(point) >= POINTS.indexOf('key stored, answer withheld')
}
