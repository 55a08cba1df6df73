-- A request arrives: decide, under the locks of its key and its payment (for an authorize its order, since there
-- is no payment yet), whether it is a replay, a refusal, in flight, or new; if new, write what makes it ours to
-- send. Each statement in here sees what the locks' last holder committed (VOLATILE, READ COMMITTED), which one
-- plain statement would not. All or nothing by the server, in one round trip.
--
-- What the bank decides for certain is left to it: no clock of ours refuses a capture. Where commits were lost (history.sql)
-- the bank may know the request already: an authorize is claimed as a PROBE then, and a payment that is not found may yet
-- come back.
--
-- items: [{ kind, client, idempotencyKey, input, operationId, token, paymentId, move: { from, to }, leaseMs, maySend,
--           cardIsPast, wasSent, history (history.sql) }]
--   cardIsPast: by the caller's clock; it is refused when two clocks say so.
--   wasSent: it was claimed before, and sent, and that claim is gone.
-- answer, per item in the given order:
--   KEY_REUSED    the key was used with another input (`operation` is the first one)
--   RESOLVED      answered already, or refused here and now (attempt 0): `operation` holds the final answer
--   CLAIMED       ours: send. Also when the same token asks again because the first answer was lost
--   IN_FLIGHT     the same request is under way, here or in another process
--   ABANDONED     the same request's lease ran out: take it over with claim_again
--   IN_REVIEW     only an operator can settle it
--   BUSY          another operation, `operation`, must end first; the payment's authorize, where an expired hold is
--                 still to be released
--   NOT_ADMITTED  it would have been claimed, but maySend is false, or its payment may have been lost: nothing is written
create or replace function claim(items jsonb, at_time timestamptz default null)
returns table (item int, answer text, operation jsonb, payment jsonb, transition jsonb)
language plpgsql
-- A plan made for an array of one would cost more than it saves, each time.
set plan_cache_mode = force_generic_plan as $$
declare
  moment timestamptz;
  lost boolean;
  request jsonb;
  wanted jsonb;
  op operations;
  pay payments;
  blocker operations;
  held record;
  refusal text;
  detail jsonb;
  -- Written at the end, all in one statement for each table: the checks and indexes of a table cost as much to make
  -- ready as a row.
  new_payments payments[] := '{}';
  new_operations operations[] := '{}';
  new_transitions transitions[] := '{}';
  -- Those of `new_payments`: cheaper to look into.
  new_orders text[] := '{}';
