-- Takes the advisory locks of a whole batch, one by one in one order, so that two batches over the same payments
-- in opposite sequence cannot deadlock. They are let go at commit. hashtextextended has 64 bits: two names that
-- collide wait for each other once in a blue moon, and nothing worse.
create or replace function lock_all(names text[]) returns void language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hash)
  from (select distinct hashtextextended(name, 0) as hash from unnest(names) as name order by hash) as in_order;
end $$;

-- A batch waits for no lock for long, an advisory one or a row's: it is then said again one by one (db/together.ts), so
-- that whatever is held elsewhere holds up its own payment and no other.
create or replace function wait_briefly(items jsonb) returns void language sql as $$
  select set_config('lock_timeout', '200ms', true) where jsonb_array_length(items) > 1
$$;

-- Those of operations that have a payment; an authorize frees or takes its order as well.
create or replace function lock_payments(items jsonb) returns void language sql as $$
  select wait_briefly(items);
  select lock_all(array(
    select 'payment:' || (r ->> 'paymentId') from jsonb_array_elements(items) as r
    union all
    select 'order:' || (r ->> 'orderId') from jsonb_array_elements(items) as r where r ->> 'orderId' is not null))
$$;

-- The exchanges with the bank that the items report. A statement that is repeated reports the same ones again. Those of
-- an operation that is gone are reported once more when it is back.
create or replace function record_calls(items jsonb) returns void language sql as $$
  insert into bank_calls (id, operation_id, attempt, purpose, endpoint, started_at, duration_ms, http_status,
                          error_code, replayed, conclusion)
  select c.id, o.id, c.attempt, c.purpose, c.endpoint, c."startedAt", c."durationMs",
         c."httpStatus", c."errorCode", c.replayed, c.conclusion
  from jsonb_array_elements(items) as r join operations o on o.id = (r ->> 'operationId')::uuid,
    jsonb_to_recordset(r -> 'calls') as c (
    id uuid, attempt int, purpose text, endpoint text, "startedAt" timestamptz, "durationMs" int,
    "httpStatus" int, "errorCode" text, replayed boolean, conclusion text)
  on conflict (id) do nothing
$$;
