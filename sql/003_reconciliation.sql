-- The receipts compared with the bank: each run, how far it has come and what it found, and the statement that is
-- being compared. Nothing here moves money or a payment's state.

create table reconciliations (
  id           uuid primary key,
  -- GET asks the bank for each id that a receipt claims; STATEMENT compares the bank's own ledger.
  kind         text not null,
  actor        text not null,
  -- What is compared: operations that were asked for in it; of a statement, from its first line to its last.
  span_from    timestamptz,
  span_to      timestamptz,
  -- The statement: the name of its file, and how many lines it has.
  source       text,
  lines        int,
  phase        text not null,
  -- The last operation, or line of the statement, that was compared in this phase. It moves with the counts below, so
  -- a run that was stopped or killed goes on where it was.
  cursor       text,
  checked      bigint not null default 0,
  matched      bigint not null default 0,
  -- Recovery is at work on it, or there is no id to ask for.
  skipped      bigint not null default 0,
  found        bigint not null default 0,
  note         text,
  -- The process that works on it, until its lease runs out.
  holder       uuid,
  leased_until timestamptz,
  started_at   timestamptz not null default clock_timestamp(),
  stopped_at   timestamptz,
  finished_at  timestamptz,

  constraint reconciliation_kind_is_known check (kind in ('GET', 'STATEMENT')),
  constraint reconciliation_phase_is_known check (phase in ('LOAD', 'LINES', 'CLAIMS')),
  constraint reconciliation_phase_fits_kind check (kind = 'STATEMENT' or phase = 'CLAIMS'),
  constraint reconciliation_has_source_when_statement check ((kind = 'STATEMENT') = (source is not null)),
  constraint reconciliation_span_is_known check (phase = 'LOAD' or span_from <= span_to),
  constraint reconciliation_adds_up check (checked = matched + skipped + found),
  constraint reconciliation_ends_once check (stopped_at is null or finished_at is null),
  constraint reconciliation_has_lease_exactly_when_under_way check (
    (leased_until is null) = (stopped_at is not null or finished_at is not null)),
  constraint reconciliation_holder_is_under_way check (holder is null or leased_until is not null)
);

-- One at a time: two would ask the bank twice as much.
create unique index reconciliation_is_one_at_a_time on reconciliations ((true))
  where stopped_at is null and finished_at is null;

create table discrepancies (
  id                uuid primary key,
  reconciliation_id uuid not null references reconciliations,
  kind              text not null,
  payment_id        uuid references payments,
  bank_reference    text,
  -- Both sides as they were seen; null where there is none.
  ours              jsonb,
  bank              jsonb,
  found_at          timestamptz not null default clock_timestamp(),
  mended_at         timestamptz,

  constraint discrepancy_kind_is_known check (kind in (
    'ORPHAN_HOLD', 'NOT_IN_RECEIPTS', 'NOT_AT_BANK', 'STATE_DIFFERS', 'ID_MISSING', 'ID_DIFFERS', 'AMOUNT_DIFFERS',
    'CURRENCY_DIFFERS', 'PARENT_DIFFERS', 'UNCLEAR_ANSWER', 'DUPLICATE_LINE')),
  constraint discrepancy_concerns_something check (payment_id is not null or bank_reference is not null),
  constraint discrepancy_has_a_side check (coalesce(ours, bank) is not null),
  constraint discrepancy_has_no_card check (
    not coalesce(ours, '{}') || coalesce(bank, '{}') ?| array['card', 'number', 'cardNumber', 'card_number', 'cvv'])
);
create index discrepancies_of_reconciliation on discrepancies (reconciliation_id, id);

-- The statement under comparison, of one run at a time. It can be loaded again from its file, so it is kept out of the
-- log that the receipts' replicas follow; a crash empties it.
create unlogged table statement_lines (
  reconciliation_id uuid not null,
  line              int not null,
  type              text not null,
  id                text not null,
  reference_id      text,
  amount_cents      bigint not null,
  status            text not null,
  at                timestamptz not null,

  primary key (reconciliation_id, line),
  constraint statement_line_type_is_known check (type in ('AUTHORIZATION', 'CAPTURE', 'VOID', 'REFUND')),
  constraint statement_line_refers_exactly_when_it_follows check ((type = 'AUTHORIZATION') = (reference_id is null))
);
create index statement_lines_by_id on statement_lines (id);
create index statement_lines_by_reference on statement_lines (reference_id) where reference_id is not null;

-- Millions of lines are gone at once, and only for who holds the run: a process that lost it empties nothing.
create function clear_statement(run uuid, token uuid) returns boolean language plpgsql as $$
begin
  perform from reconciliations r where r.id = run and r.holder = token for update;
  if not found then
    return false;
  end if;
  truncate statement_lines;
  return true;
end $$;
