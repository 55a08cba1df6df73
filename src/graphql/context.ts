import type { Context as Trace } from '@opentelemetry/api'
import type { Who } from '../access/who.ts'
import type { Gateway } from '../gateway.ts'

/** What every resolver is given: the gateway, whose log names the request in every line, who asks, and its trace. */
export type Context = { gateway: Gateway; trace: Trace } & Who
