/**
 * Pays one order, once. Two things run side by side: the payment is asked for until there is a definite answer, always
 * under the same idempotency key unless the gateway says that nothing was done under it; and every change of the order's
 * payments is followed, so that the customer is told whatever happens, also after a reload, and whoever made it happen.
 *
 * The rule that matters: while it may have been done, this page never invites to pay again.
 *
 * The card is in the form's fields and in the one request to the gateway; not in the address, the console or a storage.
 */

const PAYMENT = /* GraphQL */ `
  fragment shown on Payment {
    id
    state
    version
    card {
      brand
      last4
    }
  }
`
const AUTHORIZE = /* GraphQL */ `
  mutation Authorize($input: AuthorizePaymentInput!) {
    authorizePayment(input: $input) {
      ... on PaymentSuccess {
        currentPayment {
          ...shown
        }
      }
      ... on PaymentProblem {
        code
        retry
        retryAfterMs
        payment {
          ...shown
        }
      }
      ... on InvalidInput {
        fields {
          path
        }
      }
    }
  }
  ${PAYMENT}
`
const SO_FAR = /* GraphQL */ `
  query SoFar($orderId: String!) {
    paymentsByOrder(orderId: $orderId) {
      ...shown
    }
  }
  ${PAYMENT}
`
const FOLLOW = /* GraphQL */ `
  subscription Follow($orderId: String!) {
    paymentUpdated(by: { orderId: $orderId }) {
      ...shown
    }
  }
  ${PAYMENT}
`

/**
 * @typedef {{ id: string, state: string, version: number, card: { brand: string, last4: string } }} Payment
 * @typedef {{ code?: string, retry?: string, retryAfterMs?: number | null, currentPayment?: Payment, payment?: Payment | null, fields?: { path: string }[] }} Answer
 * @typedef {{ number: string, cvv: string, expiryMonth: number, expiryYear: number }} Card
 * @typedef {{ customerId: string, orderId: string, amountCents: number, gateway: string, token: string, basket: { title: string, cents: number }[] }} Checkout
 */

const CHECKING =
  'We are checking with your bank whether the payment went through. Please do not pay again: you may wait here, or close this page and come back.'
const REFUSALS = new Map([
  ['CARD_INVALID', 'Your bank does not accept this card. Nothing was charged. Please use another card.'],
  ['CVV_INVALID', 'The security code does not belong to this card. Nothing was charged. Please check it.'],
  ['CARD_EXPIRED', 'This card has expired. Nothing was charged. Please use another card.'],
  [
    'INSUFFICIENT_FUNDS',
    'Your bank declined the payment: the card does not cover it. Nothing was charged. Please use another card.',
  ],
  ['INVALID_INPUT', 'Something is not right with the card details. Nothing was charged. Please check them.'],
])
const NOT_TAKEN = 'The payment was not taken. Nothing was charged. Please try again, or use another card.'
const BANK_AWAY = 'The bank cannot be reached just now. Nothing was charged. Please try again in a minute.'

/** How often to try again by itself what certainly was not done, before the customer is asked. */
const TRIES_MAX = 4
/** A little above the gateway's own 10 s: it answers in its own terms before that. */
const ANSWER_WITHIN_MS = 15_000
const AGAIN_AFTER_MS = 1_000

/** @type {Checkout} */
let checkout
/** The order's payments as they were last heard of. @type {Map<string, Payment>} */
const payments = new Map()
/** Asking for one now, or still waiting to learn what became of it. */
let isAsking = false

const form = /** @type {HTMLFormElement} */ (document.getElementById('card'))
/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id))

/** @param {'asking' | 'checking' | 'refused' | 'paid' | 'ready'} phase @param {string} text */
function show(phase, text) {
  const status = field('status')
  status.className = phase
  status.textContent = text
  const mayPay = phase === 'ready' || phase === 'refused'
  form.hidden = !mayPay
  if (mayPay) field('cvv').value = ''
  if (phase === 'paid') form.reset()
}

/** What is known without an answer to a request of this page: on arrival, and whenever a payment changes. */
function showPayments() {
  const all = [...payments.values()]
  const held = all.find(({ state }) => state === 'AUTHORIZED' || state === 'CAPTURED')
  if (held !== undefined) {
    show('paid', `Thank you: your order is paid (${held.card.brand} ending in ${held.card.last4}).`)
    return
  }
  if (isAsking) return
  // Whoever is about to type, or was told why, is not disturbed.
  const isOpen = !form.hidden
  if (all.some(({ state }) => state === 'PENDING')) show('checking', CHECKING)
  else if (all.length > 0 && !isOpen) show('refused', NOT_TAKEN)
  else if (!isOpen) show('ready', '')
}
const isPaid = () =>
  [...payments.values()].some(({ state }) => state === 'AUTHORIZED' || state === 'CAPTURED')

/** @param {Card} card */
async function pay(card) {
  isAsking = true
  show('asking', 'Asking your bank …')
  const refusal = await askUntilDefinite(card)
  isAsking = false
  if (refusal === null || isPaid()) showPayments()
  else show('refused', refusal)
}

