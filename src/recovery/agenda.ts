import { answered } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { leaseMs } from '../operation/claim-row.ts'
import { performWhole, takeOver } from '../operation/run.ts'
import { operationId, paymentId } from '../payment/ids.ts'
import type { Operation, StrayHold } from '../payment/payment.ts'

/**
 * What is due and nobody works on: operations whose lease ran out, late looks at what was resolved without the bank's
 * word, stray holds to be voided, authorizations that ran out. Each is found by an index and entered by the story of a
 * mutation. What found nothing to do by the time that it claims is refused there, so looking needs no lock.
 */
export type Entry = {
  /** The same as long as it is due: nothing is entered twice at one time by one process. */
  name: string
  enter(): Promise<unknown>
}

/** The most urgent first; `besides` are the names of those that are being worked on. */
export type Find = (gateway: Gateway, atMost: number, besides: readonly string[]) => Promise<Entry[]>

/**
 * `share` of the places: where thousands are abandoned, the others have theirs. `needsBank`: not looked for while the
 * bank's circuit is open.
 */
export const AGENDA: readonly { find: Find; share: number; needsBank: boolean }[] = [
  { find: forgottenAuthorizes, share: 0.75, needsBank: false },
  { find: abandonedOperations, share: 0.75, needsBank: true },
  { find: lateLooks, share: 1, needsBank: true },
  { find: strayHolds, share: 1, needsBank: true },
  { find: expiredHolds, share: 1, needsBank: true },
]

/**
 * No lease is so long: the database's clock was ahead when it was given, and has been set right. What is dated later than
 * now was done by now; who is at work on it has as long as anybody.
 */
export async function setLeasesRight(gateway: Gateway): Promise<void> {
  await answered(gateway.sql`
    update operations o set
      leased_until = now + ${leaseMs(gateway)} * interval '1 millisecond',
      sent_at = not_after(o.sent_at, now),
      ambiguous_at = not_after(o.ambiguous_at, now)
    from (select ${now(gateway)} as now) as clock
    where status = 'UNRESOLVED' and leased_until > now + ${leaseMs(gateway) + HOUR_MS} * interval '1 millisecond'`)
}

const HOUR_MS = 3_600_000

/** The gateway's own operations have it for a client. */
const OWN = { client: 'gateway', card: null } as const

/** What the bank has not said while it remembered it will not say any more, however long it is silent. */
async function forgottenAuthorizes(gateway: Gateway, atMost: number, besides: readonly string[]) {
  const { sql, settings } = gateway
  const operations = await answered(sql<Operation[]>`
    select * from operations
    where status = 'UNRESOLVED' and kind = 'AUTHORIZE' and leased_until <= ${now(gateway)}
      and coalesce(sent_at, created_at) + ${settings.replayWindowMs} * interval '1 millisecond' <= ${now(gateway)}
      and 'op_' || id <> all(${besides}::text[])
    order by leased_until
    limit ${atMost}`)
  return operations.map((operation) => takeOverOf(gateway, operation))
}

async function abandonedOperations(gateway: Gateway, atMost: number, besides: readonly string[]) {
  const operations = await answered(gateway.sql<Operation[]>`
    select * from operations
    where status = 'UNRESOLVED' and leased_until <= ${now(gateway)} and 'op_' || id <> all(${besides}::text[])
    order by leased_until
    limit ${atMost}`)
  return operations.map((operation) => admittedTo(gateway, takeOverOf(gateway, operation)))
}

async function lateLooks(gateway: Gateway, atMost: number, besides: readonly string[]) {
  const operations = await answered(gateway.sql<Operation[]>`
    select * from operations
    where look_again_at is not null and is_late_look_due(look_again_at, ${now(gateway)}) and 'op_' || id <> all(${besides}::text[])
    order by look_again_at
    limit ${atMost}`)
  return operations.map((operation) => admittedTo(gateway, takeOverOf(gateway, operation)))
}

const takeOverOf = (gateway: Gateway, operation: Operation): Entry => ({
  name: operationId(operation.id),
  enter: () => takeOver(gateway, operation),
})

