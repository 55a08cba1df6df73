import type { OperationKind } from '../../src/payment/payment.ts'
import { HOLD_MS_MAX } from './time.ts'

/** What the bank has done. `parentId`: the authorization or capture that it was done to. */
export type Deed = {
  id: string
  operationId: string
  kind: OperationKind
  parentId: string | null
  expiresAt: string | null
}
type Order = Pick<Deed, 'operationId' | 'kind' | 'parentId'>

/**
 * The bank as far as receipts can be wrong about it: it does each thing once, and knows who asked for it. It is never ill:
 * its answers are lost on the way (hands.ts).
 */
export class FuzzBank {
  readonly deeds: Deed[] = []
  /** Authorizations that it has forgotten. */
  readonly lost = new Set<string>()

  doneBy(operationId: string): Deed | undefined {
    return this.deeds.find((deed) => deed.operationId === operationId)
  }

  doneTo(id: string): Deed | undefined {
    return this.deeds.find((deed) => deed.parentId === id)
  }

  /** An authorize that is sent `twice` at one time places two holds. */
  send({ operationId, kind, parentId }: Order, at: Date, twice: boolean): Deed | 'used' | 'unknown' {
    const own = this.doneBy(operationId)
    if (own !== undefined && !(twice && kind === 'AUTHORIZE')) return own
    if (parentId !== null && this.lost.has(parentId)) return 'unknown'
    if (parentId !== null && this.doneTo(parentId) !== undefined) return 'used'
    const id = `${PREFIXES[kind]}_${this.deeds.length}`
    const expiresAt = new Date(at.getTime() + HOLD_MS_MAX / (1 + (this.deeds.length % 7))).toISOString()
    const deed = { id, operationId, kind, parentId, expiresAt: kind === 'AUTHORIZE' ? expiresAt : null }
    this.deeds.push(deed)
    return deed
  }
}

const PREFIXES: Record<OperationKind, string> = {
  AUTHORIZE: 'auth',
  CAPTURE: 'cap',
  VOID: 'void',
  REFUND: 'ref',
  EXPIRE: 'void',
  RELEASE: 'void',
}