/** Why it was not done, for the customer; null when it was, or when somebody else did it. @param {Card} card */
async function askUntilDefinite(card) {
  const { customerId, orderId, amountCents } = checkout
  let idempotencyKey = crypto.randomUUID()
  let mayBeDone = false
  for (let triesInVain = 0; ;) {
    const answer = await ask({ idempotencyKey, customerId, orderId, amountCents, card })
    const payment = answer.currentPayment ?? answer.payment
    if (payment != null) heard(payment)
    if (isPaid()) return null
    switch (answer.retry) {
      case 'DO_NOT_RETRY':
        markFields(answer.fields ?? [])
        return REFUSALS.get(answer.code ?? '') ?? NOT_TAKEN
      case 'NEW_KEY':
        mayBeDone = false
        idempotencyKey = crypto.randomUUID()
        triesInVain += 1
        break
      case 'WAIT':
        // Another page of this customer's pays the order just now.
        show('checking', CHECKING)
        break
      case 'SAME_KEY':
        if (answer.code === 'BANK_UNAVAILABLE' && !mayBeDone) triesInVain += 1
        else mayBeDone = true
        break
      default:
        // No answer, or none that says what was done.
        mayBeDone = true
    }
    if (triesInVain >= TRIES_MAX && !mayBeDone) return BANK_AWAY
    if (mayBeDone) show('checking', CHECKING)
    await pause(answer.retryAfterMs ?? AGAIN_AFTER_MS)
    if (isPaid()) return null
  }
}

/** @param {Record<string, unknown>} input @returns {Promise<Answer>} */
async function ask(input) {
  try {
    const { data, errors } = await send(AUTHORIZE, { input }).then((response) => response.json())
    if (data?.authorizePayment) return data.authorizePayment
    const { code, retryAfterMs } = errors[0].extensions
    if (code === 'INTERNAL_SERVER_ERROR' || code === 'DATABASE_UNAVAILABLE') return {}
    // All others refuse a request before any of it is carried out.
    return { code: 'BANK_UNAVAILABLE', retry: 'SAME_KEY', retryAfterMs }
  } catch {
    return {}
  }
}

/** @param {string} query @param {Record<string, unknown>} variables @param {{ live?: boolean }} [how] */
async function send(query, variables, { live = false } = {}) {
  const response = await fetch(checkout.gateway, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: live ? 'text/event-stream' : 'application/json',
      authorization: `Bearer ${checkout.token}`,
    },
    body: JSON.stringify({ query, variables }),
    ...(live ? {} : { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) }),
  })
  // The token is over: the shop signs another one, for the same order.
  if (response.status === 401) await begin()
  return response
}

/** Every change of the order's payments, until it is paid; after a break, anew from where it is by then. */
async function follow() {
  while (!isPaid()) {
    try {
      const response = await send(FOLLOW, { orderId: checkout.orderId }, { live: true })
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      for (let read = await reader?.read(); read && !read.done && !isPaid(); read = await reader?.read()) {
        const events = (text + read.value).split('\n\n')
        text = events.pop() ?? ''
        for (const event of events) {
          const [, data] = /^data: (.+)$/m.exec(event) ?? []
          const payment = data && JSON.parse(data).data?.paymentUpdated
          if (payment) heard(payment)
        }
      }
      await reader?.cancel()
    } catch {
      // The network broke, or the gateway is not there.
    }
    await pause(AGAIN_AFTER_MS)
  }
}

/** @param {Payment} payment */
function heard(payment) {
  // Answers and the stream overtake each other.
  if (payment.version <= (payments.get(payment.id)?.version ?? 0)) return
  payments.set(payment.id, payment)
  showPayments()
}

/** @param {{ path: string }[]} fields */
function markFields(fields) {
  for (const id of ['number', 'expiry', 'cvv']) {
    const isBad = fields.some(({ path }) => path.startsWith(`input.card.${id}`))
    field(`${id}-trouble`).textContent = isBad ? 'Please check this.' : ''
  }
}

/** @returns {Card} */
function readCard() {
  const [month = '', year = ''] = field('expiry').value.split('/')
  return {
    number: field('number').value.trim(),
    cvv: field('cvv').value.trim(),
    expiryMonth: Number(month),
    expiryYear: 2000 + (Number(year) % 100),
  }
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const money = new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' })

/** What to pay, and the right to pay it, from the shop. */
async function begin() {
  const response = await fetch(`${location.pathname}/token`, { method: 'POST' })
  checkout = await response.json()
}

function showBasket() {
  const rows = checkout.basket.map(({ title, cents }) => {
    const row = document.createElement('tr')
    for (const text of [title, money.format(cents / 100)]) {
      row.append(Object.assign(document.createElement('td'), { textContent: text }))
    }
    return row
  })
  field('basket').replaceChildren(...rows)
  field('total').textContent = money.format(checkout.amountCents / 100)
}

async function arrive() {
  await begin()
  showBasket()
  const { data } = await send(SO_FAR, { orderId: checkout.orderId }).then((response) => response.json())
  for (const payment of data.paymentsByOrder) payments.set(payment.id, payment)
  showPayments()
  await follow()
}

form.addEventListener('submit', (event) => {
  event.preventDefault()
  markFields([])
  void pay(readCard())
})
arrive().catch(() => show('asking', 'The shop cannot be reached just now. Please reload this page.'))
