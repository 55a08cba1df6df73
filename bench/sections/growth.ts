import { allWell, withStage } from '../support/stage.ts'
import type { Stage } from '../support/stage.ts'
import type { Section } from './section.ts'

/** More gateway processes on one Postgres, and what a payment costs there: statements, commits, bytes of WAL, CPU. */

export const growth: Section = async ({ rounds, ms, connections, processes }, show) =>
  await withStage(
    async (stage) => {
      const { sql } = stage
      const gateways = [await stage.startGateway()]
      await sql`create extension if not exists pg_stat_statements`
      while (gateways.length < Math.max(...processes)) gateways.push(await stage.startGateway())
      const work = { do: 'authorize' } as const
      show('growth: warming up')
      await stage.load({ gateways, connections, work, name: 'warm', until: { ms } })
      const rows: (string | number)[][] = []
      let names = 0
      for (const count of processes) {
        show(`growth: ${count} of ${gateways.length} processes`)
        const some = gateways.slice(0, count)
        const before = {
          ...(await counted(stage)),
          gatewayMs: total(some),
          postgresMs: stage.postgresCpuMs(),
        }
        names += 1
        const { count: payments, ms: tookMs } = allWell(
          await stage.load({
            gateways: some,
            connections,
            work,
            name: `g${names}`,
            until: { ms: ms * rounds },
          }),
        )
        const gatewayMs = total(some) - before.gatewayMs
        const postgresMs = stage.postgresCpuMs() - before.postgresMs
        const after = await counted(stage)
        const each = (value: number, digits: number) => (value / payments).toFixed(digits)
        rows.push([
          count,
          ((payments / tookMs) * 1_000).toFixed(0),
          each(after.statements - before.statements, 1),
          each(after.commits - before.commits, 1),
          each(after.walBytes - before.walBytes, 0),
          each(gatewayMs, 2),
          each(postgresMs, 2),
        ])
      }
      return {
        title: `Growth: authorize, ${connections} connections over all processes`,
        rows: [
          [
            'processes',
            'payments/s',
            'statements',
            'commits',
            'WAL bytes',
            'gateway CPU ms',
            'Postgres CPU ms',
          ],
          ...rows,
        ],
        notes: ['All but the first two columns: per payment.'],
        aims: [],
      }
    },
    { countStatements: true },
  )

const total = (gateways: readonly { cpuMs(): number }[]) =>
  gateways.reduce((sum, gateway) => sum + gateway.cpuMs(), 0)

/** Of the receipts' database; what the functions of sql/ say inside is part of one statement. */
async function counted({ sql }: Stage) {
  const [row] = await sql<{ statements: number; commits: number; walBytes: number }[]>`
    select (select sum(calls) from pg_stat_statements s where s.dbid = d.datid)::float8 as statements,
           d.xact_commit::float8 as commits,
           pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as wal_bytes
    from pg_stat_database d where d.datname = current_database()`
  if (row === undefined) throw new Error('the server does not count')
  return row
}
