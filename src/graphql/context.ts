import type { Context as Trace } from '@opentelemetry/api'
import type { Gateway } from '../gateway.ts'

/** What every resolver is given. */
export type Context = {
  /** Its log names the request in every line. */
  gateway: Gateway
  /** Who asks: the scope of idempotency keys, and the actor in the history. */
  client: string
  /** The trace that the request is a part of. */
  trace: Trace
}