begin
  perform wait_briefly(items);
  perform lock_all(array(
    select 'key:' || (r ->> 'client') || ':' || (r ->> 'idempotencyKey') from jsonb_array_elements(items) as r
    union all
    select case when r ->> 'kind' = 'AUTHORIZE' then 'order:' || (r #>> '{input,orderId}')
                else 'payment:' || (r ->> 'paymentId') end
    from jsonb_array_elements(items) as r));
  moment := coalesce(at_time, clock_timestamp());
  lost := is_history_lost(items #> '{0,history}', moment);

  for item, request in select (ordinality - 1)::int, value from jsonb_array_elements(items) with ordinality loop
    wanted := request -> 'input';
    pay := null;
    blocker := null;
    refusal := null;
    detail := null;
    transition := null;

    select * into op from operations o
    where o.client = request ->> 'client' and o.idempotency_key = request ->> 'idempotencyKey';
    if found then
      answer := case
        when op.kind <> request ->> 'kind' or op.input <> wanted then 'KEY_REUSED'
        when op.status <> 'UNRESOLVED' then 'RESOLVED'
        when op.attempt_token = (request ->> 'token')::uuid then 'CLAIMED'
        when op.leased_until is null then 'IN_REVIEW'
        when op.leased_until > moment then 'IN_FLIGHT'
        else 'ABANDONED'
      end;
      operation := to_jsonb(op);
      payment := (select to_jsonb(p) from payments p where p.id = op.payment_id);
      transition := (select to_jsonb(t) from transitions t
                     where t.payment_id = op.payment_id and t.version = op.transition_version);
      return next;
      continue;
    end if;

    if request ->> 'kind' = 'AUTHORIZE' then
      -- A card is good to the last day of its month anywhere on earth: a day's grace.
      if coalesce((request ->> 'cardIsPast')::boolean, true)
         and moment >= make_timestamptz((wanted ->> 'cardExpiryYear')::int, (wanted ->> 'cardExpiryMonth')::int, 1, 0, 0, 0, 'UTC')
                       + interval '1 month' + interval '1 day' then
        refusal := 'CARD_EXPIRED';
      elsif not (wanted ->> 'allowAnotherForOrder')::boolean then
        -- One that is past PENDING first: it refuses for good, unless it is about to end; a PENDING one may yet fail.
        -- With what is under way on it in one look: what settles between two would be seen in neither.
        select p as pay, (select o from operations o
                          where o.payment_id = p.id and o.status = 'UNRESOLVED' and o.kind <> 'RELEASE') as under_way
        into held from payments p
        where p.order_id = wanted ->> 'orderId' and p.state in ('PENDING', 'AUTHORIZED', 'CAPTURED')
        order by (p.state = 'PENDING'), p.id desc limit 1;
        if found then
          pay := held.pay;
          blocker := held.under_way;
        elsif wanted ->> 'orderId' = any(new_orders) then
          -- One of this very batch.
          select * into pay from unnest(new_payments) as p where p.order_id = wanted ->> 'orderId' and p.state = 'PENDING' limit 1;
          select * into blocker from unnest(new_operations) as o where o.payment_id = pay.id;
        end if;
        if pay.state = 'AUTHORIZED' and pay.authorization_expires_at <= moment then
          if blocker.id is null then
            select * into blocker from operations o
            where o.payment_id = pay.id and o.kind = 'AUTHORIZE' and o.status = 'SUCCEEDED';
          end if;
        elsif pay.id is not null and (blocker.id is null or blocker.kind = 'CAPTURE') then
          blocker := null;
          refusal := 'ORDER_ALREADY_HAS_PAYMENT';
        end if;
      end if;
    else
      select * into pay from payments p where p.id = (request ->> 'paymentId')::uuid;
      if pay.id is null then
        refusal := 'PAYMENT_NOT_FOUND';
      elsif (wanted ->> 'expectedAmountCents')::bigint <> pay.amount_cents then
        refusal := 'AMOUNT_MISMATCH';
        detail := jsonb_build_object('expectedAmountCents', wanted -> 'expectedAmountCents',
                                     'actualAmountCents', pay.amount_cents);
      elsif request ->> 'kind' = 'RELEASE' then
        -- Whatever says that it is a stray one: what a payment counts on is not voided, nor what its authorize may yet find.
        perform from authorizations a join operations o on o.id = a.operation_id
        where a.authorization_id = wanted ->> 'authorizationId' and a.payment_id = pay.id and a.role = 'STRAY'
          and o.status <> 'UNRESOLVED';
        if not found then
          refusal := 'PAYMENT_NOT_FOUND';
        end if;
      else
        select * into blocker from operations o
        where o.payment_id = pay.id and o.status = 'UNRESOLVED' and o.kind <> 'RELEASE';
        if blocker.id is not null then
          null;
        elsif request ->> 'kind' = 'CAPTURE' and pay.state = 'EXPIRED' then
          refusal := 'AUTHORIZATION_EXPIRED';
        elsif pay.state <> request #>> '{move,from}'
              or request ->> 'kind' = 'EXPIRE' and pay.authorization_expires_at > moment then
          refusal := 'INVALID_TRANSITION';
          detail := jsonb_build_object('from', pay.state, 'to', request #> '{move,to}');
        elsif request ->> 'kind' = 'REFUND' and pay.capture_id is null then
          refusal := 'BANK_REFERENCE_MISSING';
        end if;
      end if;
    end if;

    if blocker.id is not null then
      answer := 'BUSY';
      operation := to_jsonb(blocker);
      payment := to_jsonb(pay);
      return next;
      continue;
    end if;
    if refusal is null and not (request ->> 'maySend')::boolean or refusal = 'PAYMENT_NOT_FOUND' and lost then
      answer := 'NOT_ADMITTED';
      operation := null;
      payment := case when pay.id is not null then to_jsonb(pay) end;
      return next;
      continue;
    end if;

    op := null;
    op.id := (request ->> 'operationId')::uuid;
    op.client := request ->> 'client';
    op.idempotency_key := request ->> 'idempotencyKey';
    op.kind := request ->> 'kind';
    op.input := wanted;
    op.created_at := moment;
    if refusal is not null then
      answer := 'RESOLVED';
      op.status := 'REFUSED';
      op.code := refusal;
      op.detail := detail;
      op.attempt := 0;
      op.resolved_at := moment;
    else
      answer := 'CLAIMED';
      op.status := 'UNRESOLVED';
      op.attempt := 1;
      op.attempt_token := (request ->> 'token')::uuid;
      -- (A process of the release before says nothing of it, and sends what it has claimed.)
      op.attempt_purpose := case when lost and op.kind = 'AUTHORIZE' and not (request ->> 'wasSent')::boolean
                                 then 'PROBE' else 'SEND' end;
      op.sent_at := case when op.attempt_purpose = 'SEND' then moment end;
      op.leased_until := moment + (request ->> 'leaseMs')::int * interval '1 millisecond';
    end if;
    if op.kind = 'AUTHORIZE' and coalesce(refusal, '') <> 'ORDER_ALREADY_HAS_PAYMENT' then
      pay := new_payment(request, moment);
      new_transitions := array_append(new_transitions, transition_to(pay, null, op, moment));
      if refusal is not null then
        -- Declined as if by the bank: the receipt is the same.
        pay.state := 'DECLINED';
        pay.version := 2;
        op.transition_version := 2;
        new_transitions := array_append(new_transitions, transition_to(pay, 'PENDING', op, moment));
        transition := to_jsonb(new_transitions[cardinality(new_transitions)]);
      end if;
      new_payments := array_append(new_payments, pay);
      new_orders := array_append(new_orders, pay.order_id);
    end if;
    op.payment_id := pay.id;
    new_operations := array_append(new_operations, op);
    operation := to_jsonb(op);
    payment := case when pay.id is not null then to_jsonb(pay) end;
    return next;
  end loop;

  if cardinality(new_operations) > 0 then
    insert into payments select * from unnest(new_payments);
    insert into transitions select * from unnest(new_transitions);
    insert into operations select * from unnest(new_operations);
    if lost then
      insert into payment_successors select right(p.id::text, 12), p.id from unnest(new_payments) as p on conflict do nothing;
    end if;
  end if;
end $$;
