-- Every authorization that the bank ever told, in one table and so once: it is WANTED by a payment, or STRAY, to be
-- voided. Which of the two is decided when the row is written, by its primary key, whatever else happens at the moment.

alter table stray_holds rename to authorizations;
alter table authorizations rename constraint stray_holds_pkey to authorizations_pkey;
alter table authorizations
  add column role text not null default 'STRAY',
  -- Of a wanted one the payment says it; and a reference costs each payment a look-up.
  alter column operation_id drop not null,
  drop constraint stray_holds_payment_id_fkey,
  add constraint authorization_role_is_known check (role in ('WANTED', 'STRAY')),
  add constraint authorization_stray_has_operation check (role = 'WANTED' or operation_id is not null),
  add constraint authorization_released_is_stray check (role = 'STRAY' or released_at is null);

drop index stray_holds_to_release;
drop index stray_holds_of_payment;
create index stray_holds_to_release on authorizations (found_at) where role = 'STRAY' and released_at is null;
create index stray_holds_of_payment on authorizations (payment_id) where role = 'STRAY';

-- Where the processes of the release before look for them, and tests and people.
create view stray_holds as
  select authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at, released_at
  from authorizations where role = 'STRAY';

-- By trigger, for as long as the settle of the release before is in force, which knows no such table (settle.sql).
create function record_authorization() returns trigger language plpgsql as $$
begin
  insert into authorizations (authorization_id, role, payment_id, amount_cents, expires_at, found_at)
  values (new.authorization_id, 'WANTED', new.id, new.amount_cents, new.authorization_expires_at, new.updated_at);
  return null;
end $$;
create trigger authorizations_are_recorded after update of authorization_id on payments
  for each row when (old.authorization_id is null and new.state = 'AUTHORIZED')
  execute function record_authorization();

-- What the database was when its receipts were written: the cluster, and the timeline that it was promoted to. The newest
-- row says whether commits may have been lost just before it.
create table history (
  id                bigint generated always as identity primary key,
  reason            text not null,
  system_identifier text not null,
  timeline          int not null,
  -- How far the write-ahead log had come, and how far somebody knew it to have come before.
  position          pg_lsn not null,
  known_position    pg_lsn,
  noticed_at        timestamptz not null,

  constraint history_reason_is_known check (reason in
    ('FIRST', 'TIMELINE_CHANGED', 'SYSTEM_CHANGED', 'POSITION_WENT_BACK', 'OPERATION_GONE', 'RESTORED', 'NOTHING_LOST'))
);
insert into history (reason, system_identifier, timeline, position, noticed_at)
select 'FIRST', system_identifier::text, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int,
       pg_current_wal_insert_lsn(), clock_timestamp()
from pg_control_system();
create trigger history_is_append_only before update or delete on history
  for each row execute function refuse_change();

-- Payments whose authorize was claimed while commits were known to be lost, by the part of their id that is the same
-- when the same request is claimed again: whoever has the lost id finds the payment that stands for it.
create table payment_successors (
  id_tail    text primary key,
  payment_id uuid not null references payments
);

alter table audit_lines
  drop constraint audit_action_is_known,
  add constraint audit_action_is_known check (action in
    ('RERUN_RECOVERY', 'ENTER_BANK_REFERENCE', 'CLOSE_REVIEW', 'RESEND_WEBHOOK', 'END_REVIEW'));
create index discrepancies_open on discrepancies (payment_id, reconciliation_id) where mended_at is null;
