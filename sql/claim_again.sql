-- The next exchange of an operation that is under way: one claim per send, compare-and-set on the attempt's token.
-- The holder passes its token as afterToken; without one it is a takeover, and only an expired lease gives way. Only
-- an operator (`byOperator`) takes over what waits in review; `audit` is the line that it leaves. `late`: the operation
-- was resolved without the bank's word, and it is time to ask once more; nothing but a probe is claimed so.
-- What the last exchange showed (its bank calls, whether it was ambiguous) is written in the same statement, so a
-- crash between two exchanges loses nothing.
--
-- items: [{ operationId, paymentId, orderId | null, token, afterToken | null, purpose: SEND | PROBE, ambiguous,
--           calls, leaseMs, replayWindowMs, late, byOperator, audit | null }]
-- answer: CLAIMED, RESOLVED (it has its final answer), or TAKEN (another holds it, or only an operator may).
-- quiet: no attempt that may have been carried out can still be at work in the bank.
-- replayable: the bank still remembers an answer to the last send, if it gave one.
create or replace function claim_again(items jsonb, at_time timestamptz default null)
returns table (item int, answer text, operation jsonb, payment jsonb, transition jsonb, quiet boolean, replayable boolean)
language plpgsql as $$
declare
  moment timestamptz;
  request jsonb;
  audit jsonb;
  is_late boolean;
  by_operator boolean;
  op operations;
begin
  perform lock_payments(items);
  moment := coalesce(at_time, clock_timestamp());
  perform record_calls(items);

  for item, request in select (ordinality - 1)::int, value from jsonb_array_elements(items) with ordinality loop
    audit := nullif(request -> 'audit', 'null');
    is_late := coalesce((request ->> 'late')::boolean, false);
    by_operator := coalesce((request ->> 'byOperator')::boolean, false);
    select * into op from operations o where o.id = (request ->> 'operationId')::uuid;
    if is_late and op.attempt_token is distinct from (request ->> 'token')::uuid then
      update operations o set
        attempt = o.attempt + 1,
        attempt_token = (request ->> 'token')::uuid,
        attempt_purpose = 'PROBE',
        look_again_at = moment + (request ->> 'leaseMs')::int * interval '1 millisecond'
      where o.id = op.id and o.status <> 'UNRESOLVED' and o.look_again_at is not null
        and (o.look_again_at <= moment or by_operator);
      answer := case when found then 'CLAIMED' else 'TAKEN' end;
    elsif not is_late and op.status <> 'UNRESOLVED' then
      answer := 'RESOLVED';
    elsif op.attempt_token = (request ->> 'token')::uuid then
      answer := 'CLAIMED';
    else
      update operations o set
        attempt = o.attempt + 1,
        attempt_token = (request ->> 'token')::uuid,
        attempt_purpose = request ->> 'purpose',
        -- Taken over from a process that may have sent: nobody knows what came of it.
        ambiguous_at = case when (request ->> 'ambiguous')::boolean
                              or request ->> 'afterToken' is null and o.attempt_purpose = 'SEND'
                            then o.sent_at else o.ambiguous_at end,
        sent_at = case when request ->> 'purpose' = 'SEND' then moment else o.sent_at end,
        leased_until = moment + (request ->> 'leaseMs')::int * interval '1 millisecond'
      where o.id = op.id and o.status = 'UNRESOLVED'
        and (o.attempt_token = (request ->> 'afterToken')::uuid
             or request ->> 'afterToken' is null
                and (o.leased_until <= moment or by_operator and o.leased_until is null));
      answer := case when found then 'CLAIMED' else 'TAKEN' end;
    end if;

    if answer = 'CLAIMED' and audit is not null then
      perform record_audit(p, op.id, audit, moment) from payments p where p.id = op.payment_id;
    end if;

    select * into op from operations o where o.id = (request ->> 'operationId')::uuid;
    quiet := coalesce(op.ambiguous_at + (request ->> 'leaseMs')::int * interval '1 millisecond' <= moment, true);
    replayable := op.sent_at + (request ->> 'replayWindowMs')::bigint * interval '1 millisecond' > moment;
    operation := to_jsonb(op);
    payment := (select to_jsonb(p) from payments p where p.id = (request ->> 'paymentId')::uuid);
    transition := (select to_jsonb(t) from transitions t
                   where t.payment_id = (request ->> 'paymentId')::uuid
                     and t.version = op.transition_version);
    return next;
  end loop;
end $$;
