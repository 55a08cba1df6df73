import { beforeEach, describe, expect, it } from 'vitest'
import { check, INVARIANTS } from '../../proof/soak/invariants.ts'
import { enter, openBooks } from '../../proof/soak/books.ts'
import { testDatabase } from '../support/database.ts'

/** The proof is worth what its invariants can see: each is shown a world in which all holds, and then broken. */

const { sql: books } = await testDatabase()
await openBooks(books)

const EARLIER = '2030-01-01T00:00:00Z'
const NOW = '2030-01-01T01:00:00Z'
const MONTH = '2031-01-01T00:00:00.123456Z'
const id = (number: number) => `00000000-0000-7000-8000-${String(number).padStart(12, '0')}`

/** Six payments, 101 to 106 cents: authorized, captured (id unknown), refunded, voided, failed with an orphan, released. */
const PATHS = [
  { states: ['AUTHORIZED'], kinds: ['AUTHORIZE'] },
  { states: ['AUTHORIZED', 'CAPTURED'], kinds: ['AUTHORIZE', 'CAPTURE'] },
  { states: ['AUTHORIZED', 'CAPTURED', 'REFUNDED'], kinds: ['AUTHORIZE', 'CAPTURE', 'REFUND'] },
  { states: ['AUTHORIZED', 'VOIDED'], kinds: ['AUTHORIZE', 'VOID'] },
  { states: ['FAILED'], kinds: ['AUTHORIZE'] },
  { states: ['FAILED', 'VOIDED'], kinds: ['AUTHORIZE', 'RELEASE'] },
] as const
const TYPES = {
  AUTHORIZE: 'AUTHORIZATION',
  CAPTURE: 'CAPTURE',
  REFUND: 'REFUND',
  VOID: 'VOID',
  RELEASE: 'VOID',
}

beforeEach(async () => {
  const tables = await books<{ name: string }[]>`
    select table_schema || '.' || table_name as name from information_schema.tables
    where table_schema in ('receipts', 'bank', 'seen')`
  for (const { name } of tables) await books`truncate ${books(name)}`

  for (const [index, { states, kinds }] of PATHS.entries()) {
    const cents = 101 + index
    const paymentId = id(cents)
    const has = (kind: string) => (kinds as readonly string[]).includes(kind)
    const isHeld = index !== 4
    await enter(books, 'receipts.payments', [
      {
        id: paymentId,
        order_id: `order ${cents}`,
        amount_cents: cents,
        state: states.at(-1),
        version: states.length + 1,
        authorization_id: isHeld ? `auth_${cents}` : null,
        authorization_expires_at: isHeld ? MONTH : null,
        capture_id: index === 2 ? `cap_${cents}` : null,
        refund_id: has('REFUND') ? `ref_${cents}` : null,
        void_id: has('VOID') || has('RELEASE') ? `void_${cents}` : null,
        possible_orphan_hold_since: index === 4 ? MONTH : null,
      },
    ])
    await enter(
      books,
      'receipts.transitions',
      ['PENDING', ...states].map((state, at) => ({
        payment_id: paymentId,
        version: at + 1,
        from_state: at === 0 ? null : ['PENDING', ...states][at - 1],
        to_state: state,
        cause: at === 0 ? 'AUTHORIZE' : kinds[at - 1],
      })),
    )
    await enter(
      books,
      'seen.webhooks',
      ['PENDING', ...states].map((state, at) => ({
        seq: cents * 10 + at,
        payment_id: paymentId,
        version: at + 1,
        to_state: state,
      })),
    )
    const isThere = index < 2
    await enter(books, 'seen.checks', [
      {
        order_id: `order ${cents}`,
        amount_cents: cents,
        may_ship: isThere,
        reason: isThere ? states.at(-1) : 'VOIDED',
        asked_at: NOW,
        answered_at: NOW,
        is_last: true,
      },
    ])
    for (const [at, kind] of kinds.entries()) {
      const operation = { id: id(cents * 10 + at), key: `digest ${cents * 10 + at}` }
      const failed = kind === 'AUTHORIZE' && states[0] === 'FAILED'
      const asked = `${kind}-${cents}`
      await enter(books, 'receipts.operations', [
        {
          id: operation.id,
          bank_key: operation.key,
          client: kind === 'RELEASE' ? 'gateway' : 'soak',
          idempotency_key: asked,
          kind,
          payment_id: paymentId,
          input: kind === 'AUTHORIZE' ? { amountCents: cents } : { paymentId },
          status: failed ? 'REFUSED' : 'SUCCEEDED',
          code: failed ? 'BANK_UNAVAILABLE' : null,
          transition_version: at + 2,
        },
      ])
      const type = TYPES[kind]
      const prefix = { AUTHORIZATION: 'auth', CAPTURE: 'cap', VOID: 'void', REFUND: 'ref' }[type]
      const parent = { AUTHORIZATION: null, CAPTURE: 'auth', VOID: 'auth', REFUND: 'cap' }[type]
      await enter(books, 'bank.transactions', [
        {
          id: `${prefix}_${cents}`,
          type,
          reference_id: parent === null ? null : `${parent}_${cents}`,
          card: '4242',
          amount_cents: cents,
          status: type === 'AUTHORIZATION' && kinds.length > 1 ? 'USED' : 'ACTIVE',
          created_at: EARLIER,
          expires_at: MONTH,
          idempotency_key: operation.key,
          key_stored: !(index === 4 || (index === 1 && type === 'CAPTURE')),
        },
      ])
      if (kind !== 'RELEASE') {
        const answer = failed ? { code: 'BANK_UNAVAILABLE' } : { version: at + 2 }
        await enter(books, 'seen.requests', [{ key: asked, kind, amount_cents: cents }])
        await enter(books, 'seen.answers', [
          { key: asked, client: 'first', answer },
          { key: asked, client: 'late', answer },
          { key: asked, client: 'conflict', answer: { code: 'IDEMPOTENCY_KEY_REUSED' } },
        ])
      }
      await enter(books, 'seen.exchanges', [
        {
          seq: cents * 10 + at,
          key: operation.key,
          endpoint: `${type === 'AUTHORIZATION' ? 'authorization' : type.toLowerCase()}s`,
          has_body: true,
          arrived_ms: cents,
          ended_ms: cents + 0.5,
          ambiguous: index === 4,
          key_lost: index === 4 ? 'fault' : null,
        },
      ])
    }
  }
  await enter(books, 'receipts.stray_holds', [
    { authorization_id: 'auth_106', payment_id: id(106), released_at: MONTH },
  ])
  // Captured: 102. Held: 101, and the orphan of 105.
  await enter(books, 'bank.accounts', [
    { card: '4242', start_cents: 10_000, balance_cents: 9_898, available_cents: 9_692 },
  ])
})

