-- Webhooks: what FicMart's back end is to be told, one row for each transition.

create table webhook_deliveries (
  payment_id       uuid not null,
  version          int not null,
  -- FAILING: tried in vain, and tried again. GIVEN_UP: tried for three days.
  status           text not null default 'PENDING',
  recorded_at      timestamptz not null,
  attempts         int not null default 0,
  -- When it may be sent; while it is being sent, when another process may. Null when it has ended, and while it waits
  -- for the one before it of the same payment.
  due_at           timestamptz,
  -- Of the three days; a re-send begins them anew.
  first_attempt_at timestamptz,
  last_attempt_at  timestamptz,
  last_http_status int,
  last_error       text,
  ended_at         timestamptz,
  resent_at        timestamptz,

  -- No foreign key: only the trigger below inserts, beside the transition itself, and it shall cost little.
  primary key (payment_id, version),
  constraint delivery_status_is_known check (status in ('PENDING', 'FAILING', 'DELIVERED', 'GIVEN_UP')),
  constraint delivery_ended_is_dated check ((status in ('DELIVERED', 'GIVEN_UP')) = (ended_at is not null)),
  constraint delivery_ended_is_not_due check (ended_at is null or due_at is null)
);
create index deliveries_due on webhook_deliveries (due_at) where due_at is not null;
create index deliveries_by_status on webhook_deliveries (status, payment_id, version);

-- One that comes while the one before it is not through waits for it. The lock on that row makes settle_delivery, which
-- lets the next one go, see this one, or this one see that it was let go: whichever commits first.
create function record_delivery() returns trigger language plpgsql as $$
begin
  perform from webhook_deliveries d
  where d.payment_id = new.payment_id and d.version = new.version - 1 and d.status in ('PENDING', 'FAILING')
  for share;
  insert into webhook_deliveries (payment_id, version, recorded_at, due_at)
  values (new.payment_id, new.version, new.at, case when not found then new.at end);
  return null;
end $$;

-- By trigger, so that no road to a transition can forget it. Enabled by the first start with WEBHOOK_URL; until then it
-- costs nothing.
create trigger transitions_are_delivered after insert on transitions
  for each row execute function record_delivery();
alter table transitions disable trigger transitions_are_delivered;

alter table audit_lines
  drop constraint audit_action_is_known,
  add constraint audit_action_is_known check (
    action in ('RERUN_RECOVERY', 'ENTER_BANK_REFERENCE', 'CLOSE_REVIEW', 'RESEND_WEBHOOK'));
