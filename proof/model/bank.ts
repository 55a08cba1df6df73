import { ENDPOINTS } from '../../src/bank/endpoints.ts'
import type { BankEndpoint } from '../../src/bank/bank.ts'
import type { Ask, Reply } from '../../src/bank/http.ts'
import type { Time } from './time.ts'

/**
 * The bank contract in memory: true books, stored answers that are forgotten after a day, and every way to fail that the
 * contract lists, told for each exchange. What comes out are HTTP replies, so that reading them is part of what is proven.
 */
export const BANK_FAULTS = [
  // Before the work.
  'refused',
  'dropped',
  'hangs',
  'chaos',
  'badGateway',
  'redirect',
  'redirect307',
  'startFails',
  'rolledBack',
  'insertFails',
  'commitFails',
  'parentOrCardFault',
  // After it; "unstored": money moved, and the key that would tell is lost.
  'droppedStored',
  'droppedUnstored',
  'droppedStoredLate',
  'hangsStored',
  'hangsUnstored',
  'commitFailsButDone',
  'html',
  'halfJson',
  'otherAmount',
  'otherCurrency',
  'otherParent',
  // Carried out long after we gave up.
  'lateStored',
  'lateUnstored',
  // A stored answer is not found; with a body it is carried out and never stored.
  'lookupFault',
  // The next /health.
  'unhealthy',
] as const
export type BankFault = (typeof BANK_FAULTS)[number]

/**
 * What may go on for a while: nobody reaches the bank, its own chaos, its stored answers are out of its reach, or its
 * tables are, and it says that it knows no card, authorization or capture, while /health says 200.
 */
export const OUTAGES = ['refused', 'chaos', 'lookupFault', 'parentOrCardFault'] as const
export type Outage = { fault: (typeof OUTAGES)[number]; untilMs: number }

/** One row of the bank's ledger. */
export type Entry = {
  id: string
  endpoint: BankEndpoint
  key: string
  parentId: string | null
  card: string
  amountCents: number
  atMs: number
  /** What its GET answers. */
  text: string
}

/** One request as the bank's side knows it. */
export type Exchanged = {
  key: string
  endpoint: BankEndpoint
  hasBody: boolean
  /** How old the claim was when the process last looked, before it sent this. */
  claimAgeMs: number
  /** It stood still between that look and the first byte, which no look can prevent. */
  wasHeld: boolean
  fault: BankFault | null
  sentMs: number
  /** When an answer came back, or the attempt was given up. */
  endedMs: number | null
  /** By the contract, what the reply that came back allows for an authorize. Null: nothing has come back. */
  allows: Allows | null
  made: Entry | null
}
/** RESEND: not carried out, another attempt may be. PROBE: nobody can know. END: done, or refused for good. */
export type Allows = 'RESEND' | 'PROBE' | 'END'
export type Said = { allows: Allows; reply: Reply }

export const CARDS = {
  good: { number: '4111111111111111', cvv: '123', balanceCents: 1_000_000, trouble: null },
  /** Enough for one payment of 100. */
  poor: { number: '4242424242424242', cvv: '123', balanceCents: 100, trouble: null },
  expired: { number: '5105105105105100', cvv: '123', balanceCents: 1_000, trouble: 'card_expired' },
  wrongCvv: { number: '5555555555554444', cvv: '999', balanceCents: 1_000, trouble: 'invalid_cvv' },
  unknown: { number: '4000000000000002', cvv: '123', balanceCents: 0, trouble: 'invalid_card' },
} as const

export const HOUR_MS = 3_600_000
export const HOLD_MS = 168 * HOUR_MS
const STORED_MS = 24 * HOUR_MS
/** Run time 0, by every clock but Node's. */
export const START = Date.parse('2026-11-23T10:00:00Z')

export class ModelBank {
  readonly books: Entry[] = []
  readonly exchanges: Exchanged[] = []
  readonly stored = new Map<string, { text: string; atMs: number }>()
  /** What the next requests meet, one each; `unhealthy` waits for the next /health. */
  faults: BankFault[] = []
  outage: Outage = { fault: 'refused', untilMs: 0 }
  readonly #time: Time
  readonly #random: () => number

  constructor(time: Time, random: () => number) {
    this.#time = time
    this.#random = random
  }

