-- What came of an exchange with the bank, written whole or not at all.
--
-- A FACT (the bank has done it) is accepted from any attempt while the operation is unresolved, whoever brings it.
-- A VERDICT (it did not happen) needs the current claim. LEAVE says that this run ends without knowing; REVIEW that
-- only an operator can settle it. An authorization that comes when its operation was resolved without it is a stray
-- hold. An id that comes late, after "done, id unknown", is kept.
--
-- What is resolved without the bank's word is looked at again late: `lateLooksMs` after its send, while the bank
-- remembers (`replayWindowMs`); LEAVE of a late look asks again `retryInMs` later, or, null, at the next of those times.
-- An operator's word (`audit`) that settles something leaves a line, and ends the review.
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
language plpgsql as $$
declare
  moment timestamptz;
  request jsonb;
  conclusion jsonb;
  review jsonb;
  audit jsonb;
  op operations;
  pay payments;
  stray stray_holds;
  to_state text;
  is_open boolean;
begin
  perform lock_payments(items);
  moment := coalesce(at_time, clock_timestamp());

  for item, request in select (ordinality - 1)::int, value from jsonb_array_elements(items) with ordinality loop
    conclusion := request -> 'conclusion';
    review := nullif(conclusion -> 'review', 'null');
    audit := nullif(request -> 'audit', 'null');
    to_state := null;
    perform record_calls((request ->> 'operationId')::uuid, request -> 'calls');
    select * into op from operations o where o.id = (request ->> 'operationId')::uuid;
    select * into pay from payments p where p.id = op.payment_id;

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
          update operations o set status = 'SUCCEEDED', resolved_at = moment, leased_until = null,
            transition_version = case when to_state is not null then pay.version + 1 end
          where o.id = op.id;
        end if;
      elsif op.kind = 'AUTHORIZE' and pay.authorization_id is distinct from conclusion ->> 'bankId' then
        answer := 'STRAY';
        insert into stray_holds (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
        values (conclusion ->> 'bankId', op.id, pay.id, pay.amount_cents, (conclusion ->> 'expiresAt')::timestamptz, moment)
        on conflict (authorization_id) do nothing;
        update payments p set possible_orphan_hold_since = null
        where p.id = pay.id and p.possible_orphan_hold_since is not null;
      else
        answer := 'SETTLED';
        if op.status = 'SUCCEEDED' and op.kind <> 'AUTHORIZE' then
          update payments p set
            capture_id = case when op.kind = 'CAPTURE' then coalesce(p.capture_id, conclusion ->> 'bankId') else p.capture_id end,
            void_id = case when op.kind in ('VOID', 'EXPIRE') then coalesce(p.void_id, conclusion ->> 'bankId') else p.void_id end,
            refund_id = case when op.kind = 'REFUND' then coalesce(p.refund_id, conclusion ->> 'bankId') else p.refund_id end
          where p.id = pay.id and conclusion ->> 'bankId' is not null;
        elsif op.status = 'REFUSED'
              and not exists (select from stray_holds s where s.authorization_id = conclusion ->> 'bankId') then
          review := jsonb_build_object('reason', 'The bank has carried out an operation that was answered as refused',
                                       'evidence', conclusion || jsonb_build_object('kind', op.kind, 'code', op.code));
        end if;
      end if;

    elsif conclusion ->> 'is' = 'VERDICT' then
      answer := case when op.status <> 'UNRESOLVED' or op.attempt_token = (request ->> 'token')::uuid
                     then 'SETTLED' else 'TAKEN' end;
      if op.status <> 'UNRESOLVED' or answer = 'TAKEN' then
        review := null;
      else
        to_state := conclusion ->> 'to';
        update operations o set status = 'REFUSED', code = conclusion ->> 'code', resolved_at = moment,
          leased_until = null,
          transition_version = case when to_state is not null then pay.version + 1 end
        where o.id = op.id;
        if conclusion ->> 'code' = 'AUTHORIZATION_EXPIRED' then
          -- The bank decides when; from now on the sweep may release the hold.
          update payments p set authorization_expires_at = least(p.authorization_expires_at, moment) where p.id = pay.id;
        end if;
      end if;

    elsif op.status <> 'UNRESOLVED' or op.attempt_token <> (request ->> 'token')::uuid then
      answer := case when op.status = 'UNRESOLVED' then 'TAKEN' else 'SETTLED' end;
      if not coalesce((conclusion ->> 'isFact')::boolean, false) then
        review := null;
      end if;

    else
      answer := 'LEFT';
      -- Recovery may go on once no send of ours can still be at work, and not before retryInMs.
      update operations o set
        ambiguous_at = case when (request ->> 'ambiguous')::boolean then o.sent_at else o.ambiguous_at end,
        -- The attempt is over: what it was for shall not be taken for a send whose outcome nobody knows.
        attempt_purpose = 'PROBE',
        leased_until = case when conclusion ->> 'is' = 'LEAVE' then greatest(
          moment + (conclusion ->> 'retryInMs')::int * interval '1 millisecond',
          case when (request ->> 'ambiguous')::boolean then o.sent_at else o.ambiguous_at end
            + (request ->> 'leaseMs')::int * interval '1 millisecond') end
      where o.id = op.id and o.status = 'UNRESOLVED' and o.attempt_token = (request ->> 'token')::uuid;
      if (conclusion ->> 'orphan')::boolean then
        update payments p set possible_orphan_hold_since = moment
        where p.id = pay.id and p.possible_orphan_hold_since is null;
      end if;
    end if;

    if to_state is not null then
      update payments p set
        state = to_state,
        version = p.version + 1,
        updated_at = moment,
        authorization_id = case when op.kind = 'AUTHORIZE' and to_state = 'AUTHORIZED' then conclusion ->> 'bankId'
                                when op.kind = 'RELEASE' then stray.authorization_id
                                else p.authorization_id end,
        authorization_expires_at = case when op.kind = 'AUTHORIZE' and to_state = 'AUTHORIZED' then (conclusion ->> 'expiresAt')::timestamptz
                                        when op.kind = 'RELEASE' then stray.expires_at
                                        else p.authorization_expires_at end,
        capture_id = case when op.kind = 'CAPTURE' then conclusion ->> 'bankId' else p.capture_id end,
        void_id = case when op.kind in ('VOID', 'EXPIRE', 'RELEASE') then conclusion ->> 'bankId' else p.void_id end,
        refund_id = case when op.kind = 'REFUND' then conclusion ->> 'bankId' else p.refund_id end,
        possible_orphan_hold_since = case when (conclusion ->> 'orphan')::boolean then moment end
      where p.id = pay.id and p.state = pay.state and p.version = pay.version;
      if not found then
        raise exception 'payment % was changed outside its lock', pay.id;
      end if;
      insert into transitions (payment_id, version, from_state, to_state, at, bank_at, operation_id, cause, actor)
      values (pay.id, pay.version + 1, pay.state, to_state, moment, (conclusion ->> 'bankAt')::timestamptz, op.id,
              op.kind, op.client);
    end if;

    if review is not null then
      -- The first reason stands; every piece of evidence is kept, once.
      review := jsonb_build_array(review || jsonb_build_object('operation', 'op_' || op.id));
      update payments p set
        review_reason = coalesce(p.review_reason, review #>> '{0,reason}'),
        review_since = coalesce(p.review_since, moment),
        review_evidence = coalesce(p.review_evidence, '[]') || review
      where p.id = pay.id and not coalesce(p.review_evidence, '[]') @> review;
      if answer <> 'TAKEN' then
        update operations o set leased_until = null where o.id = op.id and o.status = 'UNRESOLVED';
      end if;
    end if;

    if audit is not null and review is null and answer in ('SETTLED', 'STRAY') then
      perform end_review(p, op.id, audit, moment) from payments p where p.id = pay.id;
    end if;

    select * into op from operations o where o.id = op.id;
    select * into pay from payments p where p.id = op.payment_id;
    is_open := case
      when op.status = 'REFUSED' then op.kind = 'AUTHORIZE' and pay.possible_orphan_hold_since is not null
      when op.status = 'SUCCEEDED' then
        op.kind = 'CAPTURE' and pay.capture_id is null or op.kind = 'REFUND' and pay.refund_id is null
        or op.kind in ('VOID', 'EXPIRE') and pay.void_id is null
      else false
    end;
    if is_open or op.look_again_at is not null then
      update operations o set look_again_at = case
        when not is_open then null
        when conclusion ->> 'is' = 'LEAVE' and conclusion ->> 'retryInMs' is not null then
          nullif(least(moment + (conclusion ->> 'retryInMs')::int * interval '1 millisecond', forgotten), forgotten)
        else (select min(o.sent_at + late::int * interval '1 millisecond')
              from jsonb_array_elements_text(request -> 'lateLooksMs') as late
              where o.sent_at + late::int * interval '1 millisecond' > moment)
      end
      from (select op.sent_at + (request ->> 'replayWindowMs')::bigint * interval '1 millisecond' as forgotten) as bank
      where o.id = op.id and o.status <> 'UNRESOLVED'
      returning o.* into op;
    end if;

    operation := to_jsonb(op);
    payment := to_jsonb(pay);
    transition := (select to_jsonb(t) from transitions t
                   where t.payment_id = pay.id and t.version = op.transition_version);
    return next;
  end loop;
end $$;
