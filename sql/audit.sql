-- One line for what an operator did; `audit` null: nobody did anything. A statement that is repeated writes it once.
-- audit: { id, action, actor, reason, detail }
create or replace function record_audit(pay payments, operation uuid, audit jsonb, moment timestamptz) returns void
language sql as $$
  insert into audit_lines (id, payment_id, operation_id, action, actor, reason, detail, at)
  select (audit ->> 'id')::uuid, pay.id, operation, audit ->> 'action', audit ->> 'actor', audit ->> 'reason',
         audit -> 'detail', moment
  where audit is not null
  on conflict (id) do nothing
$$;

-- The line for an operator's word that ends the review of a payment; it keeps what the review was about.
create or replace function record_review_end(pay payments, operation uuid, audit jsonb, moment timestamptz) returns void
language sql as $$
  select record_audit(pay, operation, jsonb_set(audit, '{detail}', audit -> 'detail' || jsonb_strip_nulls(
    jsonb_build_object('reviewReason', pay.review_reason, 'reviewEvidence', pay.review_evidence))), moment)
$$;

-- An operator says that the case is closed as it stands: no operation waits for a word, and what a reconciliation found
-- about the payment is dealt with. With `noHold` the bank's statement also shows that a failed authorize left no hold, so
-- the mark goes and nothing is looked for any more.
-- answer: CLOSED, UNRESOLVED (an operation is: say what became of it instead), or NOTHING (there is nothing to close).
create or replace function close_review(payment uuid, audit jsonb, no_hold boolean, at_time timestamptz default null)
returns text
language plpgsql as $$
declare
  moment timestamptz;
  pay payments;
  answer text;
begin
  perform lock_all(array['payment:' || payment]);
  moment := coalesce(at_time, clock_timestamp());
  select * into pay from payments p where p.id = payment;
  if exists (select from audit_lines a where a.id = (audit ->> 'id')::uuid) then
    answer := 'CLOSED';
  elsif exists (select from operations o where o.payment_id = payment and o.status = 'UNRESOLVED') then
    answer := 'UNRESOLVED';
  elsif (case when no_hold then pay.possible_orphan_hold_since else pay.review_since end) is null
        and not exists (select from discrepancies d where d.payment_id = payment and d.mended_at is null) then
    answer := 'NOTHING';
  else
    answer := 'CLOSED';
    perform record_review_end(pay, null, audit, moment);
    update payments p set
      review_reason = null, review_since = null, review_evidence = null,
      possible_orphan_hold_since = case when not no_hold then p.possible_orphan_hold_since end
    where p.id = pay.id;
    if no_hold then
      update operations o set look_again_at = null where o.payment_id = pay.id and o.kind = 'AUTHORIZE';
    end if;
    update discrepancies d set mended_at = moment where d.payment_id = pay.id and d.mended_at is null;
  end if;
  return answer;
end $$;

-- An operator says that the bank has lost the hold, or released it: nothing can be captured any more. What waits in review
-- was not carried out, and the payment has EXPIRED.
-- answer: CLOSED, UNRESOLVED (somebody asks the bank about an operation of it), or NOTHING (it is not AUTHORIZED).
create or replace function close_as_lost(payment uuid, audit jsonb, operation uuid, at_time timestamptz default null)
returns text
language plpgsql as $$
declare
  moment timestamptz;
  pay payments;
  op operations;
begin
  perform lock_all(array['payment:' || payment]);
  moment := coalesce(at_time, clock_timestamp());
  select * into pay from payments p where p.id = payment;
  if exists (select from audit_lines a where a.id = (audit ->> 'id')::uuid) then
    return 'CLOSED';
  elsif pay.state is distinct from 'AUTHORIZED' then
    return 'NOTHING';
  elsif exists (select from operations o where o.payment_id = payment and o.status = 'UNRESOLVED' and o.kind <> 'RELEASE'
                and o.leased_until is not null) then
    return 'UNRESOLVED';
  end if;
  update operations o set status = 'REFUSED', code = 'BANK_REFERENCE_MISSING', resolved_at = moment
  where o.payment_id = payment and o.status = 'UNRESOLVED' and o.kind <> 'RELEASE';

  op.id := operation;
  op.client := 'gateway';
  op.kind := 'EXPIRE';
  pay.state := 'EXPIRED';
  pay.version := pay.version + 1;
  insert into operations (id, client, idempotency_key, kind, payment_id, input, status, transition_version, attempt,
                          created_at, resolved_at)
  values (op.id, op.client, 'lost:' || (audit ->> 'id'), op.kind, pay.id,
          jsonb_build_object('paymentId', pay.id, 'expectedAmountCents', null), 'SUCCEEDED', pay.version, 0, moment, moment);
  insert into transitions select (transition_to(pay, 'AUTHORIZED', op, moment)).*;
  -- The release of a stray hold may wait for a word of its own.
  if exists (select from operations o where o.payment_id = payment and o.status = 'UNRESOLVED' and o.leased_until is null) then
    perform record_audit(pay, op.id, audit, moment);
  else
    perform record_review_end(pay, op.id, audit, moment);
    pay.review_reason := null;
    pay.review_since := null;
    pay.review_evidence := null;
  end if;
  update payments p set
    state = pay.state, version = pay.version, updated_at = moment,
    review_reason = pay.review_reason, review_since = pay.review_since, review_evidence = pay.review_evidence
  where p.id = pay.id;
  return 'CLOSED';
end $$;
