import type { Sql } from 'postgres'
import { pageOfPayments } from '../../src/payment/page.ts'
import { paymentsById, paymentsOfOrder, transitionsOfPayments } from '../../src/payment/reads.ts'
import { systemClock } from '../../src/gateway.ts'
import type { Gateway } from '../../src/gateway.ts'
import { uuidOfPaymentId } from '../../src/payment/ids.ts'
import { PAGE } from './documents.ts'
import { median } from './measured.ts'

/** How Postgres carries out the very statements of the reads: caught on their way, and explained with their values. */

export type Explained = {
  /** Pages touched by all statements of one read, the median over the samples. */
  buffers: number
  /** Descents of an index. */
  searches: number
  /** Of the deepest index. */
  levels: number
  roots: Plan[]
  samples: number
}

export type Plan = {
  'Node Type': string
  'Relation Name'?: string
  'Shared Hit Blocks': number
  'Shared Read Blocks': number
  'Actual Rows': number
  'Actual Loops': number
  'Index Searches'?: number
  Plans?: Plan[]
}

type Caught = { text: string; values: unknown[] }
type Reads = 'payment' | 'paymentsByOrder' | 'customerHistory'

export async function explained(
  sql: Sql<{ bigint: number }>,
  name: Reads,
  variables: readonly Record<string, string>[],
): Promise<Explained> {
  const levels = await deepest(sql)
  const each: { buffers: number; searches: number; roots: Plan[] }[] = []
  for (const variable of variables) {
    const roots: Plan[] = []
    for (const { text, values } of await statementsOf(sql, name, variable)) {
      // Once before, so that catalogue pages, which a new statement reads, are not counted.
      await sql.unsafe(text, values as never[])
      const [row] = await sql.unsafe<{ 'QUERY PLAN': [{ Plan: Plan }] }[]>(
        `explain (analyze, buffers, format json) ${text}`,
        values as never[],
      )
      if (row === undefined) throw new Error('nothing was explained')
      roots.push(row['QUERY PLAN'][0].Plan)
    }
    each.push({
      roots,
      buffers: sum(roots.map((plan) => plan['Shared Hit Blocks'] + plan['Shared Read Blocks'])),
      searches: sum(roots.flatMap(nodes).map((plan) => (plan['Index Searches'] ?? 0) * plan['Actual Loops'])),
    })
  }
  return {
    buffers: median(each.map(({ buffers }) => buffers)),
    searches: median(each.map(({ searches }) => searches)),
    roots: each.flatMap(({ roots }) => roots),
    levels,
    samples: each.length,
  }
}

/** A table that is read whole, or a sort of more than a page and the one row that tells whether there is more. */
export function planTrouble(root: Plan): string[] {
  return nodes(root).flatMap((plan) => {
    const kind = plan['Node Type']
    if (kind === 'Seq Scan') return [`${kind} of ${plan['Relation Name']}`]
    const most = 2 * (PAGE + 1)
    return kind.includes('Sort') && plan['Actual Rows'] > most ? [`${kind} of ${plan['Actual Rows']}`] : []
  })
}

/** Runs the gateway's own functions; postgres.js tells what it sends. */
async function statementsOf(
  sql: Sql<{ bigint: number }>,
  name: Reads,
  variable: Record<string, string>,
): Promise<Caught[]> {
  const gateway = { sql, clock: systemClock } as unknown as Gateway
  const caught: Caught[] = []
  const told = sql.options as { debug: unknown }
  told.debug = (_: number, text: string, values: unknown[]) => caught.push({ text, values: [...values] })
  try {
    const ids = (await paymentsOf(gateway, name, variable)).map(({ id }) => id)
    await transitionsOfPayments(gateway, ids)
  } finally {
    told.debug = false
  }
  return caught
}

async function paymentsOf(gateway: Gateway, name: Reads, variable: Record<string, string>) {
  switch (name) {
    case 'payment':
      return await paymentsById(gateway, [uuidOfPaymentId(variable['id'] ?? '') ?? ''])
    case 'paymentsByOrder':
      return await paymentsOfOrder(gateway, variable['orderId'] ?? '')
    case 'customerHistory':
      return (
        await pageOfPayments(gateway, { customerId: variable['customerId'] }, { first: PAGE, after: null })
      ).payments
  }
}

/** Above the leaves, of the indexes that serve these reads. */
async function deepest(sql: Sql<{ bigint: number }>): Promise<number> {
  await sql`create extension if not exists pageinspect`
  const [row] = await sql<{ levels: number }[]>`
    select max((bt_metap(name)).level)::int as levels
    from unnest(array['payments_pkey', 'payments_of_order', 'payments_of_customer', 'transitions_pkey']) as name`
  return row?.levels ?? 0
}

function nodes(plan: Plan): Plan[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodes)]
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
