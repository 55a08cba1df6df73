import type { Who } from '../access/who.ts'
import type { Gateway } from '../gateway.ts'

/** What every resolver is given: the gateway, who asks, and the request, whose signal is aborted when they have gone. */
export type Context = { gateway: Gateway; request: Request } & Who
