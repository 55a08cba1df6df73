/**
 * How the bank is told to fail, by tests (as functions) and people (over HTTP, see /docs): every way that the bank
 * contract lists. A fault takes the next requests that it fits, `times` of them, first come first served. One that takes
 * a replay or a decline may have nothing left to do there.
 */

/** Before anything is looked up, on every path. */
const ON_ARRIVAL = {
  'drop-before': 'the connection is cut before the work',
  'hang-before': 'no answer and no work',
  'bad-gateway': '502 with HTML, no work',
  redirect: '301, as for a doubled slash',
  'redirect-307': '307, as a bank built by Go 1.26 answers a doubled slash',
} as const
const ON_HEALTH = { unhealthy: '503 from /health' } as const
/** Probes, too. */
const ON_CALLS = {
  chaos: '500 internal_error, no work',
  'lookup-fault': 'a stored answer is not found; with a body it is carried out and never stored',
} as const
/** A GET, or a POST with a body. */
const ON_WORK = {
  'database-down': '400 internal_error "failed to start ...", no work; a GET is 404',
  'card-or-parent-not-found':
    'a database fault while finding the card, authorization or capture; a GET is 404',
  late: 'carried out and stored, answered after delayMs',
  // Carried out and stored, but the answer is spoilt; a replay is right again.
  html: '200 with HTML',
  malformed: '200 with half a JSON',
  'no-id': '200 without the id',
  'other-amount': '200 with another amount',
  'other-currency': '200 with another currency',
  'other-parent': '200 with another authorization or capture id',
  'huge-amount': '200 with an amount above 2^53',
  'stalled-body': '200, and the body never ends',
} as const
/** A POST with a body. */
const ON_COMMIT = {
  'rolled-back': '400 internal_error "failed to update ...", rolled back',
  'insert-failed':
    '500 internal_error "internal error" (authorizations: 400 "failed to create ..."), rolled back',
  'commit-failed': '400 internal_error "failed to commit ...", not carried out',
  'commit-failed-but-done': '400 internal_error "failed to commit ...", carried out, key not stored',
  'drop-after-commit': 'carried out, key not stored, the connection is cut',
  'drop-after-store': 'carried out, key stored, the connection is cut',
  'hang-after-commit': 'carried out, key not stored, no answer',
  'hang-after-store': 'carried out, key stored, no answer',
} as const

export const FAULTS = { ...ON_ARRIVAL, ...ON_CALLS, ...ON_WORK, ...ON_COMMIT, ...ON_HEALTH } as const
export type FaultKind = keyof typeof FAULTS
export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[]

function happensOn(what: FaultKind, { endpoint, method, probe }: Required<Match>): boolean {
  if (what in ON_ARRIVAL) return true
  if (endpoint === 'health' || what in ON_HEALTH) return endpoint === 'health' && what in ON_HEALTH
  if (what in ON_CALLS) return what === 'chaos' || method === 'POST'
  return !probe && (method === 'POST' || what in ON_WORK)
}

export type Match = {
  /** authorizations, captures, voids, refunds or health; any when left out. */
  endpoint?: string
  method?: 'GET' | 'POST'
  key?: string
  /** true: only a POST without a body; false: all but that. */
  probe?: boolean
}
export type Fault = Match & {
  what: FaultKind
  /** How many requests it takes; null: all that come. */
  times: number | null
  /** Below 1, only some of the requests that fit. */
  probability: number
  delayMs: number
}

/** What a request waits at until a test lets it go on. */
export type Gate = {
  /** Resolves when the first request has come to the gate. */
  arrived: Promise<void>
  /** Lets go all that wait, and all that come. */
  open(): void
}
type HeldAt = 'before' | 'after-commit' | 'after-store'

export class Faults {
  #faults: Fault[] = []
  #gates: { match: Match; at: HeldAt; arrive: () => void; opened: Promise<void> }[] = []
  readonly #random: () => number

  constructor(random: () => number) {
    this.#random = random
  }

  add(what: FaultKind, fault: Partial<Omit<Fault, 'what'>> = {}): void {
    this.#faults.push({ times: 1, probability: 1, delayMs: 0, ...fault, what })
  }

  list(): readonly Fault[] {
    return this.#faults
  }

  clear(): void {
    this.#faults = []
  }

  /** The first fault that takes this request. */
  take(request: Required<Match>): Fault | null {
    for (const fault of this.#faults) {
      if (!happensOn(fault.what, request) || !fits(fault, request)) continue
      if (this.#random() >= fault.probability) continue
      if (fault.times !== null) fault.times -= 1
      this.#faults = this.#faults.filter((one) => one.times !== 0)
      return fault
    }
    return null
  }

  /** Holds the requests that fit: before the work, after its commit, or after the key was stored. */
  hold(at: HeldAt, match: Match = {}): Gate {
    const arrived = withResolvers()
    const opened = withResolvers()
    const gate = { match, at, arrive: arrived.resolve, opened: opened.promise }
    this.#gates.push(gate)
    return {
      arrived: arrived.promise,
      open: () => {
        this.#gates = this.#gates.filter((one) => one !== gate)
        opened.resolve()
      },
    }
  }

  async passGates(at: HeldAt, request: Required<Match>): Promise<void> {
    const gates = this.#gates.filter((gate) => gate.at === at && fits(gate.match, request))
    for (const gate of gates) gate.arrive()
    await Promise.all(gates.map((gate) => gate.opened))
  }
}

/** Promise.withResolvers needs Node 22. */
function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {}
  const promise = new Promise<void>((done) => (resolve = done))
  return { promise, resolve }
}

function fits(match: Match, request: Required<Match>): boolean {
  return (
    (match.endpoint === undefined || match.endpoint === request.endpoint) &&
    (match.method === undefined || match.method === request.method) &&
    (match.key === undefined || match.key === request.key) &&
    (match.probe === undefined || match.probe === request.probe)
  )
}
