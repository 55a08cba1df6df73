-- A request arrives: decide, under the locks of its key and its payment (for an authorize its order, since there
-- is no payment yet), whether it is a replay, a refusal, in flight, or new; if new, write what makes it ours to
-- send. Each statement in here sees what the locks' last holder committed (VOLATILE, READ COMMITTED), which one
-- plain statement would not. All or nothing by the server, in one round trip.
--
-- items: [{ kind, client, idempotencyKey, input, operationId, token, paymentId, move: { from, to }, leaseMs, maySend }]
-- answer, per item in the given order:
--   KEY_REUSED    the key was used with another input (`operation` is the first one)
--   RESOLVED      answered already, or refused here and now (attempt 0): `operation` holds the final answer
--   CLAIMED       ours: send. Also when the same token asks again because the first answer was lost
--   IN_FLIGHT     the same request is under way, here or in another process
--   ABANDONED     the same request's lease ran out: take it over with claim_again
--   IN_REVIEW     only an operator can settle it
--   BUSY          another operation, `operation`, must end first
--   NOT_ADMITTED  it would have been claimed, but maySend is false: nothing is written
create or replace function claim(items jsonb, at_time timestamptz default null)
returns table (item int, answer text, operation jsonb, payment jsonb, transition jsonb)
language plpgsql as $$
declare
  moment timestamptz;
  request jsonb;
  wanted jsonb;
  op operations;
  pay payments;
  blocker operations;
  refusal text;
  detail jsonb;
begin
  perform wait_briefly(items);
  perform lock_all(array(
    select 'key:' || (r ->> 'client') || ':' || (r ->> 'idempotencyKey') from jsonb_array_elements(items) as r
    union all
    select case when r ->> 'kind' = 'AUTHORIZE' then 'order:' || (r #>> '{input,orderId}')
                else 'payment:' || (r ->> 'paymentId') end
    from jsonb_array_elements(items) as r));
  moment := coalesce(at_time, clock_timestamp());

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
      if moment >= make_timestamptz((wanted ->> 'cardExpiryYear')::int, (wanted ->> 'cardExpiryMonth')::int, 1, 0, 0, 0, 'UTC')
                   + interval '1 month' + interval '1 day' then
        refusal := 'CARD_EXPIRED';
      elsif not (wanted ->> 'allowAnotherForOrder')::boolean then
        -- One that is past PENDING first: it refuses for good, a PENDING one may yet fail.
        select * into pay from payments p
        where p.order_id = wanted ->> 'orderId' and p.state in ('PENDING', 'AUTHORIZED', 'CAPTURED')
        order by (p.state = 'PENDING'), p.id desc limit 1;
        if pay.state = 'PENDING' then
          select * into blocker from operations o where o.payment_id = pay.id and o.status = 'UNRESOLVED';
        elsif found then
          refusal := 'ORDER_ALREADY_HAS_PAYMENT';
        end if;
      end if;
    else
      select * into pay from payments p where p.id = (request ->> 'paymentId')::uuid;
      if not found then
        refusal := 'PAYMENT_NOT_FOUND';
      elsif (wanted ->> 'expectedAmountCents')::bigint <> pay.amount_cents then
        refusal := 'AMOUNT_MISMATCH';
        detail := jsonb_build_object('expectedAmountCents', wanted -> 'expectedAmountCents',
                                     'actualAmountCents', pay.amount_cents);
      elsif request ->> 'kind' = 'RELEASE' then
        perform from stray_holds s where s.authorization_id = wanted ->> 'authorizationId' and s.payment_id = pay.id;
        if not found then
          refusal := 'PAYMENT_NOT_FOUND';
        end if;
      else
        select * into blocker from operations o
        where o.payment_id = pay.id and o.status = 'UNRESOLVED' and o.kind <> 'RELEASE';
        if found then
          null;
        elsif request ->> 'kind' = 'CAPTURE'
              and (pay.state = 'EXPIRED' or pay.state = 'AUTHORIZED' and pay.authorization_expires_at <= moment) then
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
    if refusal is not null then
      insert into operations (id, client, idempotency_key, kind, payment_id, input, status, code, detail, attempt,
                              created_at, resolved_at)
      values ((request ->> 'operationId')::uuid, request ->> 'client', request ->> 'idempotencyKey',
              request ->> 'kind', pay.id, wanted, 'REFUSED', refusal, detail, 0, moment, moment)
      returning * into op;
      answer := 'RESOLVED';
      operation := to_jsonb(op);
      payment := case when pay.id is not null then to_jsonb(pay) end;
      return next;
      continue;
    end if;
    if not (request ->> 'maySend')::boolean then
      answer := 'NOT_ADMITTED';
      operation := null;
      payment := case when pay.id is not null then to_jsonb(pay) end;
      return next;
      continue;
    end if;

    -- ---- from here on nothing refuses ----

    if request ->> 'kind' = 'AUTHORIZE' then
      insert into payments (id, order_id, customer_id, amount_cents, card_brand, card_last4, card_expiry_month,
                            card_expiry_year, allow_another_for_order, state, version, created_at, updated_at)
      values ((request ->> 'paymentId')::uuid, wanted ->> 'orderId', wanted ->> 'customerId',
              (wanted ->> 'amountCents')::bigint, wanted ->> 'cardBrand', wanted ->> 'cardLast4',
              (wanted ->> 'cardExpiryMonth')::smallint, (wanted ->> 'cardExpiryYear')::smallint,
              (wanted ->> 'allowAnotherForOrder')::boolean, 'PENDING', 1, moment, moment)
      returning * into pay;
      insert into transitions (payment_id, version, to_state, at, operation_id, cause, actor)
      values (pay.id, 1, 'PENDING', moment, (request ->> 'operationId')::uuid, 'AUTHORIZE', request ->> 'client');
    end if;
    insert into operations (id, client, idempotency_key, kind, payment_id, input, status, attempt, attempt_token,
                            attempt_purpose, sent_at, leased_until, created_at)
    values ((request ->> 'operationId')::uuid, request ->> 'client', request ->> 'idempotencyKey', request ->> 'kind',
            pay.id, wanted, 'UNRESOLVED', 1, (request ->> 'token')::uuid, 'SEND', moment,
            moment + (request ->> 'leaseMs')::int * interval '1 millisecond', moment)
    returning * into op;
    answer := 'CLAIMED';
    operation := to_jsonb(op);
    payment := to_jsonb(pay);
    return next;
  end loop;
end $$;
