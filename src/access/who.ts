/**
 * Who asks, and what for. `client` is the scope of idempotency keys and the actor in the history; the role says which
 * fields and mutations may be asked for (each of them says so itself, in graphql/).
 *
 * service   FicMart's back end: the four mutations and all reads
 * ops       people who look into payments: all reads and their own mutations, no payments
 * customer  a browser with a token of FicMart's login: its own payment, and nothing else
 * dev       everything, on a machine where no key is set
 */
export type Who = Admitted &
  (
    | { client: string; role: 'service' | 'ops' | 'dev'; customer: null }
    | { client: string; role: 'customer'; customer: Customer }
  )

/** `until`: is aborted when the key has been removed or the token has expired; what outlives a request ends with it. */
type Admitted = { until: () => AbortSignal }

export const ROLES = ['service', 'ops', 'customer', 'dev'] as const
export type Role = (typeof ROLES)[number]

/** The one checkout that a customer's token is signed for. */
export type Customer = { id: string; orderId: string; amountCents: number }

/** UNAUTHENTICATED: nobody we know. UNAVAILABLE: it cannot be told just now; the same request may pass later. */
export type Refused = { refused: 'UNAUTHENTICATED' | 'UNAVAILABLE'; message: string }

export type WhoAsks = (request: Request) => Promise<Who | Refused>
