import { setTimeout as pause } from 'node:timers/promises'
import type { Answered } from '../../test/support/client.ts'
import { pick } from '../support/random.ts'
import { CARDS } from './cards.ts'
import { ask } from './clients.ts'
import type { Request, World } from './clients.ts'
import { CONFLICT_CENTS, orderOf } from './plan.ts'
import type { FollowUp, Life } from './plan.ts'

/** Asks for all once more, or for the keys that are wanted. */
export type ComeBack = (isWanted?: (key: string) => boolean) => Promise<void>

/**
 * The life of a payment as FicMart's order service leads it: ask, repeat as advised until there is a final answer, go
 * on. Beside it duplicates ask for the same, another request tries to use the key, and a late client hangs up. What it
 * resolves with is to be called when recovery has had its time: then all is asked again, and those come who have not yet.
 */
export async function live(world: World, life: Life): Promise<ComeBack> {
  const others = [...life.others]
  const beside: Promise<unknown>[] = []
  let asked: Request[] = []

  const paid = await authorize()
  if (paid !== null) {
    for (const step of life.steps) {
      const answers = await Promise.all(step.map(async (kind) => await followUp(kind, paid)))
      if (!answers.some((answer) => answer !== null && answer.code === undefined)) break
    }
  }
  await Promise.all(beside)
  return comeBack

  async function comeBack(isWanted = (_key: string) => true): Promise<void> {
    for (const request of asked) {
      if (isWanted(request.input.idempotencyKey)) await untilFinal(world, 'late', request)
    }
    const last = asked.at(-1)
    if (last === undefined || !isWanted(last.input.idempotencyKey)) return
    for (const { who } of others.splice(0)) join(who, last)
    await Promise.all(beside)
  }

  async function authorize(): Promise<{ id: string; cents: number } | null> {
    for (const cents of life.amountsCents) {
      const answer = await perform('authorize', cents, {
        orderId: orderOf(life),
        allowAnotherForOrder: life.isAnother,
        customerId: `customer ${life.number % 100}`,
        amountCents: cents,
        card: CARDS[life.number % CARDS.length],
      })
      if (answer?.code === undefined) return answer === null ? null : { id: answer.payment.id, cents }
      if (answer.retry !== 'NEW_KEY') return null
    }
    return null
  }

  async function followUp(kind: FollowUp, { id, cents }: { id: string; cents: number }) {
    let answer: Answered | null = null
    for (let tries = 0; tries < FOLLOW_UP_TRIES; tries += 1) {
      answer = await perform(kind, cents, { paymentId: id })
      if (answer === null || answer.code === undefined || answer.retry !== 'NEW_KEY') break
    }
    return answer
  }

  async function perform(kind: Request['kind'], cents: number, input: object): Promise<Answered | null> {
    const number = asked.length
    const request = newRequest(`payment ${life.number} ${kind} ${number}`, kind, input, life.random)
    asked = [...asked, request]
    world.seen.requests.push({
      key: request.input.idempotencyKey,
      kind: kind.toUpperCase(),
      amount_cents: cents,
    })
    for (const other of others.filter(({ at }) => at === number)) {
      others.splice(others.indexOf(other), 1)
      join(other.who, request)
    }
    return life.isPatient ? await untilFinal(world, 'first', request) : await askOnce(world, 'first', request)
  }

  function join(who: (typeof others)[number]['who'], request: Request | undefined): void {
    if (request === undefined) return
    const soonMs = Math.round(life.random() * SOON_MS * world.scale)
    switch (who) {
      case 'duplicate':
        beside.push(pause(soonMs).then(async () => await untilFinal(world, 'duplicate', request)))
        return
      case 'conflict':
        beside.push(
          request.recorded.then(async () => await untilFinal(world, 'conflict', conflicting(request))),
        )
        return
      case 'late':
        // Nobody hears the answer; the request is under way all the same. It comes back in the end.
        beside.push(ask(world, request, AbortSignal.timeout(soonMs)))
    }
  }
}

const FOLLOW_UP_TRIES = 4
const SOON_MS = 2_000

function newRequest(key: string, kind: Request['kind'], input: object, random: () => number): Request {
  let isRecorded = () => {}
  const recorded = new Promise<void>((resolve) => (isRecorded = resolve))
  return { kind, input: { idempotencyKey: key, ...input }, random, recorded, isRecorded }
}

/** The same key for another amount, or for another operation. */
function conflicting(request: Request): Request {
  const { kind, input, random } = request
  if (kind === 'authorize') return { ...request, input: { ...input, amountCents: CONFLICT_CENTS } }
  return pick(random, [true, false])
    ? { ...request, input: { ...input, expectedAmountCents: CONFLICT_CENTS } }
    : { ...request, kind: kind === 'void' ? 'capture' : 'void' }
}

type Who = 'first' | 'duplicate' | 'conflict' | 'late'

/** Asks and asks again, as the advice is, until the answer is final; null when the run was over before. */
async function untilFinal(world: World, who: Who, request: Request): Promise<Answered | null> {
  while (!world.over.aborted) {
    const answer = await askOnce(world, who, request)
    if (answer !== null && isFinal(answer)) return answer
    const adviceMs = answer?.code === undefined ? null : answer.retryAfterMs
    await pause((0.5 + request.random()) * (adviceMs ?? RETRY_MS) * world.scale)
  }
  // Nobody shall wait for what is not said any more.
  request.isRecorded()
  return null
}

const RETRY_MS = 500

async function askOnce(world: World, who: Who, request: Request): Promise<Answered | null> {
  const answer = await ask(world, request)
  if (answer === null) return null
  const atMs = performance.now()
  if (isFinal(answer)) {
    const kept = answer.code === undefined ? { version: answer.transition.version } : { code: answer.code }
    world.seen.answers.push({ key: request.input.idempotencyKey, client: who, answer: kept, atMs })
  } else if (answer.code !== undefined) world.seen.notYet.push({ code: answer.code, atMs })
  // With the payment in it, it is an operation on record that is unknown; without, the gateway could not look.
  if (isFinal(answer) || (answer.code === 'OUTCOME_UNKNOWN' && answer.payment !== null)) request.isRecorded()
  return answer
}

function isFinal(answer: Answered): boolean {
  return answer.code === undefined || ['NEW_KEY', 'DO_NOT_RETRY'].includes(answer.retry)
}
