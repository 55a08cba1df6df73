-- The receipts: payments, the operations that clients asked for, the history, the exchanges with the bank.
-- What must never be true is a named CHECK or unique index here, whatever the code above does.

create table payments (
  id                       uuid primary key,
  order_id                 text not null,
  customer_id              text not null,
  amount_cents             bigint not null,
  currency                 text not null default 'USD',
  card_brand               text not null,
  card_last4               text not null,
  card_expiry_month        smallint not null,
  card_expiry_year         smallint not null,
  allow_another_for_order  boolean not null default false,
  state                    text not null,
  version                  int not null,
  authorization_id         text,
  capture_id               text,
  void_id                  text,
  refund_id                text,
  authorization_expires_at timestamptz,
  review_reason            text,
  review_evidence          jsonb,
  review_since             timestamptz,
  possible_orphan_hold_since timestamptz,
  created_at               timestamptz not null,
  updated_at               timestamptz not null,

  constraint payment_ids_are_short check (octet_length(order_id) <= 1020 and octet_length(customer_id) <= 1020),
  constraint payment_amount_is_positive check (amount_cents > 0),
  constraint payment_currency_is_usd check (currency = 'USD'),
  -- Four digits, and a brand that holds none: no card number fits.
  constraint payment_card_is_masked check (card_last4 ~ '^[0-9]{4}$' and card_brand ~ '^[a-z-]{1,32}$'),
  constraint payment_state_is_known check (
    state in ('PENDING', 'AUTHORIZED', 'CAPTURED', 'REFUNDED', 'VOIDED', 'EXPIRED', 'DECLINED', 'FAILED')),
  constraint payment_has_hold_exactly_when_authorized check (
    (state in ('PENDING', 'DECLINED', 'FAILED')) = (authorization_id is null)),
  constraint payment_hold_has_expiry check ((authorization_id is null) = (authorization_expires_at is null)),
  -- A captured payment may lack its capture id (the bank forgot to tell), but then it cannot be refunded.
  constraint payment_capture_fits_state check (capture_id is null or state in ('CAPTURED', 'REFUNDED')),
  constraint payment_refund_needs_capture check (state <> 'REFUNDED' or capture_id is not null),
  constraint payment_void_fits_state check (void_id is null or state in ('VOIDED', 'EXPIRED')),
  constraint payment_refund_fits_state check (refund_id is null or state = 'REFUNDED'),
  constraint payment_review_is_whole check ((review_reason is null) = (review_since is null))
);

create unique index payment_authorization_is_one on payments (authorization_id) where authorization_id is not null;
create unique index payment_capture_is_one on payments (capture_id) where capture_id is not null;
create unique index payment_void_is_one on payments (void_id) where void_id is not null;
create unique index payment_refund_is_one on payments (refund_id) where refund_id is not null;

-- A double checkout under two keys stops here even if everything above it is wrong.
create unique index order_has_one_live_payment on payments (order_id)
  where state in ('PENDING', 'AUTHORIZED', 'CAPTURED') and not allow_another_for_order;

-- Ids are UUIDv7, so they are also the order in time of every list.
create index payments_of_order on payments (order_id, id);
create index payments_of_customer on payments (customer_id, id);
create index payments_in_review on payments (id) where review_reason is not null;
create index payments_with_hold on payments (authorization_expires_at, id) where state = 'AUTHORIZED';

