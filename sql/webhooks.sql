-- What came of sending a webhook. That the receiver has taken it is a fact, whoever brings it; a failure counts only from
-- the attempt that is under way, and not when an operator has asked for it anew meanwhile. Once it is through, or given
-- up, the next one of its payment may go.
--
-- outcome: { delivered, httpStatus | null, error | null, retryAfterMs, retryLeastMs, retryMostMs, jitter, giveUpAfterMs }
-- answer: the status that it has now
create or replace function settle_delivery(payment uuid, number int, attempt int, outcome jsonb,
                                           at_time timestamptz default null)
returns text
language plpgsql as $$
declare
  moment timestamptz := coalesce(at_time, clock_timestamp());
  is_delivered boolean := (outcome ->> 'delivered')::boolean;
  give_up_after interval := (outcome ->> 'giveUpAfterMs')::bigint * interval '1 millisecond';
  delivery webhook_deliveries;
begin
  update webhook_deliveries d set
    status = case when is_delivered then 'DELIVERED'
                  when moment >= d.first_attempt_at + give_up_after then 'GIVEN_UP' else 'FAILING' end,
    ended_at = case when is_delivered or moment >= d.first_attempt_at + give_up_after then moment end,
    -- Doubling: the wait is as long as it has been failing, or as the receiver has asked for. The last attempt is made
    -- when the time is up.
    due_at = case when not is_delivered and moment < d.first_attempt_at + give_up_after then least(
      moment + greatest(
        (outcome ->> 'retryAfterMs')::float8 * interval '1 millisecond',
        (outcome ->> 'jitter')::float8 * least(
          greatest(moment - d.first_attempt_at, (outcome ->> 'retryLeastMs')::int * interval '1 millisecond'),
          (outcome ->> 'retryMostMs')::int * interval '1 millisecond')),
      d.first_attempt_at + give_up_after) end,
    last_http_status = (outcome ->> 'httpStatus')::int,
    last_error = outcome ->> 'error'
  where d.payment_id = payment and d.version = number
    and (is_delivered and d.status <> 'DELIVERED'
         or d.status in ('PENDING', 'FAILING') and d.attempts = attempt
            and (d.resent_at is null or d.resent_at <= d.last_attempt_at))
  returning * into delivery;

  if delivery.ended_at is not null then
    update webhook_deliveries d set due_at = moment
    where d.payment_id = payment and d.version = number + 1 and d.status in ('PENDING', 'FAILING') and d.due_at is null;
  end if;
  return (select d.status from webhook_deliveries d where d.payment_id = payment and d.version = number);
end $$;

-- An operator wants it sent again, now, with three days of its own. One that still waits for the one before it goes on
-- waiting. Null when there is none.
create or replace function resend_delivery(payment uuid, number int, audit jsonb, at_time timestamptz default null)
returns jsonb
language plpgsql as $$
declare
  moment timestamptz := coalesce(at_time, clock_timestamp());
  delivery webhook_deliveries;
begin
  update webhook_deliveries d set
    status = 'PENDING',
    ended_at = null,
    due_at = case when d.ended_at is not null or d.due_at is not null then moment end,
    first_attempt_at = null,
    resent_at = moment
  where d.payment_id = payment and d.version = number
    and not exists (select from audit_lines a where a.id = (audit ->> 'id')::uuid)
  returning * into delivery;
  perform record_audit(p, null, audit, moment) from payments p where p.id = payment and delivery.payment_id is not null;
  return (select to_jsonb(d) from webhook_deliveries d where d.payment_id = payment and d.version = number);
end $$;

-- Whether transitions are recorded for delivery from now on. It needs the table for itself, and waits for it no longer
-- than the lock_timeout of its caller's pieces (in-pieces.ts).
create or replace function switch_recording(is_on boolean) returns void
language plpgsql
set lock_timeout = '300ms' as $$
begin
  if is_on then
    alter table transitions enable trigger transitions_are_delivered;
  else
    alter table transitions disable trigger transitions_are_delivered;
  end if;
end $$;
