-- What came of an exchange with the bank, written whole or not at all.
--
-- A FACT (the bank has done it) is accepted from any attempt while the operation is unresolved, whoever brings it.
-- A VERDICT (it did not happen) needs the current claim, or, of what is in review, an operator's word. LEAVE says that
-- this run ends without knowing; REVIEW that only an operator can settle it. An authorization that comes when its
-- operation was resolved without it is a stray hold. An authorization that is another payment's, or its stray hold,
-- breaks a unique index or is as good as that: the caller sends it to review. An id that comes late, after "done, id
-- unknown", is kept.
--
-- What is resolved without the bank's word is looked at again late: `lateLooksMs` after its send, while the bank
-- remembers (`replayWindowMs`); LEAVE of a late look asks again `retryInMs` later, or, null, at the next of those times.
-- An operator's word (`audit`) that settles something leaves a line, and ends the review unless another operation
-- waits for one. A hold that is known as evidence only, of an authorize that is resolved, is a stray one.
--
-- items: [{ operationId, paymentId, orderId | null, token, calls, ambiguous, leaseMs, move: { from, to }, conclusion,
--           lateLooksMs, replayWindowMs, audit | null }]
-- ambiguous: of the exchange that just ended; earlier ones were written when the next was claimed.
-- conclusion: { is: 'FACT', bankId | null, bankAt | null, expiresAt | null }
--           | { is: 'VERDICT', code, to: payment state | null, orphan: boolean }
--           | { is: 'LEAVE', retryInMs }
--           | { is: 'REVIEW', isFact, orphan }: that the bank did something else is a fact; anything else needs the
--             current claim. orphan: there may be a hold at the bank
--   each may carry review: { reason, evidence }.
-- answer: SETTLED (now or before), STRAY, LEFT, or TAKEN (another holds the claim that a verdict needs).
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
  review jsonb;
  audit jsonb;
  op operations;
  pay payments;
  op_before operations;
  pay_before payments;
  stray stray_holds;
  moved transitions;
  to_state text;
  is_ours boolean;
  is_open boolean;
  forgotten timestamptz;
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
    review := nullif(conclusion -> 'review', 'null');
    audit := nullif(request -> 'audit', 'null');
    to_state := null;
    select * into op from operations o where o.id = (request ->> 'operationId')::uuid;
    select * into pay from payments p where p.id = op.payment_id;
    op_before := op;
    pay_before := pay;
    -- What waits for an operator's word is nobody's.
    is_ours := op.status = 'UNRESOLVED' and (
      op.attempt_token = (request ->> 'token')::uuid or audit is not null and op.leased_until is null);

    if conclusion ->> 'is' = 'FACT' then
      if op.status = 'UNRESOLVED' then
        if op.kind = 'RELEASE' then
          update stray_holds s set released_at = moment
          where s.authorization_id = op.input ->> 'authorizationId' returning * into stray;
          if pay.state = 'FAILED' then
            to_state := 'VOIDED';
          end if;
        elsif pay.state = request #>> '{move,from}' then
          to_state := request #>> '{move,to}';
        end if;
        if to_state is null and op.kind <> 'RELEASE' then
          -- It happened at the bank and does not fit the receipt: nobody but an operator can say why.
          answer := 'LEFT';
          review := jsonb_build_object('reason', 'The bank has carried out an operation that does not fit the payment''s state',
                                       'evidence', conclusion || jsonb_build_object('kind', op.kind, 'state', pay.state));
        else
          answer := 'SETTLED';
          op.status := 'SUCCEEDED';
          if op.kind = 'AUTHORIZE' then
            -- It would be voided under the payment's feet.
            perform from stray_holds s where s.authorization_id = conclusion ->> 'bankId';
            if found then
              raise unique_violation using message = 'this authorization is recorded as a stray hold';
            end if;
          end if;
        end if;
      elsif op.kind = 'AUTHORIZE' and pay.authorization_id is distinct from conclusion ->> 'bankId' then
        answer := 'STRAY';
        insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
        values (conclusion ->> 'bankId', op.id, pay.id, pay.amount_cents, (conclusion ->> 'expiresAt')::timestamptz, moment)
        on conflict (authorization_id) do nothing;
        perform from stray_holds s where s.authorization_id = conclusion ->> 'bankId' and s.operation_id = op.id;
        if not found or exists (select from payments p where p.authorization_id = conclusion ->> 'bankId')
           or exists (select from unnest(payments_after) as p where p.authorization_id = conclusion ->> 'bankId') then
          raise unique_violation using message = 'this authorization is recorded for another payment';
        end if;
        pay.possible_orphan_hold_since := null;
      else
        answer := 'SETTLED';
        if op.status = 'SUCCEEDED' then
          if op.kind = 'CAPTURE' then
            pay.capture_id := coalesce(pay.capture_id, conclusion ->> 'bankId');
          elsif op.kind in ('VOID', 'EXPIRE') then
            pay.void_id := coalesce(pay.void_id, conclusion ->> 'bankId');
          elsif op.kind = 'REFUND' then
            pay.refund_id := coalesce(pay.refund_id, conclusion ->> 'bankId');
          end if;
        elsif not exists (select from stray_holds s where s.authorization_id = conclusion ->> 'bankId') then
          review := jsonb_build_object('reason', 'The bank has carried out an operation that was answered as refused',
                                       'evidence', conclusion || jsonb_build_object('kind', op.kind, 'code', op.code));
        end if;
      end if;

    elsif conclusion ->> 'is' = 'VERDICT' then
      answer := case when is_ours or op.status <> 'UNRESOLVED' then 'SETTLED' else 'TAKEN' end;
      if is_ours then
        to_state := conclusion ->> 'to';
        op.status := 'REFUSED';
        op.code := conclusion ->> 'code';
        if op.code = 'AUTHORIZATION_EXPIRED' then
          -- The bank decides when; from now on the sweep may release the hold.
          pay.authorization_expires_at := least(pay.authorization_expires_at, moment);
        end if;
      else
        review := null;
        audit := null;
      end if;

    elsif not is_ours then
      answer := case when op.status = 'UNRESOLVED' then 'TAKEN' else 'SETTLED' end;
      if not coalesce((conclusion ->> 'isFact')::boolean, false) then
        review := null;
      end if;

    else
      answer := 'LEFT';
      if (request ->> 'ambiguous')::boolean then
        op.ambiguous_at := op.sent_at;
      end if;
      -- The attempt is over: what it was for shall not be taken for a send whose outcome nobody knows.
      op.attempt_purpose := 'PROBE';
      -- Recovery may go on once no send of ours can still be at work, and not before retryInMs; the longer the bank has
      -- not said it, the less often it is asked.
      op.leased_until := case when conclusion ->> 'is' = 'LEAVE' then greatest(
        moment + (conclusion ->> 'retryInMs')::int * interval '1 millisecond',
        moment + least((moment - op.created_at) / 20, interval '1 minute'),
        op.ambiguous_at + (request ->> 'leaseMs')::int * interval '1 millisecond') end;
      if (conclusion ->> 'orphan')::boolean then
        pay.possible_orphan_hold_since := coalesce(pay.possible_orphan_hold_since, moment);
      end if;
    end if;

    if to_state is not null then
      pay.state := to_state;
      pay.version := pay.version + 1;
      pay.updated_at := moment;
      pay.possible_orphan_hold_since := case when (conclusion ->> 'orphan')::boolean then moment end;
      if op.kind = 'AUTHORIZE' then
        pay.authorization_id := conclusion ->> 'bankId';
        pay.authorization_expires_at := (conclusion ->> 'expiresAt')::timestamptz;
      elsif op.kind = 'RELEASE' then
        pay.authorization_id := stray.authorization_id;
        pay.authorization_expires_at := stray.expires_at;
        pay.void_id := conclusion ->> 'bankId';
      elsif op.kind = 'CAPTURE' then
        pay.capture_id := conclusion ->> 'bankId';
      elsif op.kind in ('VOID', 'EXPIRE') then
        pay.void_id := conclusion ->> 'bankId';
      elsif op.kind = 'REFUND' then
        pay.refund_id := conclusion ->> 'bankId';
      end if;
      moved := null;
      moved.payment_id := pay.id;
      moved.version := pay.version;
      moved.from_state := pay_before.state;
      moved.to_state := to_state;
      moved.at := moment;
      moved.bank_at := (conclusion ->> 'bankAt')::timestamptz;
      moved.operation_id := op.id;
      moved.cause := op.kind;
      moved.actor := op.client;
      new_transitions := array_append(new_transitions, moved);
      op.transition_version := pay.version;
    end if;
    if op.status <> op_before.status then
      op.resolved_at := moment;
      op.leased_until := null;
    end if;

    if review is not null then
      -- The first reason stands; every piece of evidence is kept, once.
      review := jsonb_build_array(review || jsonb_build_object('operation', 'op_' || op.id));
      if not coalesce(pay.review_evidence, '[]') @> review then
        pay.review_reason := coalesce(pay.review_reason, review #>> '{0,reason}');
        pay.review_since := coalesce(pay.review_since, moment);
        pay.review_evidence := coalesce(pay.review_evidence, '[]') || review;
      end if;
      if answer <> 'TAKEN' and op.status = 'UNRESOLVED' then
        op.leased_until := null;
      end if;
    end if;

    if op.kind = 'AUTHORIZE' and op.status <> 'UNRESOLVED' and pay.review_evidence is not null then
      -- The bank has placed what was not asked for, and says so whenever it is asked: nothing else is to be found.
      perform lock_all(array(
        select 'hold:' || (hold ->> 'bankId') from jsonb_path_query(pay.review_evidence, '$[*].evidence') as hold));
      insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
      select hold ->> 'bankId', op.id, pay.id, (hold ->> 'amountCents')::bigint,
             coalesce((hold ->> 'expiresAt')::timestamptz, moment), moment
      from jsonb_path_query(pay.review_evidence, '$[*].evidence') as hold
      where hold ->> 'bankId' like 'auth\_%' and hold ->> 'amountCents' is not null
        and hold ->> 'bankId' is distinct from pay.authorization_id
        and not exists (select from payments p where p.authorization_id = hold ->> 'bankId')
        and not exists (select from unnest(payments_after) as p where p.authorization_id = hold ->> 'bankId')
      on conflict (authorization_id) do nothing;
      if found then
        pay.possible_orphan_hold_since := null;
      end if;
    end if;

    if audit is not null and review is null and answer in ('SETTLED', 'STRAY') then
      perform from operations o
      where o.payment_id = pay.id and o.id <> op.id and o.status = 'UNRESOLVED' and o.leased_until is null;
      if found then
        -- Another operation of the payment waits for a word of its own.
        perform record_audit(pay, op.id, audit, moment);
      else
        perform record_review_end(pay, op.id, audit, moment);
        pay.review_reason := null;
        pay.review_since := null;
        pay.review_evidence := null;
      end if;
    end if;

    is_open := case
      when op.status = 'REFUSED' then op.kind = 'AUTHORIZE' and pay.possible_orphan_hold_since is not null
      when op.status = 'SUCCEEDED' then
        op.kind = 'CAPTURE' and pay.capture_id is null or op.kind = 'REFUND' and pay.refund_id is null
        or op.kind in ('VOID', 'EXPIRE') and pay.void_id is null
      else false
    end;
    if op.status <> 'UNRESOLVED' and (is_open or op.look_again_at is not null) then
      forgotten := op.sent_at + (request ->> 'replayWindowMs')::bigint * interval '1 millisecond';
      op.look_again_at := case
        when not is_open then null
        when conclusion ->> 'is' = 'LEAVE' and conclusion ->> 'retryInMs' is not null then
          nullif(least(moment + (conclusion ->> 'retryInMs')::int * interval '1 millisecond', forgotten), forgotten)
        else (select min(op.sent_at + late::int * interval '1 millisecond')
              from jsonb_array_elements_text(request -> 'lateLooksMs') as late
              where op.sent_at + late::int * interval '1 millisecond' > moment)
      end;
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
