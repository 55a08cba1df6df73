import type { Database } from '../../src/db/connection.ts'

/**
 * What must be true after anything that may have happened, as statements over both ledgers (books.ts). Each selects the
 * rows that break it: none is the proof, and a row is its own evidence.
 */
export type Invariant = { id: string; says: string; violations: string }
export type Checked = Invariant & { rows: Record<string, unknown>[] }

export async function check(books: Database): Promise<Checked[]> {
  const checked: Checked[] = []
  for (const invariant of INVARIANTS) {
    checked.push({ ...invariant, rows: [...(await books.unsafe(invariant.violations))] })
  }
  return checked
}

/** What kind of row each operation makes at the bank, and its moves; as payment.ts has it, said again. */
const MADE = `(values ('AUTHORIZE', 'AUTHORIZATION'), ('CAPTURE', 'CAPTURE'), ('VOID', 'VOID'), ('EXPIRE', 'VOID'),
                     ('RELEASE', 'VOID'), ('REFUND', 'REFUND')) as made (kind, type)`
const LEGAL = `('', 'PENDING', 'AUTHORIZE'), ('PENDING', 'AUTHORIZED', 'AUTHORIZE'), ('PENDING', 'DECLINED', 'AUTHORIZE'),
               ('PENDING', 'FAILED', 'AUTHORIZE'), ('AUTHORIZED', 'CAPTURED', 'CAPTURE'), ('AUTHORIZED', 'VOIDED', 'VOID'),
               ('AUTHORIZED', 'EXPIRED', 'EXPIRE'), ('CAPTURED', 'REFUNDED', 'REFUND'), ('FAILED', 'VOIDED', 'RELEASE')`

/** Holds that no receipt has; and those that none will get, since their operation has ended. */
const UNKNOWN_HOLDS = `
  select t.id, t.amount_cents, t.status, t.key_stored, t.idempotency_key, o.payment_id, o.status as operation_status
  from bank.transactions t left join receipts.operations o on o.bank_key = t.idempotency_key
  where t.type = 'AUTHORIZATION' and not exists (select from receipts.payments p where p.authorization_id = t.id)`
const ORPHANS = `select * from (${UNKNOWN_HOLDS}) unknown where operation_status is distinct from 'UNRESOLVED'`