async function strayHolds(gateway: Gateway, atMost: number, besides: readonly string[]) {
  const { sql } = gateway
  const holds = await answered(sql<(StrayHold & Tries)[]>`
    select s.authorization_id, s.payment_id, earlier.tries from authorizations s
    join operations origin on origin.id = s.operation_id and origin.status <> 'UNRESOLVED'
    cross join lateral (
      select count(*)::int as tries, max(o.resolved_at) as last_at, bool_or(o.status = 'UNRESOLVED') as is_busy
      from operations o
      where o.payment_id = s.payment_id and o.kind = 'RELEASE' and o.input ->> 'authorizationId' = s.authorization_id
    ) as earlier
    where s.role = 'STRAY' and s.released_at is null and ${isTimeToTry(gateway)} and 'release:' || s.authorization_id <> all(${besides}::text[])
    order by s.found_at
    limit ${atMost}`)
  return holds.map(({ authorizationId, paymentId, tries }) => ({
    name: `release:${authorizationId}`,
    enter: () => release(gateway, { authorizationId, paymentId, tries }),
  }))
}

/** Voids a hold that no receipt wants. */
export async function release(
  gateway: Gateway,
  { authorizationId, paymentId, tries }: Pick<StrayHold, 'authorizationId' | 'paymentId'> & Tries,
) {
  return await performWhole(gateway, {
    ...OWN,
    kind: 'RELEASE',
    idempotencyKey: `release:${authorizationId}:${tries}`,
    input: { paymentId, authorizationId },
  })
}

/**
 * The bank never releases a hold by itself: a void does, and works after the expiry. Two clocks must say that it has
 * ended, the database's and this machine's: one alone that jumps ahead would void the holds of all open orders.
 */
async function expiredHolds(gateway: Gateway, atMost: number, besides: readonly string[]) {
  const { sql, settings, clock } = gateway
  const here = clock.databaseTime() ?? new Date(clock.wallMs())
  const holds = await answered(sql<({ id: string } & Tries)[]>`
    select p.id, earlier.tries from payments p
    cross join lateral (
      select count(*) filter (where o.kind = 'EXPIRE')::int as tries,
             max(o.resolved_at) filter (where o.kind = 'EXPIRE') as last_at,
             bool_or(o.status = 'UNRESOLVED' and o.kind <> 'RELEASE') as is_busy
      from operations o where o.payment_id = p.id
    ) as earlier
    where p.state = 'AUTHORIZED'
      and p.authorization_expires_at <= least(${now(gateway)}, ${here}) - ${settings.expireMarginMs}::int * interval '1 millisecond'
      and ${isTimeToTry(gateway)} and 'expire:pay_' || p.id <> all(${besides}::text[])
    order by p.authorization_expires_at
    limit ${atMost}`)
  return holds.map(({ id, tries }) => ({
    name: `expire:${paymentId(id)}`,
    enter: () =>
      performWhole(gateway, {
        ...OWN,
        kind: 'EXPIRE',
        idempotencyKey: `expire:${paymentId(id)}:${tries}`,
        input: { paymentId: id, expectedAmountCents: null },
      }),
  }))
}

/** How often the bank was asked in vain, each time under a key of its own: a refusal is a final answer to its key. */
type Tries = { tries: number }

/** Not under way (or in review), and after each vain try a longer pause. One that lies ahead was dated by a wrong clock. */
function isTimeToTry(gateway: Gateway) {
  return gateway.sql`not coalesce(earlier.is_busy, false) and coalesce(
    earlier.last_at > ${now(gateway)}
    or earlier.last_at + least(interval '1 hour', interval '5 seconds' * 2 ^ least(earlier.tries, 10)) <= ${now(gateway)}, true)`
}

function now({ sql, clock }: Gateway) {
  return sql`coalesce(${clock.databaseTime()}::timestamptz, clock_timestamp())`
}

/** What goes to the bank takes a place there; when it has none to give, the next round tries again. */
const admittedTo = ({ bank, inFlight }: Gateway, entry: Entry): Entry => ({
  name: entry.name,
  enter: () =>
    bank.admit(async (refusal) => {
      if (refusal === null && !inFlight.draining) await entry.enter()
    }),
})