const broken = async () => (await check(books)).filter(({ rows }) => rows.length > 0)

it('a world in which all holds violates nothing', async () => {
  expect(await broken()).toEqual([])
})

/** By what the invariant says, its beginning. */
const BREAKS: [invariant: string, what: string, tampering: string][] = [
  ['at most one', 'a second capture of an amount', again('cap_102', "'CAPTURE', 'auth_other'")],
  ['at most one', 'a second refund', again('ref_103', "'REFUND', 'cap_other'")],
  ['receipt state', 'a capture that the receipt does not know', payment(102, `state = 'AUTHORIZED'`)],
  ['receipt state', 'a capture that the bank does not know', lose('cap_102')],
  ['receipt state', 'an authorized payment whose hold is gone', lose('auth_101')],
  ['receipt state', 'an id that is not the bank’s', payment(103, `refund_id = 'ref_0'`)],
  ['receipt state', 'an id missing though the bank had it stored', payment(104, 'void_id = null')],
  ['receipt state', 'a hold of another amount', payment(101, 'amount_cents = 999')],
  ['receipt state', 'another expiry', payment(101, `authorization_expires_at = '2031-01-01'`)],
  ['what is recorded as done', 'a refund that was never made', lose('ref_103')],
  ['every bank row', 'a row of no operation', row('void_104', `idempotency_key = 'nobody'`)],
  ['every bank row', 'a row of another amount', row('void_104', 'amount_cents = 1')],
  ['every bank row', 'a refused one', operation('VOID-104', `status = 'REFUSED', code = 'X'`)],
  ['every bank row', 'a void made by a capture', operation('VOID-104', `kind = 'CAPTURE'`)],
  ['every bank row', 'an unmarked orphan', payment(105, 'possible_orphan_hold_since = null')],
  ['every orphan', 'one without a mark', payment(105, 'possible_orphan_hold_since = null')],
  ['no orphan hold that', 'one whose key is stored', row('auth_105', 'key_stored = true')],
  ['every stray hold', 'one is held still', 'update receipts.stray_holds set released_at = null'],
  ['no more orphan holds', 'one that no lost key explains', 'update seen.exchanges set key_lost = null'],
  ['no more orphan holds', 'two for one lost key', again('auth_105', "'AUTHORIZATION', null")],
  ['balance =', 'a balance that the rows do not explain', account('balance_cents = balance_cents - 1')],
  ['balance =', 'what is available, too', account('available_cents = available_cents + 1')],
  ["the bank's balances", 'money that no receipt has', payment(102, `state = 'VOIDED'`)],
  ["the bank's balances", 'a hold that no receipt has', payment(101, `state = 'VOIDED'`)],
  ['one key', 'two answers', answer('late', '{"code": "BANK_UNAVAILABLE"}')],
  ['the answer is', 'another one than was kept', answer('late', '{"version": 9}')],
  ['the answer is', 'one that nobody kept', `delete from receipts.operations where kind = 'VOID'`],
  ['another request', 'a conflicting one was answered', answer('conflict', '{"version": 3}')],
  ['… and leads', 'its amount took the key', operation('AUTHORIZE-101', `input = '{"amountCents": 77}'`)],
  ['… and leads', 'its kind took the key', operation('VOID-104', `kind = 'CAPTURE'`)],
  ['… and leads', 'a key that nobody asked under', operation('VOID-104', `idempotency_key = 'other'`)],
  ['… and leads', 'an exchange of no operation', exchange('1040', `key = 'nobody'`)],
  ['histories', 'a version left out', `${step('version = 5')}; ${payment(103, 'version = 5')}`],
  ['histories', 'a step out of another state', step(`from_state = 'VOIDED'`)],
  ['histories', 'a move that is no move', step(`cause = 'VOID'`)],
  ['histories', 'a payment elsewhere than its history', payment(101, 'version = 7')],
  ['histories', 'none', `delete from receipts.transitions where payment_id = '${id(101)}'`],
  ['no authorize', 'a send after an ambiguous one', sent('1050', 'true', 1)],
  ['no authorize', 'a send before the first had ended', sent('1010', 'true', 0.1)],
  [
    'no authorize',
    'a send while the first is open',
    exchange('1010', 'ended_ms = null') + ';' + sent('1010', 'true', 99),
  ],
  ['nothing is unresolved', 'an operation', `insert into seen.unresolved (id) values ('${id(1041)}')`],
  ['nothing is unresolved', 'a PENDING payment', payment(105, `state = 'PENDING'`)],
  ['no review', 'one', payment(101, `review_reason = 'odd'`)],
  [
    'an authorization that has expired',
    'one is held',
    payment(101, `authorization_expires_at = '2030-01-01'`),
  ],
  ['FicMart was told', 'a transition untold', 'delete from seen.webhooks where seq = 1031'],
  ['FicMart was told', 'a later one first', 'update seen.webhooks set seq = 1 where seq = 1032'],
  ['FicMart was told', 'of another state', `update seen.webhooks set to_state = 'VOIDED' where seq = 1031`],
  ['goods may never', 'a yes for a refunded one', checked(103, 'may_ship = true')],
  ['goods may never', 'a yes for a voided one', checked(104, 'may_ship = true')],
  ['goods may never', 'a yes before the hold', checked(101, `answered_at = '2029-12-31'`)],
  [
    'goods may never',
    'a yes after the end of the hold',
    checked(101, `asked_at = '2032-01-01', answered_at = '2032-01-01'`),
  ],
  ['nor stay', 'a no for a held one', checked(101, 'may_ship = false')],
  ['nor stay', 'a no for a captured one', checked(102, 'may_ship = false')],
  ['every answer', 'an error', `insert into seen.faulty values ('Unexpected error')`],
  ['no gateway', 'one exited', 'insert into seen.ends values (1)'],
  ['no card number', 'one was found', `insert into seen.leaks values ('table payments', 'a card number')`],
]