export const INVARIANTS: readonly Invariant[] = [
  {
    id: 'I1',
    says: 'at most one capture and one refund per amount',
    violations: `
      select amount_cents, type, count(*), array_agg(id) as ids from bank.transactions
      where type in ('CAPTURE', 'REFUND') group by amount_cents, type having count(*) > 1`,
  },
  {
    id: 'I2',
    says: "receipt state and ids equal what the bank's rows imply",
    // An id may be missing only where the bank stored no answer, so that nobody could learn it.
    violations: `
      with held as (
        select p.*, hold.amount_cents as held_cents, hold.expires_at, capture.id as bank_capture, refund.id as bank_refund,
               release.id as bank_void, capture.key_stored as capture_stored, refund.key_stored as refund_stored,
               release.key_stored as void_stored,
               case when refund.id is not null then 'REFUNDED' when capture.id is not null then 'CAPTURED'
                    when release.id is not null then 'VOIDED' when hold.id is not null then 'AUTHORIZED'
                    else 'none' end as implied
        from receipts.payments p
        left join bank.transactions hold on hold.type = 'AUTHORIZATION' and hold.id = p.authorization_id
        left join bank.transactions capture on capture.type = 'CAPTURE' and capture.reference_id = hold.id
        left join bank.transactions release on release.type = 'VOID' and release.reference_id = hold.id
        left join bank.transactions refund on refund.type = 'REFUND' and refund.reference_id = capture.id)
      select id, amount_cents, state, implied, capture_id, bank_capture, void_id, bank_void, refund_id, bank_refund
      from held
      where implied <> case when state in ('PENDING', 'FAILED', 'DECLINED') then 'none'
                            when state = 'EXPIRED' then 'VOIDED' else state end
         or held_cents <> amount_cents
         or authorization_expires_at is distinct from expires_at
         or capture_id is distinct from bank_capture and not (capture_id is null and not capture_stored)
         or void_id is distinct from bank_void and not (void_id is null and not void_stored)
         or refund_id is distinct from bank_refund and not (refund_id is null and not refund_stored)`,
  },
  {
    id: 'I2',
    says: 'what is recorded as done is in the bank’s ledger',
    violations: `
      select o.id, o.kind, o.payment_id from receipts.operations o join ${MADE} using (kind)
      where o.status = 'SUCCEEDED' and not exists (
        select from bank.transactions t where t.idempotency_key = o.bank_key and t.type = made.type)`,
  },
  {
    id: 'I3',
    says: 'every bank row belongs to an operation or is a flagged orphan',
    violations: `
      select t.id, t.type, t.amount_cents, t.idempotency_key, o.kind, o.status, o.code, p.state
      from bank.transactions t
      left join receipts.operations o on o.bank_key = t.idempotency_key
      left join receipts.payments p on p.id = o.payment_id
      where (o.kind, t.type) not in (select kind, type from ${MADE}) or o.id is null
         or t.amount_cents is distinct from p.amount_cents
         or o.status = 'REFUSED' and (
              t.type <> 'AUTHORIZATION' or p.possible_orphan_hold_since is null
              and not exists (select from receipts.stray_holds s where s.authorization_id = t.id))`,
  },
  {
    id: 'I4',
    says: 'every orphan hold is marked on its payment, or known as a stray hold',
    violations: `
      select orphan.*, p.state from (${ORPHANS}) orphan left join receipts.payments p on p.id = orphan.payment_id
      where p.possible_orphan_hold_since is null
        and not exists (select from receipts.stray_holds s where s.authorization_id = orphan.id)`,
  },
  {
    id: 'I4',
    says: 'every stray hold was released',
    violations: 'select authorization_id, payment_id from receipts.stray_holds where released_at is null',
  },
  {
    id: 'I4',
    says: 'no orphan hold that the bank can still tell of by its key',
    violations: `
      select orphan.* from (${ORPHANS}) orphan
      where key_stored and not exists (select from receipts.stray_holds s where s.authorization_id = orphan.id)`,
  },
  {
    id: 'I4',
    says: 'no more orphan holds than keys were lost by faults, and by kills between commit and store',
    violations: `
      select orphan.idempotency_key, count(*) as orphans, max(lost) as keys_lost
      from (${ORPHANS}) orphan,
        lateral (select count(*) as lost from seen.exchanges e
                 where e.key = orphan.idempotency_key and e.endpoint = 'authorizations' and e.key_lost is not null) as known
      where not key_stored group by orphan.idempotency_key having count(*) > max(lost)`,
  },
  {
    id: 'I5',
    says: 'balance = start - captures + refunds; available = balance - active holds',
    violations: `
      with booked as (
        select a.*, start_cents - coalesce(sum(t.amount_cents) filter (where t.type = 'CAPTURE'), 0)
                                + coalesce(sum(t.amount_cents) filter (where t.type = 'REFUND'), 0) as balance_due,
               coalesce(sum(t.amount_cents) filter (where t.type = 'AUTHORIZATION' and t.status = 'ACTIVE'), 0) as held
        from bank.accounts a left join bank.transactions t using (card)
        group by a.card, a.start_cents, a.balance_cents, a.available_cents)
      select * from booked where balance_cents <> balance_due or available_cents <> balance_due - held`,
  },
  {
    id: 'I5',
    says: "the bank's balances are what the receipts say, but for orphan holds",
    violations: `
      select * from
        (select sum(start_cents) - sum(balance_cents) as taken, sum(balance_cents) - sum(available_cents) as held
         from bank.accounts) as bank,
        (select coalesce(sum(amount_cents) filter (where state = 'CAPTURED'), 0) as captured,
                coalesce(sum(amount_cents) filter (where state = 'AUTHORIZED'), 0) as authorized
         from receipts.payments) as receipts,
        (select coalesce(sum(amount_cents) filter (where status = 'ACTIVE'), 0) as unknown from (${UNKNOWN_HOLDS}) hold) as unknown_holds
      where taken <> captured or held <> authorized + unknown`,
  },
  {
    id: 'I6',
    says: 'one key, one final answer',
    violations: `
      select key, array_agg(distinct answer) as answers, array_agg(distinct client) as clients from seen.answers
      where client <> 'conflict' group by key having count(distinct answer) > 1`,
  },
  {
    id: 'I6',
    says: 'the answer is the one on record',
    violations: `
      select a.key, a.client, a.answer, o.status, o.code, o.transition_version
      from seen.answers a left join receipts.operations o on o.idempotency_key = a.key
      where a.client <> 'conflict' and a.answer is distinct from
        case o.status when 'SUCCEEDED' then jsonb_build_object('version', o.transition_version)
                      when 'REFUSED' then jsonb_build_object('code', o.code) end`,
  },
  {
    id: 'I6',
    says: 'another request under a key is refused',
    violations: `
      select * from seen.answers where client = 'conflict' and answer <> '{"code": "IDEMPOTENCY_KEY_REUSED"}'`,
  },
  {
    id: 'I6',
    says: '… and leads to no operation, so to no bank call',
    violations: `
      select o.id, o.idempotency_key, o.kind, o.input, r.kind as asked, r.amount_cents
      from receipts.operations o left join seen.requests r on r.key = o.idempotency_key
      where o.client <> 'gateway' and (
        r.key is null or o.kind <> r.kind
        or coalesce((o.input ->> 'amountCents')::bigint, (o.input ->> 'expectedAmountCents')::bigint, r.amount_cents)
           <> r.amount_cents)
      union all
      select null, e.key, e.endpoint, null, null, null
      from seen.exchanges e left join receipts.operations o on o.bank_key = e.key where o.id is null`,
  },
  {
    id: 'I7',
    says: 'histories are legal paths, one version at a time, none leaves a terminal state but FAILED -> VOIDED',
    violations: `
      with told as (
        select t.*, lag(to_state) over history as before, lag(version) over history as version_before,
               lead(version) over history is null as is_last
        from receipts.transitions t window history as (partition by payment_id order by version, at))
      select p.id, p.state, p.version as payment_version, told.version, told.from_state, told.to_state, told.cause
      from receipts.payments p left join told on told.payment_id = p.id
      where told.version is distinct from coalesce(version_before, 0) + 1
         or told.from_state is distinct from before
         or (coalesce(told.from_state, ''), told.to_state, told.cause) not in (${LEGAL})
         or is_last and (p.state <> told.to_state or p.version <> told.version)`,
  },
  {
    id: 'I8',
    says: 'no authorize with a body follows or overlaps an ambiguous one under its key',
    violations: `
      select first.key, first.seq as first, later.seq as later, first.arrived_ms, first.ended_ms,
             later.arrived_ms as later_arrived_ms, first.ambiguous
      from seen.exchanges first join seen.exchanges later on later.key = first.key and later.seq > first.seq
      where first.endpoint = 'authorizations' and later.endpoint = 'authorizations'
        and first.has_body and later.has_body
        and (first.ambiguous or first.ended_ms is null or first.ended_ms > later.arrived_ms)`,
  },
  {
    id: 'I9',
    says: 'nothing is unresolved when recovery has had its time',
    violations: `
      select u.id::text, u.kind, u.attempt, u.attempt_purpose, u.ambiguous_at, u.leased_until, p.state, p.review_reason
      from seen.unresolved u left join receipts.operations o using (id) left join receipts.payments p on p.id = o.payment_id
      union all
      select p.id::text, 'no operation', null, null, null, null, p.state, p.review_reason
      from receipts.payments p where p.state = 'PENDING'`,
  },
  {
    id: 'I9',
    says: 'no review is left where an operator has read the bank’s statement',
    violations: `select id, state, review_reason from receipts.payments where review_reason is not null`,
  },
  {
    id: 'I9',
    says: 'an authorization that has expired is released',
    // A minute is left to clocks that differ.
    violations: `
      select id, authorization_expires_at from receipts.payments
      where state = 'AUTHORIZED' and authorization_expires_at < (select max(asked_at) from seen.checks) - interval '2 minutes'`,
  },
  {
    id: 'I11',
    says: 'FicMart was told of each transition by webhook, and of none before the one that led there',
    violations: `
      with told as (
        select payment_id, version, min(seq) as first from seen.webhooks group by payment_id, version),
      ordered as (
        select *, max(first) over (partition by payment_id order by version rows between unbounded preceding and 1 preceding) as before
        from told)
      select t.payment_id, t.version, t.to_state, o.first, o.before
      from receipts.transitions t left join ordered o using (payment_id, version)
      where o.first is null or o.before > o.first
      union all
      select w.payment_id, w.version, w.to_state, w.seq, null
      from seen.webhooks w left join receipts.transitions t using (payment_id, version)
      where t.to_state is distinct from w.to_state`,
  },
  {
    id: 'I12',
    says: 'goods may never leave without the money at the bank at that moment',
    violations: `
      select c.* from seen.checks c where c.may_ship and not exists (
        select from bank.transactions hold
        left join bank.transactions used on used.reference_id = hold.id
        left join bank.transactions refund on refund.reference_id = used.id
        where hold.type = 'AUTHORIZATION' and hold.amount_cents = c.amount_cents and hold.created_at <= c.answered_at
          and (used.type = 'CAPTURE' and coalesce(refund.created_at > c.asked_at, true)
               or hold.expires_at > c.asked_at and coalesce(used.created_at > c.asked_at, true)))`,
  },
  {
    id: 'I12',
    says: 'nor stay for ever while it is there, but where the bank has lost the id of the capture',
    violations: `
      select c.*, p.id, p.state from seen.checks c join receipts.payments p using (order_id, amount_cents)
      join bank.transactions hold on hold.id = p.authorization_id
      left join bank.transactions used on used.reference_id = hold.id
      left join bank.transactions refund on refund.reference_id = used.id
      where c.is_last and not c.may_ship
        and (used.id is null and hold.expires_at > c.answered_at or used.type = 'CAPTURE' and refund.id is null)
        and not (c.reason = 'CAPTURE_UNCONFIRMED' and not used.key_stored)`,
  },
  {
    id: 'I10',
    says: 'no card number or CVV in any table, file, log line or answer of the gateway',
    violations: 'select * from seen.leaks',
  },
  { id: '', says: 'every answer is one of the API', violations: 'select * from seen.faulty' },
  {
    id: '',
    says: 'no gateway ended by itself, and each stopped in order',
    violations: 'select * from seen.ends',
  },
]
