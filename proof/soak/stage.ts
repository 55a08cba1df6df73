import postgres from 'postgres'
import { startSimulator } from '../../src/simulator/simulator.ts'
import type { Simulator } from '../../src/simulator/simulator.ts'
import { privateServer } from '../../test/support/private-server.ts'
import type { PrivateServer } from '../../test/support/private-server.ts'
import { startReceiver } from '../support/receiver.ts'
import type { Receiver } from '../support/receiver.ts'
import { CARDS } from './cards.ts'
import { startGateways } from './gateways.ts'
import type { Gateways } from './gateways.ts'

/** A bank and a gateway, each with a Postgres server of its own, that can be hurt without the other. */
export type Stage = {
  bankServer: PrivateServer
  receiptsServer: PrivateServer
  bank: Simulator
  gateways: Gateways
  /** FicMart's end of the webhooks. */
  receiver: Receiver
  /** It refuses some of them. */
  isReceiverIll: { now: boolean }
  end(): Promise<void>
}

const GATEWAYS = 3
const WEBHOOKS_REFUSED = 0.1
/** Enough for every payment there can be, twice. */
export const START_CENTS = 1_000_000_000_000

export async function setStage(scale: number, random: () => number): Promise<Stage> {
  const [bankServer, receiptsServer] = await Promise.all([privateServer(), privateServer()])
  await Promise.all([bankServer.createDatabase('bank'), receiptsServer.createDatabase('gateway')])
  const bank = await startSimulator({
    databaseUrl: bankServer.url('bank'),
    port: 0,
    settings: {
      minLatencyMs: 100 * scale,
      maxLatencyMs: 2_000 * scale,
      failureRate: 0,
      authExpiryHours: 168,
      writeLimitMs: 15_000 * scale,
    },
    random,
    receivedMax: Infinity,
  })
  for (const { number, cvv, expiryMonth, expiryYear } of CARDS) {
    await bank.sql`
      insert into accounts values (${number}, ${cvv}, ${expiryMonth}, ${expiryYear}, ${START_CENTS}, ${START_CENTS})`
  }
  const isReceiverIll = { now: true }
  const receiver = await startReceiver(() => !isReceiverIll.now || random() >= WEBHOOKS_REFUSED)
  const ms = (unscaled: number) => String(Math.round(unscaled * scale))
  const gateways = await startGateways(GATEWAYS, {
    ...receiver.env,
    DATABASE_URL: receiptsServer.url('gateway'),
    BANK_URL: bank.url,
    BANK_ATTEMPT_TIMEOUT_MS: ms(20_000),
    BANK_QUIET_PERIOD_MS: ms(30_000),
    BANK_CONFIRM_AFTER_MS: ms(1_000),
    RECOVER_AFTER_MS: ms(5_000),
    REQUEST_DEADLINE_MS: ms(10_000),
    SWEEP_EVERY_MS: ms(3_000),
  })
  return {
    bankServer,
    receiptsServer,
    bank,
    gateways,
    receiver,
    isReceiverIll,
    end: async () => {
      await gateways.stop()
      await bank.close()
      await receiver.close()
      await Promise.all([bankServer.stop(), receiptsServer.stop()])
    },
  }
}

/** On a connection of its own: those of a pool do not all live through a server's death. Null when it is away. */
export async function rowsOf(url: string, statement: string): Promise<Record<string, unknown>[] | null> {
  const sql = postgres(url, { max: 1, connect_timeout: 2, fetch_types: false, onnotice: () => {} })
  try {
    return [...(await sql.unsafe(statement))]
  } catch {
    return null
  } finally {
    await sql.end({ timeout: 0 })
  }
}
