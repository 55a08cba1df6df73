-- Recovery that goes on after the answer, and what operators do when no rule can.

alter table operations
  -- When the bank is asked once more about an operation that was resolved without its word: an authorize that failed
  -- and may have left a hold, or something carried out whose id is missing.
  add column look_again_at timestamptz,
  add constraint operation_look_is_late check (look_again_at is null or status <> 'UNRESOLVED');
create index operations_to_look_again on operations (look_again_at) where look_again_at is not null;

create index stray_holds_of_payment on stray_holds (payment_id);

-- What an operator did about a payment, and why. Written in the statement that does it.
create table audit_lines (
  id           uuid primary key,
  payment_id   uuid not null references payments,
  -- Null when it concerned no operation.
  operation_id uuid references operations,
  action       text not null,
  actor        text not null,
  reason       text not null,
  -- What was entered, and the review that it closed.
  detail       jsonb not null,
  at           timestamptz not null,

  constraint audit_action_is_known check (action in ('RERUN_RECOVERY', 'ENTER_BANK_REFERENCE', 'CLOSE_REVIEW')),
  constraint audit_reason_is_given check (reason ~ '\S' and octet_length(reason) <= 4000)
);
create index audit_lines_of_payment on audit_lines (payment_id, id);
create trigger audit_lines_are_append_only before update or delete on audit_lines
  for each row execute function refuse_change();