  /** `link.isCut`: the bank has noticed that its client is gone. */
  async answer(ask: Ask, exchanged: Exchanged, link: { isCut: boolean }): Promise<Said> {
    const { key, endpoint, fault } = exchanged
    const name = `${key} ${endpoint}`
    if (fault === 'refused') return says('RESEND', REFUSED)
    await this.#travel()
    if (fault === 'dropped') return says('PROBE', RESET)
    if (fault === 'hangs') return await never()
    if (fault === 'badGateway') return says('PROBE', text(502, 'text/html', '<h1>Bad Gateway</h1>'))
    if (fault === 'redirect' || fault === 'redirect307') {
      const status = fault === 'redirect' ? 301 : 307
      return says('END', text(status, 'text/html', '<a href="/api">Moved</a>'))
    }

    const stored = fault === 'lookupFault' ? undefined : this.stored.get(name)
    if (stored !== undefined && this.#time.nowMs < stored.atMs + STORED_MS)
      return says('END', { ...text(200, 'application/json', stored.text), replayed: true })

    if (fault === 'lateStored' || fault === 'lateUnstored')
      await this.#time.sleep(25_000 + this.#random() * 15_000)
    else await this.#travel()
    if (fault === 'chaos') return says('RESEND', refusal('internal_error', 'internal server error', 500))
    if (ask.body === '') return says('PROBE', text(400, 'text/plain', "can't decode JSON body: EOF"))
    if (fault === 'startFails' || link.isCut)
      return says('RESEND', refusal('internal_error', 'failed to start transaction'))
    if (fault === 'rolledBack') return says('RESEND', refusal('internal_error', 'failed to update account'))
    if (fault === 'insertFails') {
      return endpoint === 'authorizations'
        ? says('RESEND', refusal('internal_error', 'failed to create authorization'))
        : says('RESEND', refusal('internal_error', 'internal error', 500))
    }
    if (fault === 'commitFails') return says('PROBE', COMMIT_FAILED)

    const worked = this.#work(
      endpoint,
      key,
      JSON.parse(ask.body ?? '') as Body,
      fault === 'parentOrCardFault',
    )
    if ('error' in worked) {
      const isDoubtful = /not found/.test(worked.message)
      return says(
        isDoubtful ? 'RESEND' : 'END',
        refusal(worked.error, worked.message, worked.error === 'insufficient_funds' ? 402 : 400),
      )
    }
    exchanged.made = worked
    this.books.push(worked)
    if (fault === 'commitFailsButDone') return says('PROBE', COMMIT_FAILED)

    if (fault === 'droppedStoredLate') {
      void this.#time.sleep(3_000 + this.#random() * 7_000).then(() => this.#store(name, worked.text))
      return says('PROBE', RESET)
    }
    await this.#travel()
    const isStored = fault === null || !UNSTORED.has(fault)
    if (isStored && !link.isCut) this.#store(name, worked.text)
    if (fault === 'droppedStored' || fault === 'droppedUnstored') return says('PROBE', RESET)
    if (fault === 'hangsStored' || fault === 'hangsUnstored') return await never()
    if (fault === 'html') return says('PROBE', text(200, 'text/html', '<h1>OK</h1>'))
    if (fault === 'halfJson') return says('PROBE', json(200, worked.text.slice(0, worked.text.length / 2)))
    const spoilt = fault === null ? {} : (SPOILT[fault]?.[endpoint] ?? {})
    return says('END', json(200, JSON.stringify({ ...(JSON.parse(worked.text) as Body), ...spoilt })))
  }

  async health(isWell: boolean): Promise<Reply> {
    await this.#travel()
    return text(
      isWell ? 200 : 503,
      'application/json',
      JSON.stringify({ status: isWell ? 'healthy' : 'unhealthy' }),
    )
  }

  /** A GET by id. Every fault of the bank's database is a 404. */
  async look(path: string, fault: BankFault | null): Promise<Reply> {
    if (fault === 'refused') return REFUSED
    await this.#travel()
    const found = this.books.find(({ id }) => path.endsWith(`/${id}`))
    if (fault === 'chaos') return refusal('internal_error', 'internal server error', 500)
    return found === undefined || fault !== null
      ? refusal('not_found', 'not found', 404)
      : json(200, found.text)
  }

  /** Of a hold: its capture or void; of a capture: its refund. */
  after(id: string, byMs = Infinity): Entry | undefined {
    return this.books.find((entry) => entry.parentId === id && entry.atMs <= byMs)
  }

  #store(name: string, answer: string): void {
    this.stored.set(name, { text: answer, atMs: this.#time.nowMs })
  }

  async #travel(): Promise<void> {
    await this.#time.sleep(10 + this.#random() * 100)
  }

