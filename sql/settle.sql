-- What came of an exchange with the bank, written whole or not at all.
--
-- FACT: the bank has done it. It is accepted from any attempt while the operation is unresolved, whoever brings it; an id
-- that comes later is kept; an authorization that its operation does not wait for is a stray hold.
-- VERDICT: it did not happen. It needs the current claim, or, of what is in review, an operator's word.
-- LEAVE: not known yet. The bank is asked again (ask_again_at), or, with a `review`, only when an operator says so.
--
-- Each may carry a `review`: { reason, evidence }. What the bank has done (`bankId`) is kept as evidence whoever brings
-- it, a doubt only from the current claim. An operator's word (`audit`) that settles something ends the review and leaves
-- a line, and so does a fact that refutes all doubts of it, unless another operation waits for a word of its own.
-- An authorization is one payment's, or one stray hold: a second one breaks the primary key of `authorizations`, and the
-- caller sends it to review.
--
-- items: [{ operationId, paymentId, orderId | null, token, calls, ambiguous, leaseMs, move: { from, to }, conclusion,
--           retryInMs, replayWindowMs, audit | null }]
-- ambiguous: of the exchange that just ended; earlier ones were written when the next was claimed.
-- conclusion: { is: 'FACT', bankId | null, bankAt | null, expiresAt | null }
--           | { is: 'VERDICT', code, to: payment state | null, orphan: boolean }
--           | { is: 'LEAVE' }
-- answer: SETTLED (now or before), STRAY, LEFT, TAKEN (another holds the claim that a verdict needs), or GONE (there is
--   no such operation: its claim was lost, and nothing was written).
create or replace function settle(items jsonb, at_time timestamptz default null)
returns table (item int, answer text, operation jsonb, payment jsonb, transition jsonb)
language plpgsql
-- One plan for all lengths of a batch, which finds its rows by their ids whatever a young table's statistics say.
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
as $$
declare
  moment timestamptz;
  request jsonb;
  conclusion jsonb;
  bank_id text;
  review jsonb;
  audit jsonb;
  op operations;
  pay payments;
  op_before operations;
  pay_before payments;
  moved transitions;
  to_state text;
  is_ours boolean;
  -- Written at the end, all in one statement for each table: the checks and indexes of a table cost as much to make
  -- ready as a row.
  operations_after operations[] := '{}';
  payments_after payments[] := '{}';
  new_transitions transitions[] := '{}';
  written int;
