import type { Who } from '../access/who.ts'
import type { Gateway } from '../gateway.ts'

/** What every resolver is given: the gateway, and who asks. */
export type Context = { gateway: Gateway } & Who
