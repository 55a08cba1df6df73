import type { Gateway } from '../gateway.ts'

/** What every resolver is given. */
export type Context = {
  gateway: Gateway
  /** Who asks: the scope of idempotency keys, and the actor in the history. */
  client: string
  /** As it came over HTTP; its signal is aborted when the client has gone. */
  request: Request
}
