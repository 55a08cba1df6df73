/**
 * How the bank is told to fail, by tests (as functions) and people (over HTTP, see /docs): every way that the bank
 * contract lists. A fault takes the next requests that it fits, `times` of them.
 */
export const FAULTS = {
  // Before anything is looked up.
  'drop-before': 'the connection is cut before the work',
  'hang-before': 'no answer and no work',
  'bad-gateway': '502 with HTML, no work',
  redirect: '301, as for a doubled slash',
  // At the look-up of stored answers.
  'lookup-fault': 'a stored answer is not found; with a body the request is carried out and never stored',
  // Before the work.
  chaos: '500 internal_error, no work',
  'database-down': '400 internal_error "failed to start ...", no work; a GET is 404',
  'rolled-back': '400 internal_error "failed to update ...", rolled back',
  'card-or-parent-not-found': 'a database fault while finding the card, authorization or capture',
  'commit-failed': '400 internal_error "failed to commit ...", not carried out',
  // After the commit.
  'commit-failed-but-done': '400 internal_error "failed to commit ...", carried out, key not stored',
  'drop-after-commit': 'carried out, key not stored, the connection is cut',
  'drop-after-store': 'carried out, key stored, the connection is cut',
  'hang-after-commit': 'carried out, key not stored, no answer',
  'hang-after-store': 'carried out, key stored, no answer',
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
  // GET /health.
  unhealthy: '503',
} as const
export type FaultKind = keyof typeof FAULTS
export const isFaultKind = (text: unknown): text is FaultKind => typeof text === 'string' && text in FAULTS

export type Match = {
  /** authorizations, captures, voids, refunds or health; any when left out. */
  endpoint?: string
  method?: 'GET' | 'POST'
  key?: string
  /** Only requests with (false) or without (true) a body. */
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
      if (fault.times === 0 || !fits(fault, request) || this.#random() >= fault.probability) continue
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
    for (const gate of this.#gates.filter((one) => one.at === at && fits(one.match, request))) {
      gate.arrive()
      await gate.opened
    }
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
