import { startSimulator } from '../../src/simulator/simulator.ts'
import type { Simulator, SimulatorSettings } from '../../src/simulator/simulator.ts'
import { testDatabase } from './database.ts'
import { whenFileEnds } from './leaving.ts'

export type TestBank = Simulator & {
  databaseUrl: string
  /** The rows of the bank's ledger, oldest first. */
  transactions(type?: 'AUTHORIZATION' | 'CAPTURE' | 'VOID' | 'REFUND'): Promise<LedgerRow[]>
  account(number?: string): Promise<{ balance: number; available: number }>
}
export type LedgerRow = {
  id: string
  type: string
  reference_id: string | null
  amount_cents: number
  status: string
}

/** A simulated bank with a ledger of its own that answers at once and never fails unless it is told to. */
export async function startTestBank(settings: Partial<SimulatorSettings> = {}): Promise<TestBank> {
  const { url } = await testDatabase('bank')
  const bank = await startSimulator({
    databaseUrl: url,
    port: 0,
    settings: { minLatencyMs: 0, maxLatencyMs: 0, failureRate: 0, authExpiryHours: 168, ...settings },
  })
  whenFileEnds(() => bank.close())
  return {
    ...bank,
    databaseUrl: url,
    transactions: async (type) => {
      const rows = await bank.sql<LedgerRow[]>`
        select id, type, reference_id, amount_cents::int, status from transactions
        where ${type ?? null}::text is null or type = ${type ?? null} order by created_at`
      return [...rows]
    },
    account: async (number = '4111111111111111') => {
      const [row] = await bank.sql<{ balance: number; available: number }[]>`
        select balance_cents::int as balance, available_cents::int as available from accounts where card_number = ${number}`
      if (row === undefined) throw new Error('no such account')
      return row
    },
  }
}