  #work(
    endpoint: BankEndpoint,
    key: string,
    body: Body,
    isBlind: boolean,
  ): Entry | { error: string; message: string } {
    const no = (error: string, message = error) => ({ error, message })
    const atMs = this.#time.nowMs
    const id = `${PREFIXES[endpoint]}_${this.books.length + 1}`
    if (endpoint === 'authorizations') {
      const card = Object.values(CARDS).find(({ number }) => number === body['card_number'])
      if (card === undefined || isBlind || card.trouble === 'invalid_card')
        return no('invalid_card', 'card not found or invalid')
      if (card.trouble !== null) return no(card.trouble)
      const amountCents = Number(body['amount'])
      if (this.availableCents(card) < amountCents) return no('insufficient_funds')
      return booked({ id, endpoint, key, atMs, parentId: null, card: card.number, amountCents })
    }
    const parentId = String(body[endpoint === 'refunds' ? 'capture_id' : 'authorization_id'])
    const parent = isBlind ? undefined : this.books.find((entry) => entry.id === parentId)
    if (parent === undefined)
      return endpoint === 'refunds'
        ? no('capture_not_found', 'capture not found')
        : no('authorization_not_found', 'authorization not found')
    if (this.after(parentId) !== undefined)
      return no(endpoint === 'refunds' ? 'already_refunded' : 'authorization_already_used')
    if (endpoint === 'captures' && atMs >= parent.atMs + HOLD_MS) return no('authorization_expired')
    if (endpoint !== 'voids' && body['amount'] !== parent.amountCents) return no('amount_mismatch')
    return booked({ id, endpoint, key, atMs, parentId, card: parent.card, amountCents: parent.amountCents })
  }

  availableCents(card: { number: string; balanceCents: number }): number {
    const sum = (endpoint: BankEndpoint) =>
      this.books
        .filter((entry) => entry.card === card.number && entry.endpoint === endpoint)
        .reduce((total, entry) => total + entry.amountCents, 0)
    return card.balanceCents - sum('authorizations') + sum('voids') + sum('refunds')
  }
}

const says = (allows: Allows, reply: Reply): Said => ({ allows, reply })

type Body = Record<string, string | number>

export const REFUSED: Reply = { arrived: false, perhapsSent: false, code: 'ECONNREFUSED' }
const RESET: Reply = { arrived: false, perhapsSent: true, code: 'ECONNRESET' }
const COMMIT_FAILED = refusal('internal_error', 'failed to commit transaction')
const PREFIXES: Record<BankEndpoint, string> = {
  authorizations: 'auth',
  captures: 'cap',
  voids: 'void',
  refunds: 'ref',
}
/** Whose answer is never stored. */
const UNSTORED: ReadonlySet<BankFault> = new Set([
  'droppedUnstored',
  'hangsUnstored',
  'lateUnstored',
  'lookupFault',
])
const SPOILT: Partial<Record<BankFault, Partial<Record<BankEndpoint, Body>>>> = {
  otherAmount: { authorizations: { amount: 1 }, captures: { amount: 1 }, refunds: { amount: 1 } },
  otherCurrency: {
    authorizations: { currency: 'EUR' },
    captures: { currency: 'EUR' },
    refunds: { currency: 'EUR' },
  },
  otherParent: {
    captures: { authorization_id: 'auth_other' },
    voids: { authorization_id: 'auth_other' },
    refunds: { capture_id: 'cap_other' },
  },
}

/** It was answered with something else than what was asked for. */
export function isSpoilt({ fault, endpoint, made }: Exchanged): boolean {
  return made !== null && fault !== null && SPOILT[fault]?.[endpoint] !== undefined
}

/** With the answer that the bank gives, and stores. */
function booked(entry: Omit<Entry, 'text'>): Entry {
  const { id, endpoint, parentId, amountCents: amount, atMs } = entry
  const at = instant(atMs)
  const parent = parentId ?? ''
  const money = { amount, currency: 'USD' }
  const bodies: Record<BankEndpoint, Body> = {
    authorizations: {
      authorization_id: id,
      status: 'approved',
      ...money,
      created_at: at,
      expires_at: instant(atMs + HOLD_MS),
    },
    captures: { capture_id: id, authorization_id: parent, status: 'captured', ...money, captured_at: at },
    voids: { void_id: id, authorization_id: parent, status: 'voided', voided_at: at },
    refunds: { refund_id: id, capture_id: parent, status: 'refunded', ...money, refunded_at: at },
  }
  return { ...entry, text: JSON.stringify(bodies[endpoint]) }
}

export function endpointOf(path: string): BankEndpoint | null {
  const all = Object.keys(ENDPOINTS) as BankEndpoint[]
  return all.find((endpoint) => ENDPOINTS[endpoint].path === path) ?? null
}

/** As POST answers have it: nanoseconds and an offset. */
const instant = (ms: number) => new Date(START + ms).toISOString().replace('Z', '123456+00:00')
const never = () => new Promise<never>(() => {})

function text(status: number, contentType: string, body: string): Reply & { arrived: true } {
  return { arrived: true, status, contentType, replayed: false, text: body }
}

function json(status: number, body: string): Reply & { arrived: true } {
  return text(status, 'application/json', body)
}

function refusal(error: string, message: string, status = 400): Reply {
  return json(status, JSON.stringify({ error, message }))
}
