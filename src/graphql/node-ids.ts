import {
  transitionOfEventId,
  uuidOfDiscrepancyId,
  uuidOfOperationId,
  uuidOfPaymentId,
  uuidOfReconciliationId,
} from '../payment/ids.ts'
import { PAGE_MAX } from './input-rules.ts'
import { invalidArguments } from './invalid-input.ts'

/** An id says by its prefix what it is of; so none is wrapped once more, as Relay's libraries would. */
const READERS: Record<string, (id: string) => unknown> = {
  Payment: uuidOfPaymentId,
  Operation: uuidOfOperationId,
  WebhookDelivery: transitionOfEventId,
  Reconciliation: uuidOfReconciliationId,
  Discrepancy: uuidOfDiscrepancyId,
}

export type NodeId = { typename: string; id: string }

/** The type is empty where the id is none of ours: the field says so, which knows where it stood. */
export function typeOfId(id: string): NodeId {
  const [typename = ''] = Object.entries(READERS).find(([, read]) => read(id) !== null) ?? []
  return { typename, id }
}

export function known(id: NodeId): NodeId {
  if (id.typename === '') throw invalidArguments([{ path: 'id', reason: REASON }])
  return id
}

export function allKnown(ids: NodeId[]): NodeId[] {
  if (ids.length > PAGE_MAX) throw invalidArguments([{ path: 'ids', reason: `must be ${PAGE_MAX} at most` }])
  const unknown = ids.flatMap(({ typename }, at) =>
    typename === '' ? [{ path: `ids.${at}`, reason: REASON }] : [],
  )
  if (unknown.length > 0) throw invalidArguments(unknown)
  return ids
}

const REASON = 'must be an id of this API: "pay_", "op_", "evt_", "rec_" or "dis_" and a UUID in lower case'
