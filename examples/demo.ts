import { findOrStartGateway } from './gateway.ts'
import { orderService } from './order-service.ts'
import type { Card, Outcome, Payment } from './order-service.ts'

/**
 * `npm run demo`: FicMart for a few orders, in a terminal. Against the gateway at GATEWAY_URL, or one that runs on this
 * machine, or one that it starts. Each step is shown as it happens; the receipts come at the end.
 */
const VISA: Card = { number: '4111111111111111', cvv: '123', expiryMonth: 12, expiryYear: 2030 }
const EMPTY: Card = { number: '5555555555554444', cvv: '789', expiryMonth: 9, expiryYear: 2030 }

/** Elsewhere (piped, in CI) each step is one line, once it is over. */
const isTerminal = process.stdout.isTTY && process.env['TERM'] !== 'dumb' && process.env['CI'] === undefined

const apiKey = process.env['GATEWAY_API_KEY']

async function main(): Promise<void> {
  const gateway = await findOrStartGateway(whyNotThat)
  process.once('SIGINT', () => void gateway.stop().then(() => process.exit(130)))
  try {
    await play(gateway)
  } finally {
    await gateway.stop()
  }
}

/** Where API keys are set it wants one of them. */
async function whyNotThat(url: string): Promise<string | null> {
  const { status } = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    },
    body: JSON.stringify({ query: '{ __typename }' }),
  })
  return status === 401 ? `The gateway at ${url} wants an API key of a service, in GATEWAY_API_KEY` : null
}

async function play({ url, bankUrl }: { url: string; bankUrl: string }): Promise<void> {
  const customerId = `demo-${Date.now().toString(36)}`
  let waiting = ''
  const ficmart = orderService({
    url,
    apiKey,
    onRetry: ({ code, retry }, waitMs) => {
      waiting = `${code}, ${retry}: again in ${(waitMs / 1000).toFixed(1)} s`
      draw()
    },
  })
  let line = { order: '', what: '', startedMs: 0 }
  const draw = () => {
    if (!isTerminal) return
    const seconds = ((performance.now() - line.startedMs) / 1000).toFixed(1)
    process.stdout.write(`\r\x1b[K${row(line.order, line.what, `… ${seconds} s`, '', waiting)}`)
  }
  async function step(order: string, what: string, ask: () => Promise<Outcome>): Promise<Payment | null> {
    line = { order, what, startedMs: performance.now() }
    waiting = ''
    const clock = setInterval(draw, 100)
    draw()
    const outcome = await ask().finally(() => clearInterval(clock))
    const took = `${String(Math.round(performance.now() - line.startedMs)).padStart(6)} ms`
    process.stdout.write(`${isTerminal ? '\r\x1b[K' : ''}${row(order, what, ...told(outcome), took)}\n`)
    return outcome.is === 'done' ? outcome.payment : null
  }
  const order = (name: string, amountCents: number, card: Card = VISA) => ({
    orderId: `${customerId}-${name}`,
    customerId,
    amountCents,
    card,
  })
  const fail = async (what: string, endpoint: string, times = 1) => {
    const told = await bankFails(bankUrl, { what, endpoint, probe: false, times })
    heading(told ? `  the bank will fail: ${what}, ${times} ×` : '  (this bank cannot be told to fail)')
  }

  heading(`\n  FicMart at ${url}\n`)
  heading(row('order', 'what happens', 'state', 'what it means', '       took'))

  const book = await step('book', 'placed', () => ficmart.placed(order('book', 2_499)))
  if (book !== null) await step('book', 'shipped', () => ficmart.shipped(book))

  const lamp = await step('lamp', 'placed', () => ficmart.placed(order('lamp', 8_900)))
  if (lamp !== null) await step('lamp', 'cancelled', () => ficmart.cancelled(lamp))

  const shoes = await step('shoes', 'placed', () => ficmart.placed(order('shoes', 12_050)))
  if (shoes !== null) await step('shoes', 'shipped', () => ficmart.shipped(shoes))
  if (shoes !== null) await step('shoes', 'returned', () => ficmart.returned(shoes))

  await step('piano', 'placed', () => ficmart.placed(order('piano', 450_000, EMPTY)))

  if (book !== null) await step('book', 'shipped again', () => ficmart.shipped(book))
  if (lamp !== null) await step('lamp', 'shipped', () => ficmart.shipped(lamp))

  await fail('chaos', 'authorizations', 2)
  const radio = await step('radio', 'placed', () => ficmart.placed(order('radio', 6_400)))
  await fail('drop-after-store', 'captures')
  if (radio !== null) await step('radio', 'shipped', () => ficmart.shipped(radio))
  await fail('drop-after-store', 'authorizations')
  await step('globe', 'placed', () => ficmart.placed(order('globe', 3_300)))

  heading('\n  The receipts\n')
  heading(receiptRow('order', 'amount', 'card', 'history'))
  for (const receipt of await ficmart.receipts(customerId)) {
    const { orderId, amount, card, transitions } = receipt
    const [first] = transitions
    const history = transitions.map(({ toState, at }) => {
      const sinceMs = Date.parse(at) - Date.parse(first?.at ?? at)
      return sinceMs === 0 ? toState : `${toState} +${(sinceMs / 1000).toFixed(1)}s`
    })
    heading(
      receiptRow(
        orderId.replace(`${customerId}-`, ''),
        amount.formatted,
        `${card.brand} ${card.last4}`,
        history.join(' → '),
      ),
    )
  }
  heading('')
}

function told(outcome: Outcome): [state: string, meaning: string] {
  switch (outcome.is) {
    case 'done':
      return [outcome.payment.state, outcome.replayed ? 'done before: nothing was done again' : '']
    case 'refused':
      return ['refused', outcome.problem.code]
    case 'open':
      return ['open', `${outcome.problem?.code ?? 'no answer'}: keep the key, ask again later`]
  }
}

const row = (order: string, what: string, state: string, meaning: string, took: string) =>
  `  ${order.padEnd(8)}${what.padEnd(15)}${state.padEnd(12)}${meaning.padEnd(38)}${took}`.trimEnd()
const receiptRow = (order: string, amount: string, card: string, history: string) =>
  `  ${order.padEnd(8)}${amount.padStart(10)}   ${card.padEnd(17)}${history}`
const heading = (text: string) => process.stdout.write(`${text}\n`)

/** By the simulator's own means; false for a real bank. */
async function bankFails(bankUrl: string, fault: Record<string, unknown>): Promise<boolean> {
  const response = await fetch(`${bankUrl}/simulator/faults`, {
    method: 'POST',
    body: JSON.stringify(fault),
  }).catch(() => null)
  return response?.ok === true
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
