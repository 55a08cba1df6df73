import { client } from '../../test/support/client.ts'
import type { Answered } from '../../test/support/client.ts'
import { cardDataIn } from './cards.ts'
import type { FollowUp } from './plan.ts'

/** What the clients of a run share, and one request of theirs. */
export type World = {
  /** Of a gateway that is up; null when none is. */
  gatewayUrl(random: () => number): string | null
  scale: number
  /** Nothing is asked any more. */
  over: AbortSignal
  seen: Seen
}

/** What was asked and answered, for the books. */
export type Seen = {
  requests: { key: string; kind: string; amount_cents: number }[]
  /** Final ones, and when they came. */
  answers: { key: string; client: string; answer: object; atMs: number }[]
  /** Those that say: not yet. */
  notYet: { code: string; atMs: number }[]
  leaks: { place: string; found: string }[]
  /** What the warehouse was told. */
  checks: {
    order_id: string
    amount_cents: number
    may_ship: boolean
    reason: string
    asked_at: Date
    answered_at: Date
    is_last: boolean
  }[]
  /** Requests sent, and those of them whose connection broke (a gateway was killed, or the client hung up). */
  sent: number
  broken: number
  /** Answers that are none in the API's own terms. */
  faulty: string[]
}

export type Request = {
  kind: 'authorize' | FollowUp
  input: { idempotencyKey: string } & Record<string, unknown>
  random: () => number
  /** Resolves when the gateway has the key on record: before, a conflicting request could be the first under it. */
  recorded: Promise<void>
  isRecorded: () => void
}

export function nothingSeen(): Seen {
  return { requests: [], answers: [], notYet: [], leaks: [], checks: [], sent: 0, broken: 0, faulty: [] }
}

/** One request to any of the gateways; null when no answer came. Whatever came is searched for card data. */
export async function ask(world: World, request: Request, hangUp?: AbortSignal): Promise<Answered | null> {
  const { seen } = world
  const url = world.gatewayUrl(request.random)
  if (url === null) return null
  seen.sent += 1
  const answers: string[] = []
  const read = async (to: string, init: RequestInit): Promise<Response> => {
    const response = await fetch(to, { ...init, ...(hangUp && { signal: hangUp }) })
    const text = await response.text()
    // HTTP's own: a gateway that was suspended has not read the request in time.
    if (response.status === 408) throw new Error('not read')
    answers.push(`HTTP ${response.status}, ${text.length} characters`)
    const found = cardDataIn(text)
    if (found !== null) seen.leaks.push({ place: `an answer to ${request.kind}`, found })
    return new Response(text)
  }
  try {
    return await client(`${url}/graphql`, { fetch: read })[request.kind](request.input)
  } catch (error) {
    if (answers.length === 0) seen.broken += 1
    else seen.faulty.push(`${answers.join()}: ${error instanceof Error ? error.message : String(error)}`)
    return null
  }
}
