import type { Client } from './client.ts'

/** The ops desk's view of a reconciliation. */

export type DiscrepancyView = {
  kind: string
  payment: { id: string } | null
  bankReference: string | null
  ours: { name: string; value: string }[] | null
  bank: { name: string; value: string }[] | null
  advice: string
  mendable: boolean
  mendedAt: string | null
}
export type ReconciliationView = {
  id: string
  kind: string
  status: string
  actor: string
  note: string | null
  source: string | null
  progress: number
  checked: number
  matched: number
  skipped: number
  discrepancyCount: number
  discrepancies: {
    edges: { node: DiscrepancyView }[]
    pageInfo: { hasNextPage: boolean; endCursor: string | null }
  }
}

const VIEW = `
  fragment run on Reconciliation {
    id kind status actor note source progress checked matched skipped discrepancyCount
    discrepancies(first: 100) {
      edges { node { kind payment { id } bankReference ours { name value } bank { name value } advice mendable mendedAt } }
      pageInfo { hasNextPage endCursor }
    }
  }`

export async function reconciliation(client: Client, id: string): Promise<ReconciliationView> {
  const { run } = await client.query<{ run: ReconciliationView | null }>(
    `query ($id: ID!) { run: reconciliation(id: $id) { ...run } } ${VIEW}`,
    { id },
  )
  if (run === null) throw new Error(`there is no reconciliation ${id}`)
  return run
}

export async function start(
  client: Client,
  input: { days?: number; resume?: boolean } = {},
): Promise<ReconciliationView & { __typename: string; message?: string }> {
  const { result } = await client.query<{
    result: { __typename: string; message?: string; reconciliation: ReconciliationView }
  }>(
    `mutation ($input: StartReconciliationInput!) {
       result: startReconciliation(input: $input) {
         __typename
         ... on ReconciliationAccepted { reconciliation { ...run } }
         ... on ReconciliationRefused { message reconciliation { ...run } }
       }
     } ${VIEW}`,
    { input },
  )
  const { reconciliation, ...answer } = result
  return { ...reconciliation, ...answer }
}
