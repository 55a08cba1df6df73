import { randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Gateway } from '../../../src/gateway.ts'
import { reconcile } from '../../../src/recovery/reconcile.ts'
import { begin } from '../../../src/recovery/reconcile/begin.ts'
import type { Discrepancy } from '../../../src/recovery/reconcile/discrepancy.ts'
import { mend } from '../../../src/recovery/reconcile/mend.ts'
import { pageOfDiscrepancies } from '../../../src/recovery/reconcile/reads.ts'
import { stop, takeUp } from '../../../src/recovery/reconcile/runs.ts'
import type { Held, Reconciliation } from '../../../src/recovery/reconcile/runs.ts'
import { StatementRefused } from '../../../src/recovery/reconcile/statement-file.ts'
import { sweep } from '../../../src/recovery/sweep.ts'
import { startTestBank } from '../../support/bank.ts'
import type { TestBank } from '../../support/bank.ts'
import { authorized, captured, succeeded, TEST_CARD } from '../../support/client.ts'
import type { Client } from '../../support/client.ts'
import { testDatabase } from '../../support/database.ts'
import { startTestGateway } from '../../support/gateway.ts'
import { reconciliation } from '../../support/reconciliation.ts'
import { temporaryFolder } from '../../support/temporary.ts'

/** The bank's own ledger against the receipts: what GET cannot find, told with both sides, and what is certain mended. */

const folder = await temporaryFolder('statement-')

