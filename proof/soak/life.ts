import { setTimeout as pause } from 'node:timers/promises'
import type { Answered } from '../../test/support/client.ts'
import { pick } from '../support/random.ts'
import { CARDS } from './cards.ts'
import { ask } from './clients.ts'
import type { Request, World } from './clients.ts'
import { CONFLICT_CENTS } from './plan.ts'
import type { FollowUp, Life } from './plan.ts'

/**
 * The life of a payment as FicMart's order service leads it: ask, repeat as advised until there is a final answer, go
 * on. Beside it duplicates ask for the same, another request tries to use the key, and a late client hangs up and comes
 * back when all is over.
 */
export async function live(world: World, life: Life): Promise<void> {
  const others = [...life.others]
  const beside: Promise<unknown>[] = []
  const late: Request[] = []
  let asked: Request[] = []

  const paid = await authorize()
  if (paid !== null) {
    for (const step of life.steps) {
      const answers = await Promise.all(step.map(async (kind) => await followUp(kind, paid)))
      if (!answers.some((answer) => answer?.code === undefined)) break
    }
  }
  // The life was shorter than they were meant for.
  for (const { who } of others.splice(0)) join(who, asked.at(-1))
  await Promise.all(beside)
  await Promise.all(late.map(async (request) => await untilFinal(world, 'late', request)))

  async function authorize(): Promise<{ id: string; cents: number } | null> {
    for (const cents of life.amountsCents) {
      const answer = await perform('authorize', cents, {
        orderId: `order ${life.number}`,
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
    return await untilFinal(world, 'first', request)
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
        // Nobody hears the answer; the request is under way all the same.
        beside.push(ask(world, request, AbortSignal.timeout(soonMs)))
        late.push(request)
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

/** Asks and asks again, as the advice is, until the answer is final; null when the run was over before. */
async function untilFinal(
  world: World,
  who: 'first' | 'duplicate' | 'conflict' | 'late',
  request: Request,
): Promise<Answered | null> {
  while (!world.over.aborted) {
    const answer = await ask(world, request)
    const isFinal =
      answer !== null && (answer.code === undefined || ['NEW_KEY', 'DO_NOT_RETRY'].includes(answer.retry))
    if (isFinal) {
      const kept = answer.code === undefined ? { version: answer.transition.version } : { code: answer.code }
      world.seen.answers.push({ key: request.input.idempotencyKey, client: who, answer: kept })
    }
    // With the payment in it, it is an operation on record that is unknown; without, the gateway could not look.
    if (isFinal || (answer?.code === 'OUTCOME_UNKNOWN' && answer.payment !== null)) request.isRecorded()
    if (isFinal) return answer
    const adviceMs = answer?.code === undefined ? null : answer.retryAfterMs
    await pause((0.5 + request.random()) * (adviceMs ?? RETRY_MS) * world.scale)
  }
  // Nobody shall wait for what is not said any more.
  request.isRecorded()
  return null
}

const RETRY_MS = 500