begin
  perform lock_payments(items);
  moment := coalesce(at_time, clock_timestamp());
  perform record_calls(items);

  for item, request in select (ordinality - 1)::int, value from jsonb_array_elements(items) with ordinality loop
    conclusion := request -> 'conclusion';
    bank_id := conclusion ->> 'bankId';
    review := nullif(conclusion -> 'review', 'null');
    audit := nullif(request -> 'audit', 'null');
    to_state := null;
    select * into op from operations o where o.id = (request ->> 'operationId')::uuid;
    select * into pay from payments p where p.id = op.payment_id;
    if op.id is null then
      answer := 'GONE';
      operation := null;
      payment := null;
      transition := null;
      return next;
      continue;
    end if;
    op_before := op;
    pay_before := pay;
    -- What waits for an operator's word is nobody's.
    is_ours := op.status = 'UNRESOLVED' and (
      op.attempt_token = (request ->> 'token')::uuid or audit is not null and op.leased_until is null);

    -- 1. What the conclusion means for the operation, and whether it moves the payment.
    if conclusion ->> 'is' = 'FACT' and op.status = 'UNRESOLVED' then
      to_state := case when pay.state = request #>> '{move,from}' then request #>> '{move,to}' end;
      if to_state is not null or op.kind = 'RELEASE' then
        answer := 'SETTLED';
        op.status := 'SUCCEEDED';
      else
        -- It happened at the bank and does not fit the receipt: nobody but an operator can say why.
        answer := 'LEFT';
        review := jsonb_build_object('reason', 'The bank has carried out an operation that does not fit the payment''s state',
                                     'evidence', conclusion || jsonb_build_object('kind', op.kind, 'state', pay.state));
      end if;
    elsif conclusion ->> 'is' = 'FACT' and op.kind = 'AUTHORIZE' and pay.authorization_id is distinct from bank_id then
      answer := 'STRAY';
      insert into authorizations (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
      select bank_id, op.id, pay.id, pay.amount_cents, (conclusion ->> 'expiresAt')::timestamptz, moment
      where not exists (select from authorizations a where a.authorization_id = bank_id and a.operation_id = op.id);
      pay.possible_orphan_hold_since := null;
    elsif conclusion ->> 'is' = 'FACT' then
      answer := 'SETTLED';
      if op.status = 'SUCCEEDED' and op.kind <> 'RELEASE' then
        pay := with_bank_id(pay, op.kind, bank_id);
      elsif op.status = 'REFUSED' and op.kind <> 'AUTHORIZE' then
        review := jsonb_build_object('reason', 'The bank has carried out an operation that was answered as refused',
                                     'evidence', conclusion || jsonb_build_object('kind', op.kind, 'code', op.code));
      end if;
    elsif not is_ours then
      answer := case when op.status = 'UNRESOLVED' then 'TAKEN' else 'SETTLED' end;
      review := case when review #> '{evidence,bankId}' is not null then review end;
      audit := null;
    elsif conclusion ->> 'is' = 'VERDICT' then
      answer := 'SETTLED';
      to_state := conclusion ->> 'to';
      op.status := 'REFUSED';
      op.code := conclusion ->> 'code';
      if op.code = 'AUTHORIZATION_EXPIRED' then
        -- The bank decides when; from now on the sweep may release the hold.
        pay.authorization_expires_at := least(pay.authorization_expires_at, moment);
      end if;
    else
      answer := 'LEFT';
      if (request ->> 'ambiguous')::boolean then
        op.ambiguous_at := op.sent_at;
      end if;
      -- The attempt is over: what it was for shall not be taken for a send whose outcome nobody knows.
      op.attempt_purpose := 'PROBE';
      -- Not before no send of ours can still be at work.
      op.leased_until := greatest(
        ask_again_at(op, moment, request),
        not_after(op.ambiguous_at, moment) + (request ->> 'leaseMs')::int * interval '1 millisecond');
    end if;

    -- 2. The payment's next state.
    if to_state is not null then
      pay.state := to_state;
      pay.version := pay.version + 1;
      pay.updated_at := moment;
      -- What it has placed may be known by now, as something else than was asked for.
      pay.possible_orphan_hold_since := case when (conclusion ->> 'orphan')::boolean and not exists (
        select from authorizations a where a.payment_id = pay.id and a.role = 'STRAY') then moment end;
      if op.status = 'SUCCEEDED' then
        if op.kind = 'RELEASE' then
          select a.authorization_id, a.expires_at into pay.authorization_id, pay.authorization_expires_at
          from authorizations a where a.authorization_id = op.input ->> 'authorizationId';
        elsif op.kind = 'AUTHORIZE' then
          pay.authorization_expires_at := (conclusion ->> 'expiresAt')::timestamptz;
        end if;
        pay := with_bank_id(pay, op.kind, bank_id);
      end if;
      moved := transition_to(pay, pay_before.state, op, moment);
      moved.bank_at := (conclusion ->> 'bankAt')::timestamptz;
      new_transitions := array_append(new_transitions, moved);
      op.transition_version := pay.version;
    end if;
    if op.status <> op_before.status then
      op.resolved_at := moment;
      op.leased_until := null;
      if op.kind = 'RELEASE' and op.status = 'SUCCEEDED' then
        update authorizations a set released_at = moment where a.authorization_id = op.input ->> 'authorizationId';
      end if;
    end if;

    -- 3. Review: the first reason stands, every piece of evidence is kept, once.
    if review is not null then
      if op.kind = 'AUTHORIZE' and review #>> '{evidence,bankId}' like 'auth\_%' and review #> '{evidence,amountCents}' is not null then
        -- Placed otherwise than asked. It is released when its authorize is resolved.
        insert into authorizations (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
        values (review #>> '{evidence,bankId}', op.id, pay.id, (review #>> '{evidence,amountCents}')::bigint,
                coalesce((review #>> '{evidence,expiresAt}')::timestamptz, moment), moment)
        on conflict (authorization_id) do nothing;
        if op.status <> 'UNRESOLVED' then
          pay.possible_orphan_hold_since := null;
        end if;
      end if;
      review := jsonb_build_array(review || jsonb_build_object('operation', 'op_' || op.id));
      if not coalesce(pay.review_evidence, '[]') @> review then
        pay.review_reason := coalesce(pay.review_reason, review #>> '{0,reason}');
        pay.review_since := coalesce(pay.review_since, moment);
        pay.review_evidence := coalesce(pay.review_evidence, '[]') || review;
      end if;
      if answer <> 'TAKEN' then
        op.leased_until := null;
      end if;
    elsif answer in ('SETTLED', 'STRAY') then
      if audit is null and op.status = 'SUCCEEDED' and op_before.status = 'UNRESOLVED' and bank_id is not null
         and pay.review_evidence is not null and not exists (
           -- A stray hold's release says nothing of the payment, nor the payment of that.
           select from jsonb_array_elements(pay.review_evidence) as e
           left join operations o on o.id = substr(e ->> 'operation', 4)::uuid
           where e #> '{evidence,bankId}' is not null
             or o.input -> 'authorizationId' is distinct from op.input -> 'authorizationId') then
        audit := jsonb_build_object('id', gen_random_uuid(), 'action', 'END_REVIEW', 'actor', 'gateway', 'detail', '{}'::jsonb,
                                    'reason', 'The bank has carried out an operation of this payment, which refutes what was in doubt');
      end if;
      if audit is not null and exists (
           select from operations o
           where o.payment_id = pay.id and o.id <> op.id and o.status = 'UNRESOLVED' and o.leased_until is null) then
        perform record_audit(pay, op.id, audit, moment) where audit ->> 'action' <> 'END_REVIEW';
      elsif audit is not null then
        perform record_review_end(pay, op.id, audit, moment);
        pay.review_reason := null;
        pay.review_since := null;
        pay.review_evidence := null;
      end if;
    end if;

    -- 4. What was resolved without the bank's word is asked about again while the bank remembers.
    if op.status <> 'UNRESOLVED' then
      op.look_again_at := case when is_open_at_bank(op, pay) then ask_again_at(op, moment, request) end;
      if op.look_again_at >= coalesce(op.sent_at, op.created_at) + (request ->> 'replayWindowMs')::bigint * interval '1 millisecond' then
        op.look_again_at := null;
      end if;
    end if;

    if op is distinct from op_before then
      operations_after := array_append(operations_after, op);
    end if;
    if pay is distinct from pay_before then
      payments_after := array_append(payments_after, pay);
    end if;
    operation := to_jsonb(op);
    payment := to_jsonb(pay);
    transition := case
      when to_state is not null then to_jsonb(moved)
      when op.transition_version is not null then
        (select to_jsonb(t) from transitions t where t.payment_id = pay.id and t.version = op.transition_version)
    end;
    return next;
  end loop;

  insert into transitions select * from unnest(new_transitions);

  -- A stray one can become wanted only by the payment that it was told to, whose authorize was unresolved all the while.
  insert into authorizations as known (authorization_id, role, payment_id, amount_cents, expires_at, found_at)
  select p.authorization_id, 'WANTED', p.id, p.amount_cents, p.authorization_expires_at, moment
  from unnest(payments_after) as p join unnest(new_transitions) as t on t.payment_id = p.id and t.to_state = 'AUTHORIZED'
  on conflict (authorization_id) do update set
    role = 'WANTED', amount_cents = excluded.amount_cents, expires_at = excluded.expires_at
  where known.payment_id = excluded.payment_id and known.role = 'STRAY' and known.released_at is null;
  get diagnostics written = row_count;
  if written <> (select count(*) from unnest(new_transitions) as t where t.to_state = 'AUTHORIZED') then
    raise unique_violation using message = 'this authorization is recorded for another payment';
  end if;

  -- Each row as it was read, or nothing is written: whoever changed one did not hold its lock.
  update operations o set
    status = a.status, code = a.code, transition_version = a.transition_version, attempt_purpose = a.attempt_purpose,
    ambiguous_at = a.ambiguous_at, leased_until = a.leased_until, resolved_at = a.resolved_at,
    look_again_at = a.look_again_at
  from unnest(operations_after) as a
  where o.id = a.id and o.attempt_token is not distinct from a.attempt_token and o.status in ('UNRESOLVED', a.status);
  get diagnostics written = row_count;
  if written <> cardinality(operations_after) then
    raise exception 'an operation was changed outside its lock';
  end if;

  update payments p set
    state = a.state, version = a.version, updated_at = a.updated_at, authorization_id = a.authorization_id,
    authorization_expires_at = a.authorization_expires_at, capture_id = a.capture_id, void_id = a.void_id,
    refund_id = a.refund_id, possible_orphan_hold_since = a.possible_orphan_hold_since,
    review_reason = a.review_reason, review_since = a.review_since, review_evidence = a.review_evidence
  from unnest(payments_after) as a left join unnest(new_transitions) as t on t.payment_id = a.id
  where p.id = a.id and p.version = coalesce(t.version - 1, a.version);
  get diagnostics written = row_count;
  if written <> cardinality(payments_after) then
    raise exception 'a payment was changed outside its lock';
  end if;
end $$;

drop trigger if exists authorizations_are_recorded on payments;

-- There may be a hold that no receipt has, or an id that the receipt lacks.
create or replace function is_open_at_bank(op operations, pay payments) returns boolean language sql immutable as $$
  select case op.kind
    when 'AUTHORIZE' then op.status = 'REFUSED' and pay.possible_orphan_hold_since is not null
    when 'RELEASE' then false
    when 'CAPTURE' then op.status = 'SUCCEEDED' and pay.capture_id is null
    when 'REFUND' then op.status = 'SUCCEEDED' and pay.refund_id is null
    else op.status = 'SUCCEEDED' and pay.void_id is null
  end
$$;

-- When the bank is asked again: the longer it has not said what became of a request, the less often; more often while
-- somebody waits for the outcome.
create or replace function ask_again_at(op operations, moment timestamptz, request jsonb) returns timestamptz
language sql immutable as $$
  select moment + greatest(
    coalesce((request ->> 'retryInMs')::int, 5000) * interval '1 millisecond',
    least((moment - coalesce(op.sent_at, op.created_at)) / 20,
          case when op.status = 'UNRESOLVED' then interval '1 minute' else late_look_cap() end))
$$;