describe('is seen to be broken:', () => {
  it.each(BREAKS)('"%s …" by %s', async (invariant, _, tampering) => {
    await books.unsafe(tampering)
    expect((await broken()).filter(({ says }) => says.startsWith(invariant))).toHaveLength(1)
  })
  it('every one of them', () => {
    const unbroken = INVARIANTS.filter(({ says }) => !BREAKS.some(([start]) => says.startsWith(start)))
    expect(unbroken).toEqual([])
  })
})

it('a no for a captured one whose id the bank has lost is none for ever', async () => {
  await books.unsafe(checked(102, `may_ship = false, reason = 'CAPTURE_UNCONFIRMED'`))
  expect(await broken()).toEqual([])
})

it('a probe, or a send after a definite failure, is no doubled authorize', async () => {
  await books.unsafe(`${sent('1050', 'false', 1)}; ${sent('1010', 'true', 1)}`)
  expect(await broken()).toEqual([])
})

function payment(cents: number, change: string) {
  return `update receipts.payments set ${change} where id = '${id(cents)}'`
}
function operation(key: string, change: string) {
  return `update receipts.operations set ${change} where idempotency_key = '${key}'`
}
function row(bankId: string, change: string) {
  return `update bank.transactions set ${change} where id = '${bankId}'`
}
function checked(cents: number, change: string) {
  return `update seen.checks set ${change} where amount_cents = ${cents}`
}
function lose(bankId: string) {
  return `delete from bank.transactions where id = '${bankId}'`
}
function again(bankId: string, typeAndParent: string) {
  return `insert into bank.transactions select id || '-2', ${typeAndParent}, card, amount_cents, status, created_at, expires_at,
            idempotency_key, key_stored from bank.transactions where id = '${bankId}'`
}
function account(change: string) {
  return `update bank.accounts set ${change}`
}
function answer(client: string, to: string) {
  return `update seen.answers set answer = '${to}' where key = 'VOID-104' and client = '${client}'`
}
function step(change: string) {
  return `update receipts.transitions set ${change} where to_state = 'REFUNDED'`
}
function exchange(operationId: string, change: string) {
  return `update seen.exchanges set ${change} where seq = ${operationId}`
}
function sent(operationId: string, hasBody: string, laterMs: number) {
  return `insert into seen.exchanges select seq + 1, key, endpoint, ${hasBody}, arrived_ms + ${laterMs}, ended_ms + ${laterMs},
            false, null from seen.exchanges where seq = ${operationId}`
}