/** A gateway with books of its own, since a reconciliation looks at all of them. */
async function scene() {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const { client, gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
  return { database, bank, client, gateway }
}

type Line = { type: string; id: string; reference_id: string; amount: string; status: string; time: string }
const COLUMNS = ['type', 'id', 'reference_id', 'amount', 'status', 'time'] as const

/** As the bank exports it. */
async function statementOf(bank: TestBank): Promise<Line[]> {
  const [, ...lines] = (await (await fetch(`${bank.url}/simulator/statement.csv`)).text()).trim().split('\n')
  return lines.map((line) => {
    const [type = '', id = '', reference_id = '', amount = '', status = '', time = ''] = line.split(',')
    return { type, id, reference_id, amount, status, time }
  })
}

async function fileOf(lines: readonly Line[]): Promise<string> {
  const text = [COLUMNS.join(','), ...lines.map((line) => COLUMNS.map((name) => line[name]).join(','))].join(
    '\n',
  )
  return await written(`${text}\n`)
}
async function written(text: string): Promise<string> {
  const file = join(folder, `${randomUUID()}.csv`)
  await writeFile(file, text)
  return file
}

/** A day that lies around everything, so that all of it is well within the statement. */
function withADayAround(lines: readonly Line[]): Line[] {
  const [first, last] = [lines[0], lines.at(-1)]
  if (first === undefined || last === undefined) throw new Error('an empty statement')
  const around = (line: Line, hours: number): Line => ({
    ...line,
    type: 'AUTHORIZATION',
    id: `auth_${randomUUID()}`,
    reference_id: '',
    status: 'VOIDED',
    time: new Date(Date.parse(line.time) + hours * 3_600_000).toISOString(),
  })
  return [around(first, -12), ...lines, around(last, 12)]
}

async function taken(gateway: Gateway): Promise<Held> {
  const token = randomUUID()
  const answer = await begin(gateway, { kind: 'STATEMENT', actor: 'test', source: 'bank.csv' }, token)
  if (!('begun' in answer)) throw new Error('another is under way')
  const held = await takeUp(gateway, answer.begun.id, token)
  if (held === null) throw new Error('not taken up')
  return held
}

const watching = { signal: new AbortController().signal, onProgress: () => {} }

async function compared(
  gateway: Gateway,
  lines: readonly Line[],
): Promise<{ run: Reconciliation; found: Discrepancy[] }> {
  const run = await reconcile(gateway, await taken(gateway), await fileOf(lines), watching)
  return { run, found: await pageOfDiscrepancies(gateway, run.id, { first: 100, after: null }) }
}

/** A person at the bank's desk, say, or another client of the bank's. */
async function atTheBank(bank: TestBank, endpoint: string, body: Record<string, unknown>) {
  const answer = await fetch(`${bank.url}/api/v1/${endpoint}`, {
    method: 'POST',
    headers: { 'idempotency-key': randomUUID() },
    body: JSON.stringify(body),
  })
  return (await answer.json()) as Record<string, string>
}
async function holdAtTheBank(bank: TestBank, amount: number): Promise<string> {
  const { number: card_number, cvv, expiryMonth: expiry_month, expiryYear: expiry_year } = TEST_CARD
  const body = { card_number, cvv, expiry_month, expiry_year, amount }
  return (await atTheBank(bank, 'authorizations', body))['authorization_id'] ?? ''
}

/** Captured for certain, under an id that the bank forgot to keep: answer and key lost after the commit. */
async function capturedWithoutId(client: Client, bank: TestBank, gateway: Gateway) {
  const { id } = await authorized(client)
  bank.faults.add('drop-after-commit', { endpoint: 'captures', probe: false })
  await client.capture({ paymentId: id })
  for (;;) {
    const { payment } = await client.query<{ payment: { state: string; captureId: string | null } }>(
      `query ($id: ID!) { payment(by: { id: $id }) { state captureId } }`,
      { id },
    )
    if (payment.state === 'CAPTURED') {
      expect(payment.captureId).toBeNull()
      return id
    }
    await sweep(gateway)
  }
}

/** Failed, with a hold left at the bank under a key that it forgot to keep. */
async function failedWithOrphan(client: Client, bank: TestBank, gateway: Gateway, amountCents: number) {
  const orderId = randomUUID()
  bank.faults.add('drop-after-commit', { endpoint: 'authorizations', probe: false })
  await client.authorize({ orderId, amountCents })
  for (;;) {
    const { found } = await client.query<{ found: { id: string; state: string }[] }>(
      `query ($orderId: String!) { found: paymentsByOrder(orderId: $orderId) { id state } }`,
      { orderId },
    )
    if (found[0]?.state === 'FAILED') return found[0].id
    await sweep(gateway)
  }
}

describe('when the statement says what the receipts say', () => {
  it('every line and every claim agrees', async () => {
    const { client, bank, gateway } = await scene()
    await authorized(client)
    await captured(client)
    succeeded(await client.refund({ paymentId: (await captured(client)).id }))
    succeeded(await client.void({ paymentId: (await authorized(client)).id }))
    const { run } = await compared(gateway, await statementOf(bank))
    expect(run).toMatchObject({ checked: 8, matched: 8, skipped: 0, found: 0, lines: 8 })
    expect(await reconciliation(client, `rec_${run.id}`)).toMatchObject({
      kind: 'STATEMENT',
      status: 'FINISHED',
      source: 'bank.csv',
      actor: 'test',
      progress: 1,
    })
  })

  it('what the gateway did after its end is not missed in it', async () => {
    const { client, bank, gateway } = await scene()
    const { id } = await authorized(client)
    const before = await statementOf(bank)
    await authorized(client)
    succeeded(await client.capture({ paymentId: id }))
    expect((await compared(gateway, before)).run).toMatchObject({ checked: 1, matched: 1, found: 0 })
  })

  it('nor what it did within a minute of its end: that may have been written while it was exported', async () => {
    const { client, bank, gateway } = await scene()
    await captured(client)
    await authorized(client)
    const [hold, , later] = await statementOf(bank)
    if (hold === undefined || later === undefined) throw new Error('three lines were expected')
    expect((await compared(gateway, [hold, later])).run).toMatchObject({ checked: 2, matched: 2, found: 0 })
  })

  it('an operation that recovery is at work on is skipped, and counted', async () => {
    const { client, bank, gateway } = await scene()
    const { id } = await authorized(client)
    bank.faults.add('drop-after-commit', { endpoint: 'captures', probe: false })
    bank.faults.add('bad-gateway', { endpoint: 'captures', times: null })
    expect(await client.capture({ paymentId: id })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    bank.faults.add('drop-after-commit', { endpoint: 'authorizations', probe: false })
    bank.faults.add('bad-gateway', { endpoint: 'authorizations', times: null })
    expect(await client.authorize({ amountCents: 77 })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    // A hold, its capture, and a hold that is perhaps that of the authorize.
    expect((await compared(gateway, await statementOf(bank))).run).toMatchObject({
      checked: 3,
      matched: 1,
      skipped: 2,
      found: 0,
    })
  })
})

describe('an orphan hold', () => {
  it('that nobody here asked for is told, with no payment', async () => {
    const { bank, gateway } = await scene()
    const id = await holdAtTheBank(bank, 1_234)
    const { found } = await compared(gateway, await statementOf(bank))
    expect(found).toMatchObject([
      {
        kind: 'ORPHAN_HOLD',
        bankReference: id,
        paymentId: null,
        ours: null,
        bank: { amountCents: 1_234, status: 'ACTIVE' },
      },
    ])
  })

  it('that a failed payment may have left is told with that payment; entered for it, the gateway releases it', async () => {
    const { client, bank, gateway } = await scene()
    const paymentId = await failedWithOrphan(client, bank, gateway, 4_321)
    await failedWithOrphan(client, bank, gateway, 4_322)
    const statement = await statementOf(bank)
    const { run, found } = await compared(gateway, statement)
    expect(found).toHaveLength(2)
    const { discrepancies } = await reconciliation(client, `rec_${run.id}`)
    const orphan = discrepancies.edges
      .map(({ node }) => node)
      .find(({ payment }) => payment?.id === paymentId)
    const [line] = statement.filter(({ amount }) => amount === '4321')
    expect(orphan).toMatchObject({
      kind: 'ORPHAN_HOLD',
      bankReference: line?.id,
      ours: [{ name: 'candidates', value: paymentId }],
      advice: expect.stringContaining('enter it for the right one') as string,
      mendable: false,
    })
    // Nothing was released by itself.
    await sweep(gateway)
    expect((await bank.transactions('VOID')).length).toBe(0)

    await client.query(
      `mutation ($input: EnterBankReferenceInput!) { enterBankReference(input: $input) { __typename } }`,
      { input: { paymentId, bankReference: line?.id, reason: 'INC-18' } },
    )
    // Known now, and about to be released.
    expect((await compared(gateway, await statementOf(bank))).run).toMatchObject({ skipped: 1, found: 1 })
    while ((await bank.transactions('VOID')).length === 0) await sweep(gateway)
    expect((await compared(gateway, await statementOf(bank))).run).toMatchObject({
      checked: 3,
      matched: 2,
      found: 1,
    })
  })

  it('over another amount is not told while its payment is in review, nor once it was released', async () => {
    const { client, bank, gateway } = await scene()
    bank.faults.add('other-amount', { endpoint: 'authorizations', probe: false })
    const unknown = await client.authorize()
    expect(unknown).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    // It is at the bank as it was told.
    await bank.sql`update transactions set amount_cents = amount_cents + 1`
    expect((await compared(gateway, await statementOf(bank))).run).toMatchObject({ skipped: 1, found: 0 })

    const input = { paymentId: unknown.payment?.id, outcome: 'NOT_CARRIED_OUT', reason: 'INC-19' }
    await client.query(`mutation ($input: CloseReviewInput!) { closeReview(input: $input) { __typename } }`, {
      input,
    })
    while ((await bank.transactions('VOID')).length === 0) await sweep(gateway)
    expect((await compared(gateway, await statementOf(bank))).run).toMatchObject({ matched: 2, found: 0 })
  })

  it('of another amount or another time is not laid at a payment’s door', async () => {
    const { client, bank, gateway } = await scene()
    await failedWithOrphan(client, bank, gateway, 5_000)
    await holdAtTheBank(bank, 5_001)
    const [left, other] = await statementOf(bank)
    if (left === undefined || other === undefined) throw new Error('two holds were expected')
    const later = new Date(Date.parse(left.time) + 3_600_000).toISOString()
    const { found } = await compared(gateway, [{ ...left, time: later }, other])
    expect(found.map(({ kind, paymentId }) => ({ kind, paymentId }))).toEqual([
      { kind: 'ORPHAN_HOLD', paymentId: null },
      { kind: 'ORPHAN_HOLD', paymentId: null },
    ])
  })
})

describe('what the bank has done and the receipt does not say', () => {
  it.each([
    ['captures', 'CAPTURE', { amount: 4_999 }],
    ['voids', 'VOID', {}],
  ])('a hold used by another of the bank’s %s', async (endpoint, type, more) => {
    const { client, bank, gateway } = await scene()
    const { id, authorizationId } = await authorized(client)
    await atTheBank(bank, endpoint, { authorization_id: authorizationId, ...more })
    const statement = await statementOf(bank)
    const { run, found } = await compared(gateway, statement)
    expect(run).toMatchObject({ checked: 2, matched: 1, found: 1 })
    expect(found).toMatchObject([
      {
        kind: 'STATE_DIFFERS',
        paymentId: id.slice(4),
        ours: { state: 'AUTHORIZED', authorizationId },
        bank: { type, referenceId: authorizationId },
      },
    ])
    // A statement of only a part of the time lacks that line, but the hold's own says that it was used.
    const part = await compared(gateway, statement.slice(0, 1))
    expect(part.found).toMatchObject([
      { kind: 'STATE_DIFFERS', bankReference: authorizationId, ours: { state: 'AUTHORIZED' } },
    ])
  })

  it('a refund', async () => {
    const { client, bank, gateway } = await scene()
    const { id, captureId } = await captured(client)
    await atTheBank(bank, 'refunds', { capture_id: captureId, amount: 4_999 })
    const statement = await statementOf(bank)
    expect((await compared(gateway, statement)).found).toMatchObject([
      {
        kind: 'STATE_DIFFERS',
        paymentId: id.slice(4),
        ours: { state: 'CAPTURED' },
        bank: { type: 'REFUND' },
      },
    ])
    // Whether or not the capture is on the same statement.
    const [, , refund] = statement
    if (refund === undefined) throw new Error('three lines were expected')
    expect((await compared(gateway, [refund])).found).toMatchObject([
      { kind: 'STATE_DIFFERS', paymentId: id.slice(4) },
    ])
  })

  it('money taken from a hold that the gateway was about to release', async () => {
    const { client, bank, gateway, database } = await scene()
    const paymentId = await failedWithOrphan(client, bank, gateway, 4_444)
    const [hold] = await bank.transactions('AUTHORIZATION')
    await database.sql`
      insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
      select ${hold?.id ?? ''}, o.id, o.payment_id, 4444, clock_timestamp(), clock_timestamp() from operations o
      where o.payment_id = ${paymentId.slice(4)}`
    await atTheBank(bank, 'captures', { authorization_id: hold?.id, amount: 4_444 })
    const { found } = await compared(gateway, await statementOf(bank))
    expect(new Set(found.map(({ kind }) => kind))).toEqual(new Set(['STATE_DIFFERS']))
    expect(found).toHaveLength(2)
  })

  it('things that no receipt has', async () => {
    const { bank, gateway } = await scene()
    const hold = await holdAtTheBank(bank, 1_111)
    await atTheBank(bank, 'captures', { authorization_id: hold, amount: 1_111 })
    expect((await compared(gateway, await statementOf(bank))).found.map(({ kind }) => kind)).toEqual([
      'NOT_IN_RECEIPTS',
      'NOT_IN_RECEIPTS',
    ])
  })
})

describe('what the receipt says and the statement does not', () => {
  it('is told when it lies well within the time of the statement', async () => {
    const { client, bank, gateway } = await scene()
    const payment = await captured(client)
    const lines = withADayAround(await statementOf(bank)).filter(({ type }) => type !== 'CAPTURE')
    const { run, found } = await compared(gateway, lines)
    // The hold's own line says CAPTURED; the two around it are nobody's.
    expect(run).toMatchObject({ checked: 4, matched: 1, found: 3 })
    expect(found.filter(({ kind }) => kind !== 'NOT_IN_RECEIPTS')).toMatchObject([
      {
        kind: 'NOT_AT_BANK',
        paymentId: payment.id.slice(4),
        bankReference: payment.captureId,
        ours: { state: 'CAPTURED', claim: 'CAPTURE' },
        bank: null,
      },
    ])
  })

  it.each(['AUTHORIZATION', 'VOID', 'REFUND'])('a lost %s', async (type) => {
    const { client, bank, gateway } = await scene()
    succeeded(await client.refund({ paymentId: (await captured(client)).id }))
    succeeded(await client.void({ paymentId: (await authorized(client)).id }))
    const lines = withADayAround(await statementOf(bank))
    const lost = lines.slice(1, -1).filter((line) => line.type === type)
    const { found } = await compared(
      gateway,
      lines.filter((line) => !lost.includes(line)),
    )
    const notAtBank = found.filter(({ kind }) => kind === 'NOT_AT_BANK')
    expect(notAtBank).toHaveLength(lost.length)
    expect(new Set(notAtBank.map(({ bankReference }) => bankReference))).toEqual(
      new Set(lost.map(({ id }) => id)),
    )
  })
})

/** Concluded a day after the bank had done it, and without a word of the bank when that was. */
async function concludedADayLater() {
  const { client, bank, gateway, ...rest } = await scene()
  const { id } = await authorized(client)
  bank.faults.add('drop-after-commit', { endpoint: 'captures', probe: false })
  bank.faults.add('bad-gateway', { endpoint: 'captures', probe: true, times: null })
  await client.capture({ paymentId: id })
  bank.faults.clear()
  let laterMs = DAY_MS
  gateway.clock = { ...gateway.clock, databaseTime: () => new Date(Date.now() + laterMs) }
  const captured = async () =>
    (await rest.database.sql`select from payments where state = 'CAPTURED' and capture_id is null`).length > 0
  while (!(await captured())) {
    laterMs += 5_000
    await sweep(gateway)
  }
  return { id, bank, gateway }
}
const DAY_MS = 24 * 3_600_000

describe('what was concluded long after it had happened, without an id', () => {
  const others = (fromMs: number, toMs: number): Line[] =>
    [fromMs, toMs].map((ms) => ({
      type: 'AUTHORIZATION',
      id: `auth_${randomUUID()}`,
      reference_id: '',
      amount: '100',
      status: 'VOIDED',
      time: new Date(Date.now() + ms).toISOString(),
    }))

  it('is not missed on the statement of the day on which it was concluded', async () => {
    const { gateway } = await concludedADayLater()
    const { found } = await compared(gateway, others(DAY_MS / 2, 1.5 * DAY_MS))
    expect(found.map(({ kind }) => kind)).toEqual(['NOT_IN_RECEIPTS', 'NOT_IN_RECEIPTS'])
  })

  it('nor on that of the day on which it happened, which has it', async () => {
    const { bank, gateway, id } = await concludedADayLater()
    const { found } = await compared(gateway, withADayAround(await statementOf(bank)))
    expect(found.filter(({ paymentId }) => paymentId !== null)).toMatchObject([
      { kind: 'ID_MISSING', paymentId: id.slice(4) },
    ])
  })

  it('and is missed on one of both days that does not have it', async () => {
    const { bank, gateway, id } = await concludedADayLater()
    const hold = (await statementOf(bank)).filter(({ type }) => type === 'AUTHORIZATION')
    const { found } = await compared(gateway, [...hold, ...others(-DAY_MS, 2 * DAY_MS)])
    expect(found.filter(({ paymentId }) => paymentId !== null)).toMatchObject([
      { kind: 'NOT_AT_BANK', paymentId: id.slice(4), ours: { claim: 'CAPTURE' } },
    ])
  })
})

describe('what both have, and differently', () => {
  it.each([
    ['the amount', { amount: '5000' }, 'AMOUNT_DIFFERS'],
    ['the id', { id: 'cap_another' }, 'ID_DIFFERS'],
  ])('%s', async (_, change, kind) => {
    const { client, bank, gateway } = await scene()
    const { id, captureId } = await captured(client)
    const lines = (await statementOf(bank)).map((line) =>
      line.type === 'CAPTURE' ? { ...line, ...change } : line,
    )
    const { found } = await compared(gateway, lines)
    expect(found).toMatchObject([{ kind, paymentId: id.slice(4), ours: { captureId, amountCents: 4_999 } }])
  })

  it('the authorization that a capture belongs to', async () => {
    const { client, bank, gateway } = await scene()
    const [one, other] = [await captured(client), await authorized(client)]
    const lines = (await statementOf(bank)).map((line) =>
      line.type === 'CAPTURE' ? { ...line, reference_id: other.authorizationId ?? '' } : line,
    )
    const { found } = await compared(gateway, lines)
    expect(found).toContainEqual(
      expect.objectContaining({
        kind: 'PARENT_DIFFERS',
        paymentId: one.id.slice(4),
        bankReference: one.captureId,
      }),
    )
    expect(found).toContainEqual(
      expect.objectContaining({ kind: 'STATE_DIFFERS', paymentId: other.id.slice(4) }),
    )
  })

  it('a line that is there twice', async () => {
    const { client, bank, gateway } = await scene()
    const { authorizationId } = await authorized(client)
    const [line] = await statementOf(bank)
    if (line === undefined) throw new Error('a line was expected')
    const { run, found } = await compared(gateway, [line, { ...line, amount: '1' }])
    expect(run).toMatchObject({ checked: 2, matched: 1, found: 1 })
    expect(found).toMatchObject([{ kind: 'DUPLICATE_LINE', bankReference: authorizationId }])
  })
})

describe('an id that only the receipt lacks', () => {
  it('of a capture is entered once the bank has confirmed it, with an audit line; then a refund works', async () => {
    const { client, bank, gateway } = await scene()
    const paymentId = await capturedWithoutId(client, bank, gateway)
    expect(await client.refund({ paymentId })).toMatchObject({ code: 'BANK_REFERENCE_MISSING' })
    const { run, found } = await compared(gateway, await statementOf(bank))
    const [missing] = found
    expect(found).toMatchObject([{ kind: 'ID_MISSING', paymentId: paymentId.slice(4) }])
    if (missing === undefined) throw new Error('nothing was found')

    expect(await mend(gateway, missing, 'cli:ops')).toBeNull()
    const { discrepancies } = await reconciliation(client, `rec_${run.id}`)
    expect(discrepancies.edges[0]?.node).toMatchObject({
      mendable: true,
      mendedAt: expect.any(String) as string,
    })
    expect(
      await client.query(
        `query ($id: ID!) { payment(by: { id: $id }) { captureId auditLines { action actor reason } } }`,
        { id: paymentId },
      ),
    ).toEqual({
      payment: {
        captureId: missing.bankReference,
        auditLines: [
          {
            action: 'ENTER_BANK_REFERENCE',
            actor: 'cli:ops',
            reason: `Found on the bank's statement by reconciliation rec_${run.id}.`,
          },
        ],
      },
    })
    succeeded(await client.refund({ paymentId }))
    expect((await compared(gateway, await statementOf(bank))).run).toMatchObject({ checked: 3, matched: 3 })
  })

  it('is not entered when the bank does not confirm it', async () => {
    const { client, bank, gateway, database } = await scene()
    const paymentId = await capturedWithoutId(client, bank, gateway)
    const { found } = await compared(gateway, await statementOf(bank))
    const [missing] = found
    if (missing === undefined) throw new Error('nothing was found')
    bank.faults.add('other-amount', { endpoint: 'captures', method: 'GET' })
    expect(await mend(gateway, missing, 'cli:ops')).toMatch(/another amount/)
    const rows = await database.sql`select capture_id from payments where id = ${paymentId.slice(4)}`
    expect(rows).toEqual([{ captureId: null }])
  })

  it('is left to whoever reviews the payment', async () => {
    const { client, bank, gateway, database } = await scene()
    const paymentId = await capturedWithoutId(client, bank, gateway)
    await database.sql`
      update payments set review_reason = 'something else', review_since = now() where id = ${paymentId.slice(4)}`
    const { found } = await compared(gateway, await statementOf(bank))
    const [missing] = found
    if (missing === undefined) throw new Error('nothing was found')
    expect(await mend(gateway, missing, 'cli:ops')).toBe('the payment is under review')
    const rows =
      await database.sql`select capture_id, review_reason from payments where id = ${paymentId.slice(4)}`
    expect(rows).toEqual([{ captureId: null, reviewReason: 'something else' }])
  })

  it('of a void is settled as a late fact', async () => {
    const { client, bank, gateway, database } = await scene()
    const { id } = await authorized(client)
    bank.faults.add('drop-after-commit', { endpoint: 'voids', probe: false })
    await client.void({ paymentId: id })
    const voided = async () =>
      await database.sql<{ state: string; voidId: string | null }[]>`select state, void_id from payments`
    while ((await voided())[0]?.state !== 'VOIDED') await sweep(gateway)
    const { found } = await compared(gateway, await statementOf(bank))
    const [missing] = found
    if (missing === undefined) throw new Error('nothing was found')
    expect(await mend(gateway, missing, 'cli:ops')).toBeNull()
    expect(await voided()).toEqual([{ state: 'VOIDED', voidId: missing.bankReference }])
    expect((await compared(gateway, await statementOf(bank))).run).toMatchObject({ checked: 2, matched: 2 })
  })
})

describe('stopped and taken up again', () => {
  const strangers = (count: number): Line[] =>
    Array.from({ length: count }, (_, n) => ({
      type: 'AUTHORIZATION',
      id: `auth_${randomUUID()}`,
      reference_id: '',
      amount: String(n + 1),
      status: 'VOIDED',
      time: new Date(Date.UTC(2026, 0, 1, 0, 0, n)).toISOString(),
    }))
  /** Ends a run when it says so for the `times`th time. */
  function stopAfter(times: number) {
    const stopping = new AbortController()
    let said = 0
    const onProgress = () => {
      said += 1
      if (said === times) stopping.abort()
    }
    return { signal: stopping.signal, onProgress }
  }

  it('goes on with the next line and finds nothing twice', async () => {
    const { gateway } = await scene()
    const held = await taken(gateway)
    const file = await fileOf(strangers(2_500))
    // Two batches to load, one compared.
    await expect(reconcile(gateway, held, file, stopAfter(3))).rejects.toMatchObject({ because: 'ASKED' })
    const [{ phase, cursor, found } = { phase: null, cursor: null, found: null }] = await gateway.sql<
      Reconciliation[]
    >`select * from reconciliations`
    expect({ phase, cursor, found }).toEqual({ phase: 'LINES', cursor: '1000', found: 1_000 })

    await gateway.sql`update reconciliations set leased_until = clock_timestamp()`
    const again = await takeUp(gateway, held.id)
    if (again === null) throw new Error('not taken up')
    expect(await reconcile(gateway, again, null, watching)).toMatchObject({ checked: 2_500, found: 2_500 })
    const rows =
      await gateway.sql`select count(distinct bank_reference)::int as ids, count(*)::int as all from discrepancies`
    expect(rows).toEqual([{ ids: 2_500, all: 2_500 }])
    // Nothing of the statement stays behind.
    expect(await gateway.sql`select from statement_lines`).toHaveLength(0)
  })

  it('connections that are cut in the middle change nothing', async () => {
    const { gateway, database } = await scene()
    // By connections of another name: two that cut at one time would cut each other.
    const cut = async () => {
      await database.driver`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'ficmart-gateway'`
    }
    const cuts: Promise<void>[] = []
    const onProgress = () => void cuts.push(cut())
    const held = await taken(gateway)
    const run = await reconcile(gateway, held, await fileOf(strangers(2_500)), { ...watching, onProgress })
    await Promise.all(cuts)
    expect(cuts.length).toBeGreaterThan(4)
    expect(run).toMatchObject({ lines: 2_500, checked: 2_500, found: 2_500 })
    expect(await gateway.sql`select count(*)::int as rows from discrepancies`).toEqual([{ rows: 2_500 }])
  })

  it('a query that the driver answers with nothing, as it does when its connection dies, does not end the run', async () => {
    const { gateway } = await scene()
    const held = await taken(gateway)
    let lost = 0
    const apply = (sql: object, self: unknown, args: [string[]]): unknown => {
      if (!String(args[0]).includes('left join lateral (select true as is_row') || lost >= 2)
        return Reflect.apply(sql as () => unknown, self, args)
      lost += 1
      return Promise.resolve([])
    }
    const forgetful: Gateway = { ...gateway, sql: new Proxy(gateway.sql, { apply }) as Gateway['sql'] }
    const run = await reconcile(forgetful, held, await fileOf(strangers(10)), watching)
    expect({ lost, checked: run.checked }).toEqual({ lost: 2, checked: 10 })
  })

  it('a load that was interrupted needs its file again, and begins anew', async () => {
    const { gateway } = await scene()
    const held = await taken(gateway)
    const file = await fileOf(strangers(4_500))
    await expect(reconcile(gateway, held, file, stopAfter(1))).rejects.toMatchObject({ because: 'ASKED' })
    expect(await gateway.sql`select phase from reconciliations`).toEqual([{ phase: 'LOAD' }])
    await expect(reconcile(gateway, held, null, watching)).rejects.toThrow(/with its file/)
    expect(await reconcile(gateway, held, file, watching)).toMatchObject({
      lines: 4_500,
      checked: 4_500,
      found: 4_500,
    })
  })

  it('is refused when another statement was loaded since', async () => {
    const { gateway } = await scene()
    const held = await taken(gateway)
    const file = await fileOf(strangers(1_500))
    await expect(reconcile(gateway, held, file, stopAfter(2))).rejects.toMatchObject({ because: 'ASKED' })
    await gateway.sql`
      update reconciliations set stopped_at = clock_timestamp(), holder = null, leased_until = null`
    await compared(gateway, strangers(1))
    const again = await takeUp(gateway, held.id)
    if (again === null) throw new Error('not taken up')
    await expect(reconcile(gateway, again, null, watching)).rejects.toThrow(/another was loaded since/)
  })

  it('a process that has lost it neither empties the statement nor writes a line of it', async () => {
    const { gateway } = await scene()
    const held = await taken(gateway)
    const file = await fileOf(strangers(1_500))
    await expect(reconcile(gateway, held, file, stopAfter(2))).rejects.toMatchObject({ because: 'ASKED' })
    await gateway.sql`update reconciliations set leased_until = clock_timestamp()`
    await takeUp(gateway, held.id)
    await expect(reconcile(gateway, held, file, watching)).rejects.toMatchObject({ because: 'LEASE_LOST' })
    expect(await gateway.sql`select from statement_lines`).toHaveLength(1_500)
  })
})

/** Nothing here looks at receipts. */
const { gateway: reader } = await scene()

describe('the file', () => {
  const HOLD = 'auth_01234567-89ab-7def-8123-456789abcdef'
  const good = ['AUTHORIZATION', HOLD, '', '4999', 'ACTIVE', '2026-11-24T09:30:00Z']

  it('may have its columns in any order, more of them, quotes, a byte order mark and CRLF', async () => {
    const text = `\uFEFF"Time","Status",branch,"amount",Reference_ID,id,type\r\n"2026-11-24 09:30:00.123456+01:00",active,"Berlin, Mitte",4999,"",${HOLD},"authorization"\r\n\r\n`
    const run = await reconcile(reader, await taken(reader), await written(text), watching)
    expect(run).toMatchObject({ lines: 1, found: 1, spanFrom: new Date('2026-11-24T08:30:00.123Z') })
  })

  async function refusalOf(file: string): Promise<string> {
    const held = await taken(reader)
    const refusal: unknown = await reconcile(reader, held, file, watching).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(StatementRefused)
    const stopped = await stop(reader, held.id, 'refused')
    expect(stopped).toMatchObject({ checked: 0, found: 0 })
    return String(refusal)
  }

  const line = (at: number, value: string) =>
    good.map((field, column) => (column === at ? value : field)).join(',')
  it.each([
    ['an unknown type', line(0, 'FEE'), /line 3: type must be AUTHORIZATION, CAPTURE/],
    [
      'an id of another kind',
      line(1, 'cap_4111111111111111'),
      /line 3: id must be the id of AUTHORIZATION, auth_/,
    ],
    ['a reference where none can be', line(2, 'auth_4111111111111111'), /line 3: reference_id must be empty/],
    ['an amount with decimals', line(3, '49.99'), /line 3: amount must be a whole number of cents/],
    ['an unknown status', line(4, 'SETTLED'), /line 3: status must be ACTIVE or CAPTURED or VOIDED/],
    ['a time without an offset', line(5, '2026-11-24T09:30:00'), /line 3: time must be RFC 3339/],
    ['a card as an id', line(1, '4111111111111111'), /line 3: id must be the id of AUTHORIZATION/],
    ['a field too few', good.slice(1).join(','), /line 3 is no CSV that can be read \(CSV_RECORD_INCONS/],
    ['a quote in the middle', line(2, '4111"'), /line 3 is no CSV that can be read \(INVALID_OPENING_QUOTE/],
    [
      'a quote that is never closed',
      `AUTHORIZATION,"4111\n${'a line below it\n'.repeat(5)}`,
      /line 3 is no CSV that can be read \(CSV_QUOTE_NOT_CLOSED/,
    ],
    [
      'a quote that is never closed in a long file',
      `AUTHORIZATION,"${'4111111111111111\n'.repeat(2_000)}`,
      /line 3 is no CSV that can be read \(CSV_MAX_RECORD_SIZE/,
    ],
  ])('is refused whole for %s, by line and column, without the value', async (_, bad, message) => {
    const refusal = await refusalOf(await written(`${COLUMNS.join(',')}\n${good.join(',')}\n${bad}\n`))
    expect(refusal).toMatch(message)
    expect(refusal).not.toMatch(/4111|49\.99/)
  })

  it.each([
    [
      'lacks a column',
      'type,id,amount,status\nAUTHORIZATION,x,1,ACTIVE\n',
      /lacks the columns reference_id, time/,
    ],
    ['has no line', `${COLUMNS.join(',')}\n`, /has no line/],
    ['is empty', '', /has no line/],
  ])('is refused when it %s', async (_, text, message) => {
    expect(await refusalOf(await written(text))).toMatch(message)
  })

  it('is refused when it is not there', async () => {
    expect(await refusalOf(join(folder, 'none.csv'))).toMatch(/cannot be read \(ENOENT\)/)
  })
})
