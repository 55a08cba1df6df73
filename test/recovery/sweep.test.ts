import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { sweep } from '../../src/recovery/sweep.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway, startTestGateway } from '../support/gateway.ts'

/** A process that dies in the middle leaves nothing stuck: another one asks the bank and settles, with no client's help. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const env = {
  DATABASE_URL: database.url,
  BANK_URL: bank.url,
  BANK_ATTEMPT_TIMEOUT_MS: '1000',
  BANK_QUIET_PERIOD_MS: '200',
  SWEEP_EVERY_MS: '50',
}
const here = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, clientName: 'dev' })

async function stateOf(orderId: string): Promise<string> {
  const [row] = await database.sql<
    { state: string }[]
  >`select state from payments where order_id = ${orderId}`
  return row?.state ?? 'none'
}

describe.each(['before', 'after-commit', 'after-store'] as const)(
  'a gateway killed while its request is at the bank (%s)',
  (at) => {
    it.each([
      ['capture', 'CAPTURED'],
      ['void', 'VOIDED'],
    ] as const)('has its %s completed, once, by the next one', async (operation, state) => {
      const orderId = randomUUID()
      const { id } = await authorized(here.client, { orderId })
      const doomed = await spawnGateway({ ...env, SWEEP_EVERY_MS: '1000000' })
      const gate = bank.faults.hold(at, { endpoint: `${operation}s`, probe: false })
      const unanswered = doomed.client[operation]({ paymentId: id }).catch(() => null)
      await gate.arrived
      doomed.child.kill('SIGKILL')
      await doomed.exited
      // The bank has seen the connection go.
      await bank.until((received) => received.at(-1)?.over === true)
      gate.open()
      expect(await unanswered).toBeNull()
      while ((await stateOf(orderId)) === 'AUTHORIZED') await sweep(here.gateway)
      expect(await stateOf(orderId)).toBe(state)
      const [payment] = await database.sql<
        { authorizationId: string }[]
      >`select authorization_id from payments where order_id = ${orderId}`
      const uses = (await bank.transactions()).filter((row) => row.reference_id === payment?.authorizationId)
      expect(uses).toHaveLength(1)
    })

    it('has its authorize found by its key, or failed and marked', async () => {
      const orderId = randomUUID()
      const doomed = await spawnGateway({ ...env, SWEEP_EVERY_MS: '1000000' })
      const gate = bank.faults.hold(at, { endpoint: 'authorizations', probe: false })
      const unanswered = doomed.client.authorize({ orderId }).catch(() => null)
      await gate.arrived
      doomed.child.kill('SIGKILL')
      await doomed.exited
      // The bank has seen the connection go.
      await bank.until((received) => received.at(-1)?.over === true)
      gate.open()
      expect(await unanswered).toBeNull()
      while ((await stateOf(orderId)) === 'PENDING') await sweep(here.gateway)
      expect(await stateOf(orderId)).toBe(at === 'after-store' ? 'AUTHORIZED' : 'FAILED')
    })
  },
)

describe('the sweeper', () => {
  it('of a running gateway does it by itself', async () => {
    const orderId = randomUUID()
    bank.faults.add('drop-before', { endpoint: 'authorizations', probe: false })
    expect(await here.client.authorize({ orderId })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    const asked = bank.received.length
    const { key } = bank.received.findLast(({ path }) => path.endsWith('/authorizations')) ?? {}
    const gateway = await spawnGateway(env)
    // It asks three times; one that is stopped settles first what it knows.
    await bank.until(
      (received) =>
        received.slice(asked).filter((line) => line.key === key && line.probe && line.over).length >= 3,
    )
    gateway.child.kill('SIGTERM')
    expect(await gateway.exited).toBe(0)
    expect(await stateOf(orderId)).toBe('FAILED')
  })
  it('of two processes at once settles an operation once', async () => {
    const orderId = randomUUID()
    const other = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url, clientName: 'dev' })
    const { id } = await authorized(here.client, { orderId })
    bank.faults.add('bad-gateway', { endpoint: 'captures', times: 12 })
    expect(await here.client.capture({ paymentId: id })).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    while ((await stateOf(orderId)) === 'AUTHORIZED')
      await Promise.all([sweep(here.gateway), sweep(other.gateway)])
    const history =
      await database.sql`select version from transitions where payment_id = ${id.slice(4)} order by version`
    expect(history.map((row) => row['version'])).toEqual([1, 2, 3])
    expect(
      (await bank.transactions('CAPTURE')).filter((row) => row.amount_cents === 4_999).length,
    ).toBeGreaterThan(0)
  })
})
