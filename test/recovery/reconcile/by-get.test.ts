import { describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/gateway.ts'
import { reconcile } from '../../../src/recovery/reconcile.ts'
import { begin } from '../../../src/recovery/reconcile/begin.ts'
import { EndsEarly, takeUp } from '../../../src/recovery/reconcile/runs.ts'
import { reconcileWhatIsDue } from '../../../src/recovery/reconcile/schedule.ts'
import type { FaultKind } from '../../../src/simulator/faults.ts'
import { startTestBank } from '../../support/bank.ts'
import type { TestBank } from '../../support/bank.ts'
import { authorized, captured, succeeded } from '../../support/client.ts'
import type { Client } from '../../support/client.ts'
import { testDatabase } from '../../support/database.ts'
import { startTestGateway } from '../../support/gateway.ts'
import { reconciliation, start } from '../../support/reconciliation.ts'

/** The ops desk asks whether the bank still has what the receipts say; and a bank that says nothing proves nothing. */

/** A gateway with books of its own, since a reconciliation looks at all of them. */
async function scene(options: { maxInFlight?: number } = {}) {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const at = { databaseUrl: database.url, bankUrl: bank.url }
  const { client, gateway, logged } = startTestGateway({ ...at, bank: options })
  const never = new AbortController().signal
  return {
    database,
    bank,
    client,
    gateway,
    logged,
    another: () => startTestGateway(at).gateway,
    /** What a gateway process does every few seconds. */
    due: (by = gateway, everyHours = 0) => reconcileWhatIsDue(by, everyHours, never),
  }
}

async function oneOfEach(client: Client): Promise<void> {
  await authorized(client)
  await captured(client)
  const { id } = await captured(client)
  succeeded(await client.refund({ paymentId: id }))
  succeeded(await client.void({ paymentId: (await authorized(client)).id }))
}

const asked = ({ received }: TestBank) =>
  received.filter(({ method, path }) => method === 'GET' && path !== '/health').map(({ path }) => path)

describe('when the bank has what the receipts say', () => {
  it('every id that can be asked for is, and all agree', async () => {
    const { client, bank, due } = await scene()
    await oneOfEach(client)
    const { id } = await start(client)
    await due()
    expect(await reconciliation(client, id)).toMatchObject({
      kind: 'GET',
      status: 'FINISHED',
      actor: 'ficmart',
      progress: 1,
      checked: 7,
      matched: 7,
      skipped: 0,
      discrepancyCount: 0,
      discrepancies: { edges: [] },
    })
    expect(new Set(asked(bank)).size).toBe(7)
  })

  it('an operation that recovery is at work on is skipped, and counted', async () => {
    const { client, bank, due } = await scene()
    const { id: paymentId } = await authorized(client)
    bank.faults.add('bad-gateway', { endpoint: 'captures', times: null })
    expect(await client.capture({ paymentId })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    const { id } = await start(client)
    await due()
    expect(await reconciliation(client, id)).toMatchObject({ checked: 2, matched: 1, skipped: 1 })
  })

  it('what is older than the days asked for is left out', async () => {
    const { client, gateway, bank } = await scene()
    await authorized(client)
    const token = crypto.randomUUID()
    const answer = await begin(gateway, { kind: 'GET', actor: 'test', days: 1e-9 }, token)
    if (!('begun' in answer)) throw new Error('another is under way')
    const held = await takeUp(gateway, answer.begun.id, token)
    if (held === null) throw new Error('not taken up')
    const watching = { signal: new AbortController().signal, onProgress: () => {} }
    expect(await reconcile(gateway, held, null, watching)).toMatchObject({ checked: 0 })
    expect(asked(bank)).toEqual([])
  })

  const passing: FaultKind[] = ['chaos', 'drop-before', 'database-down', 'bad-gateway', 'malformed']
  it.each(passing)('a passing %s is asked again, and nothing is concluded from it', async (what) => {
    const { client, bank, due } = await scene()
    await authorized(client)
    bank.faults.add(what, { endpoint: 'authorizations', method: 'GET' })
    const { id } = await start(client)
    await due()
    expect(await reconciliation(client, id)).toMatchObject({ status: 'FINISHED', checked: 1, matched: 1 })
    expect(asked(bank)).toHaveLength(2)
  })
})

describe('a discrepancy', () => {
  it.each([
    ['other-amount', 'captures', 'AMOUNT_DIFFERS', { name: 'amountCents', value: '5000' }],
    ['other-currency', 'authorizations', 'CURRENCY_DIFFERS', { name: 'currency', value: 'EUR' }],
    ['other-parent', 'captures', 'PARENT_DIFFERS', { name: 'amountCents', value: '4999' }],
  ] as const)('of %s is told with both sides', async (what, endpoint, kind, said) => {
    const { client, bank, due } = await scene()
    const payment = await captured(client)
    bank.faults.add(what, { endpoint, method: 'GET' })
    const { id } = await start(client)
    await due()
    const run = await reconciliation(client, id)
    expect(run).toMatchObject({ status: 'FINISHED', checked: 2, matched: 1, discrepancyCount: 1 })
    const [found] = run.discrepancies.edges.map(({ node }) => node)
    expect(found).toMatchObject({
      kind,
      payment: { id: payment.id },
      bankReference: endpoint === 'captures' ? payment.captureId : payment.authorizationId,
      mendable: false,
    })
    expect(found?.ours).toContainEqual({ name: 'amountCents', value: '4999' })
    expect(found?.ours).toContainEqual({ name: 'state', value: 'CAPTURED' })
    expect(found?.bank).toContainEqual(said)
  })

  it('is an id that a healthy bank does not know, and says so twice', async () => {
    const { client, bank, due } = await scene()
    const [lost] = [await captured(client), await captured(client)]
    await bank.sql`delete from transactions where id = ${lost.captureId}`
    const { id } = await start(client)
    await due()
    const run = await reconciliation(client, id)
    expect(run).toMatchObject({ status: 'FINISHED', note: null, checked: 4, matched: 3, discrepancyCount: 1 })
    expect(run.discrepancies.edges[0]?.node).toMatchObject({
      kind: 'NOT_AT_BANK',
      payment: { id: lost.id },
      bankReference: lost.captureId,
      bank: null,
      advice: expect.stringMatching(/reset/) as string,
    })
    expect(asked(bank).filter((path) => path.endsWith(String(lost.captureId)))).toHaveLength(2)
    expect(bank.received.filter(({ path }) => path === '/health')).toHaveLength(2)
  })

  it('is an answer of a healthy bank that nobody can understand', async () => {
    const { client, bank, due } = await scene()
    await authorized(client)
    bank.faults.add('html', { endpoint: 'authorizations', method: 'GET', times: null })
    const { id } = await start(client)
    await due()
    const run = await reconciliation(client, id)
    expect(run.discrepancies.edges.map(({ node }) => node.kind)).toEqual(['UNCLEAR_ANSWER'])
  })

  it('is alarming in the log, once for a run, and without card data', async () => {
    const { client, bank, due, logged } = await scene()
    await authorized(client)
    bank.faults.add('other-amount', { endpoint: 'authorizations', method: 'GET' })
    await start(client)
    await due()
    const errors = logged
      .map((line) => JSON.parse(line) as { level: number; msg: string })
      .filter(({ level }) => level >= 50)
    expect(errors.map(({ msg }) => msg)).toEqual(['receipts and bank differ'])
  })
})

describe('a bank that was reset', () => {
  it('is told in one line after the first twenty ids; taken up again, the run goes on regardless', async () => {
    const { client, bank, due } = await scene()
    for (let n = 0; n < 23; n += 1) await authorized(client)
    await bank.sql`delete from transactions`
    const { id } = await start(client)
    await due()
    expect(await reconciliation(client, id)).toMatchObject({
      status: 'STOPPED',
      checked: 20,
      discrepancyCount: 20,
      note: expect.stringMatching(
        /^The bank knows none of the first 20 ids .* probably reset, or BANK_URL/,
      ) as string,
    })
    expect(new Set(asked(bank)).size).toBe(20)

    expect(await start(client, { resume: true })).toMatchObject({ id, status: 'UNDER_WAY', checked: 20 })
    await due()
    expect(await reconciliation(client, id)).toMatchObject({
      status: 'FINISHED',
      checked: 23,
      discrepancyCount: 23,
    })
  })

  it('is not concluded while it is not healthy, though it knows no id', async () => {
    const { client, bank, due, database } = await scene()
    for (let n = 0; n < 4; n += 1) await authorized(client)
    bank.faults.add('database-down', { method: 'GET', times: null })
    bank.faults.add('unhealthy', { times: null })
    const { id } = await start(client)
    await due()
    expect(await reconciliation(client, id)).toMatchObject({
      status: 'UNDER_WAY',
      note: 'The bank does not answer. Nothing was concluded from that.',
      checked: 0,
      discrepancyCount: 0,
    })
    // It is left for some minutes; then whichever process looks goes on.
    bank.faults.clear()
    await due()
    expect(await reconciliation(client, id)).toMatchObject({ checked: 0 })
    await database.sql`update reconciliations set leased_until = clock_timestamp()`
    await due()
    expect(await reconciliation(client, id)).toMatchObject({
      status: 'FINISHED',
      note: null,
      checked: 4,
      matched: 4,
    })
  })
})

describe('one run at a time', () => {
  it('a second one is refused, and shown the first', async () => {
    const { client } = await scene()
    const { id } = await start(client)
    const refused = await start(client)
    expect(
      (await client.query<{ all: { edges: unknown[] } }>(`{ all: reconciliations { edges { cursor } } }`)).all
        .edges,
    ).toHaveLength(1)
    expect(refused).toMatchObject({
      __typename: 'ReconciliationRefused',
      message: expect.any(String) as string,
      id,
    })
  })

  it('two processes that look at once ask the bank once', async () => {
    const { client, bank, due, another } = await scene()
    await oneOfEach(client)
    const { id } = await start(client)
    await Promise.all([due(), due(another())])
    expect(await reconciliation(client, id)).toMatchObject({ status: 'FINISHED', checked: 7 })
    expect(asked(bank)).toHaveLength(7)
  })

  it('a process that is gone is followed by another, which goes on where it was; what the first one still says is not heard', async () => {
    const { client, bank, due, gateway, database, another } = await scene()
    for (let n = 0; n < 23; n += 1) await authorized(client)
    await bank.sql`update transactions set amount_cents = 1 where id = (select min(id) from transactions)`
    const { id } = await start(client)
    const gone = await takeUp(gateway, id.slice(4))
    if (gone === null) throw new Error('not taken up')
    let batches = 0
    const hangs = reconcile(gateway, gone, null, {
      signal: new AbortController().signal,
      onProgress: () => {
        batches += 1
        // The next save of this process comes too late.
        if (batches === 1)
          lateGate = bank.faults.hold('before', { endpoint: 'authorizations', method: 'GET' })
      },
    })
    let lateGate: ReturnType<typeof bank.faults.hold> | undefined
    await bank.until(() => lateGate !== undefined)
    await lateGate?.arrived
    expect(await takeUp(another(), id.slice(4))).toBeNull()
    await database.sql`update reconciliations set leased_until = clock_timestamp()`
    const follows = due()
    lateGate?.open()
    await expect(hangs).rejects.toMatchObject({ because: 'LEASE_LOST' })
    await follows
    expect(await reconciliation(client, id)).toMatchObject({
      status: 'FINISHED',
      checked: 23,
      matched: 22,
      discrepancyCount: 1,
    })
  })

  it('one that was stopped goes on where it was', async () => {
    const { client, bank, gateway, due } = await scene()
    for (let n = 0; n < 23; n += 1) await authorized(client)
    const { id } = await start(client)
    const held = await takeUp(gateway, id.slice(4))
    if (held === null) throw new Error('not taken up')
    const stopping = new AbortController()
    const watching = { signal: stopping.signal, onProgress: () => stopping.abort() }
    await expect(reconcile(gateway, held, null, watching)).rejects.toThrow(EndsEarly)
    const { result } = await client.query<{ result: unknown }>(
      `mutation ($id: ID!) { result: stopReconciliation(input: { reconciliationId: $id }) { ... on ReconciliationAccepted { reconciliation { status note checked } } } }`,
      { id },
    )
    expect(result).toEqual({
      reconciliation: { status: 'STOPPED', note: 'Stopped by ficmart.', checked: 20 },
    })
    await due()
    expect(await reconciliation(client, id)).toMatchObject({ status: 'STOPPED', checked: 20 })

    await start(client, { resume: true })
    await due()
    expect(await reconciliation(client, id)).toMatchObject({ status: 'FINISHED', checked: 23, matched: 23 })
    expect(asked(bank)).toHaveLength(23)
  })

  it('a process that shuts down in the middle asks nothing more of the bank', async () => {
    const { client, bank, due, another, gateway } = await scene()
    for (let n = 0; n < 15; n += 1) await authorized(client)
    const gate = bank.faults.hold('before', { method: 'GET' })
    const { id } = await start(client)
    const run = due()
    await bank.until(() => asked(bank).length === 8)
    gateway.inFlight.draining = true
    gate.open()
    await run
    expect(asked(bank)).toHaveLength(8)
    expect(await reconciliation(client, id)).toMatchObject({ status: 'UNDER_WAY', checked: 8 })
    await due(another())
    expect(await reconciliation(client, id)).toMatchObject({ status: 'FINISHED', checked: 15, matched: 15 })
  })

  it('a process that shuts down leaves it to the next', async () => {
    const { client, bank, due, another, gateway } = await scene()
    await oneOfEach(client)
    const { id } = await start(client)
    gateway.inFlight.draining = true
    await due()
    expect(asked(bank)).toEqual([])
    await due(another())
    expect(await reconciliation(client, id)).toMatchObject({ status: 'FINISHED', checked: 7 })
  })
})

describe('by schedule', () => {
  it('begins when the last one is older than the hours set, and not before', async () => {
    const { client, due, gateway, database } = await scene()
    await authorized(client)
    await due(gateway, 24)
    const all = `{ reconciliations { edges { node { actor status checked } } } }`
    expect(await client.query(all)).toEqual({ reconciliations: { edges: [] } })

    await database.sql`update schema_files set applied_at = applied_at - interval '24 hours'`
    await due(gateway, 0)
    expect(await client.query(all)).toEqual({ reconciliations: { edges: [] } })
    await due(gateway, 24)
    await due(gateway, 24)
    expect(await client.query(all)).toEqual({
      reconciliations: { edges: [{ node: { actor: 'gateway', status: 'FINISHED', checked: 1 } }] },
    })
  })
})

describe('payments come first', () => {
  /** A clock that tells when the run has waited, and lets it wait no longer than a turn of the loop. */
  function watched(gateway: { clock: typeof systemClock }) {
    let waits = 0
    let wanted = { waits: Number.POSITIVE_INFINITY, reached: () => {} }
    gateway.clock = {
      ...systemClock,
      sleep: async () => {
        waits += 1
        if (waits >= wanted.waits) wanted.reached()
        await new Promise((resolve) => setImmediate(resolve))
      },
    }
    return {
      waited: (times: number) =>
        new Promise<void>((reached) => {
          wanted = { waits: waits + times, reached }
        }),
    }
  }

  it('the bank is not asked while half of its places are taken', async () => {
    const { client, bank, gateway, due } = await scene({ maxInFlight: 2 })
    await oneOfEach(client)
    const { id: paymentId } = await authorized(client)
    const gate = bank.faults.hold('before', { endpoint: 'captures', method: 'POST' })
    const capture = client.capture({ paymentId })
    await gate.arrived
    const clock = watched(gateway)
    const { id } = await start(client)
    const run = due()
    await clock.waited(20)
    expect(asked(bank)).toEqual([])
    gate.open()
    succeeded(await capture)
    await run
    expect(await reconciliation(client, id)).toMatchObject({ status: 'FINISHED' })
  })

  it('and never takes more than half of them itself', async () => {
    const { client, bank, gateway, due } = await scene({ maxInFlight: 4 })
    await oneOfEach(client)
    const gate = bank.faults.hold('before', { method: 'GET' })
    const clock = watched(gateway)
    await start(client)
    const run = due()
    await gate.arrived
    await clock.waited(20)
    expect(gateway.bank.state()).toMatchObject({ inFlight: 2, queued: 0 })
    expect((await authorized(client)).state).toBe('AUTHORIZED')
    gate.open()
    await run
  })
})
