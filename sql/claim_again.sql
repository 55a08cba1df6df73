-- The next exchange of an operation: one claim per send, compare-and-set on the attempt's token. The holder passes its
-- token as afterToken; without one it is a takeover, and only an expired lease gives way, or, to an operator (`audit` is
-- the line that it leaves), what waits in review. Of what was resolved without the bank's word, `late`, the lease is
-- look_again_at, nothing but a probe is claimed, and an operator need not wait for it.
-- What the last exchange showed (its bank calls, whether it was ambiguous) is written in the same statement, so a
-- crash between two exchanges loses nothing.
--
-- items: [{ operationId, paymentId, orderId | null, token, afterToken | null, purpose: SEND | PROBE, ambiguous,
--           calls, leaseMs, replayWindowMs, late, keyed, byOperator, audit | null }]
--   keyed: the caller knows how the bank's key of such an operation is made; one of the release before does not.
-- answer: CLAIMED, RESOLVED (it has its final answer), TAKEN (another holds it, or only an operator may), or GONE (there
--   is no such operation: its claim was lost).
-- quiet: no attempt that may have been carried out can still be at work in the bank.
-- replayable: the bank still remembers an answer to the last send, if it gave one.
create or replace function claim_again(items jsonb, at_time timestamptz default null)
returns table (item int, answer text, operation jsonb, payment jsonb, transition jsonb, quiet boolean, replayable boolean)
language plpgsql as $$
declare
  moment timestamptz;
  request jsonb;
  audit jsonb;
  lease interval;
  is_late boolean;
  is_open boolean;
  by_operator boolean;
  op operations;
begin
  perform lock_payments(items);
  moment := coalesce(at_time, clock_timestamp());
  perform record_calls(items);

  for item, request in select (ordinality - 1)::int, value from jsonb_array_elements(items) with ordinality loop
    audit := nullif(request -> 'audit', 'null');
    lease := (request ->> 'leaseMs')::int * interval '1 millisecond';
    by_operator := coalesce((request ->> 'byOperator')::boolean, false);
    select * into op from operations o where o.id = (request ->> 'operationId')::uuid;
    -- One that was lost and claimed once more is under way again.
    is_late := coalesce((request ->> 'late')::boolean, false) and op.status <> 'UNRESOLVED';
    is_open := case
      when is_late then by_operator or op.look_again_at is not null and is_late_look_due(op.look_again_at, moment)
      when request ->> 'afterToken' is not null then op.attempt_token = (request ->> 'afterToken')::uuid
      else (request ? 'keyed' or not is_keyed(op.id)) and (op.leased_until <= moment or by_operator and op.leased_until is null)
    end;

    if op.id is null then
      answer := 'GONE';
    elsif not is_late and op.status <> 'UNRESOLVED' then
      answer := 'RESOLVED';
    elsif op.attempt_token = (request ->> 'token')::uuid then
      answer := 'CLAIMED';
    elsif is_open is not true then
      answer := 'TAKEN';
    else
      update operations o set
        attempt = o.attempt + 1,
        attempt_token = (request ->> 'token')::uuid,
        attempt_purpose = request ->> 'purpose',
        -- Taken over from a process that may have sent: nobody knows what came of it.
        ambiguous_at = case when (request ->> 'ambiguous')::boolean
                              or request ->> 'afterToken' is null and o.attempt_purpose = 'SEND' and not is_late
                            then not_after(o.sent_at, moment) else not_after(o.ambiguous_at, moment) end,
        sent_at = case when request ->> 'purpose' = 'SEND' then moment else not_after(o.sent_at, moment) end,
        leased_until = case when not is_late then moment + lease end,
        look_again_at = case when is_late then moment + lease end
      where o.id = op.id and o.attempt_token is not distinct from op.attempt_token
      returning * into op;
      answer := case when found then 'CLAIMED' else 'TAKEN' end;
      -- Whoever changed it did not hold its lock.
      if not found then
        select * into op from operations o where o.id = (request ->> 'operationId')::uuid;
      end if;
    end if;

    if answer = 'CLAIMED' and audit is not null then
      perform record_audit(p, op.id, audit, moment) from payments p where p.id = op.payment_id;
    end if;
    quiet := coalesce(op.ambiguous_at + lease <= moment, true);
    replayable := coalesce(op.sent_at, op.created_at) + (request ->> 'replayWindowMs')::bigint * interval '1 millisecond' > moment;
    operation := case when op.id is not null then to_jsonb(op) end;
    payment := (select to_jsonb(p) from payments p where p.id = (request ->> 'paymentId')::uuid);
    transition := (select to_jsonb(t) from transitions t
                   where t.payment_id = (request ->> 'paymentId')::uuid
                     and t.version = op.transition_version);
    return next;
  end loop;
end $$;

-- About what was resolved without its word the bank is asked again at least this often, while it remembers.
create or replace function late_look_cap() returns interval language sql immutable as $$ select interval '1 hour' $$;

-- A late look is put off no longer: one that is due later than that was dated by a clock that was ahead.
create or replace function is_late_look_due(at timestamptz, moment timestamptz) returns boolean language sql immutable as $$
  select at <= moment or at > moment + late_look_cap() * 2
$$;

-- What is dated later was done by now.
create or replace function not_after(at timestamptz, moment timestamptz) returns timestamptz language sql immutable as $$
  select case when at > moment then moment else at end
$$;

-- Whether the bank's key is made from what the client repeats, and not from the operation's id (operation/bank-key.ts).
create or replace function is_keyed(operation uuid) returns boolean language sql immutable as $$
  select substr(operation::text, 15, 1) = '8'
$$;
