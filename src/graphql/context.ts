import type { Gateway } from '../gateway.ts'

/** What every resolver is given. */
export type Context = {
  gateway: Gateway
  /** Who asks: the scope of idempotency keys, and the actor in the history. */
  client: string
}
