import type { Context as Trace } from '@opentelemetry/api'
import type { Who } from '../access/who.ts'
import type { Gateway } from '../gateway.ts'
import type { Served } from './request-trace.ts'

/**
 * What every resolver is given: the gateway, whose log names the request in every line, who asks, the request's trace,
 * and the request itself, whose signal is aborted when they have gone.
 */
export type Context = { gateway: Gateway; trace: Trace; request: Request } & Served & Who