create table operations (
  id                 uuid primary key,
  client             text not null,
  idempotency_key    text not null,
  kind               text not null,
  -- Null only when it was refused before there was a payment.
  payment_id         uuid references payments,
  input              jsonb not null,
  status             text not null,
  code               text,
  detail             jsonb,
  transition_version int,
  attempt            int not null,
  attempt_token      uuid,
  attempt_purpose    text,
  sent_at            timestamptz,
  -- The send time of the last attempt that the bank may have carried out.
  ambiguous_at       timestamptz,
  leased_until       timestamptz,
  created_at         timestamptz not null,
  resolved_at        timestamptz,

  constraint operation_key_is_one unique (client, idempotency_key),
  constraint operation_key_is_short check (octet_length(idempotency_key) between 1 and 1020),
  constraint operation_kind_is_known check (kind in ('AUTHORIZE', 'CAPTURE', 'VOID', 'REFUND', 'EXPIRE', 'RELEASE')),
  constraint operation_status_is_known check (status in ('UNRESOLVED', 'SUCCEEDED', 'REFUSED')),
  constraint operation_purpose_is_known check (attempt_purpose in ('SEND', 'PROBE')),
  constraint operation_unresolved_has_payment check (status <> 'UNRESOLVED' or payment_id is not null),
  constraint operation_resolved_is_dated check ((status = 'UNRESOLVED') = (resolved_at is null)),
  constraint operation_refused_has_code check ((status = 'REFUSED') = (code is not null)),
  constraint operation_success_has_transition check (
    status <> 'SUCCEEDED' or transition_version is not null or kind = 'RELEASE'),
  constraint operation_lease_is_unresolved check (leased_until is null or status = 'UNRESOLVED'),
  constraint operation_input_has_no_card check (not input ?| array['card', 'number', 'cardNumber', 'cvv'])
);

-- At most one unresolved operation per payment. Releasing a stray hold touches no payment that is alive.
create unique index payment_has_one_operation_in_flight on operations (payment_id)
  where status = 'UNRESOLVED' and kind <> 'RELEASE';
create index operations_of_payment on operations (payment_id, id);
create index operations_by_lease on operations (leased_until) where status = 'UNRESOLVED';

create table transitions (
  payment_id   uuid not null references payments,
  version      int not null,
  from_state   text,
  to_state     text not null,
  at           timestamptz not null,
  bank_at      timestamptz,
  operation_id uuid not null,
  cause        text not null,
  actor        text not null,

  primary key (payment_id, version),
  constraint transition_is_legal check ((coalesce(from_state, ''), to_state, cause) in (
    ('', 'PENDING', 'AUTHORIZE'),
    ('PENDING', 'AUTHORIZED', 'AUTHORIZE'),
    ('PENDING', 'DECLINED', 'AUTHORIZE'),
    ('PENDING', 'FAILED', 'AUTHORIZE'),
    ('AUTHORIZED', 'CAPTURED', 'CAPTURE'),
    ('AUTHORIZED', 'VOIDED', 'VOID'),
    ('AUTHORIZED', 'EXPIRED', 'EXPIRE'),
    ('CAPTURED', 'REFUNDED', 'REFUND'),
    ('FAILED', 'VOIDED', 'RELEASE'))),
  constraint transition_starts_at_one check ((version = 1) = (from_state is null))
);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name;
end $$;
create trigger transitions_are_append_only before update or delete on transitions
  for each row execute function refuse_change();

create table bank_calls (
  id           uuid primary key,
  operation_id uuid not null references operations,
  attempt      int not null,
  purpose      text not null,
  endpoint     text not null,
  started_at   timestamptz not null,
  duration_ms  int not null,
  http_status  int,
  error_code   text,
  replayed     boolean not null,
  conclusion   text not null,

  constraint bank_call_purpose_is_known check (purpose in ('SEND', 'PROBE', 'HEALTH', 'LOOKUP'))
);
create index bank_calls_of_operation on bank_calls (operation_id, id);

-- An authorization at the bank that no receipt wants: to be voided.
create table stray_holds (
  authorization_id text primary key,
  operation_id     uuid not null references operations,
  payment_id       uuid not null references payments,
  amount_cents     bigint not null,
  expires_at       timestamptz not null,
  found_at         timestamptz not null,
  released_at      timestamptz
);
create index stray_holds_to_release on stray_holds (found_at) where released_at is null;
