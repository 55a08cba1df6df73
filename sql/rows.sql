-- Rows as claim and settle make and change them.

-- The receipt that an authorize begins with.
create or replace function new_payment(request jsonb, moment timestamptz) returns payments language plpgsql as $$
declare
  wanted jsonb := request -> 'input';
  pay payments;
begin
  pay.id := (request ->> 'paymentId')::uuid;
  pay.order_id := wanted ->> 'orderId';
  pay.customer_id := wanted ->> 'customerId';
  pay.amount_cents := (wanted ->> 'amountCents')::bigint;
  pay.currency := 'USD';
  pay.card_brand := wanted ->> 'cardBrand';
  pay.card_last4 := wanted ->> 'cardLast4';
  pay.card_expiry_month := (wanted ->> 'cardExpiryMonth')::smallint;
  pay.card_expiry_year := (wanted ->> 'cardExpiryYear')::smallint;
  pay.allow_another_for_order := (wanted ->> 'allowAnotherForOrder')::boolean;
  pay.state := 'PENDING';
  pay.version := 1;
  pay.created_at := moment;
  pay.updated_at := moment;
  return pay;
end $$;

-- The line of history for the state that `pay` has now.
create or replace function transition_to(pay payments, from_state text, op operations, moment timestamptz)
returns transitions language plpgsql as $$
declare
  moved transitions;
begin
  moved.payment_id := pay.id;
  moved.version := pay.version;
  moved.from_state := from_state;
  moved.to_state := pay.state;
  moved.at := moment;
  moved.operation_id := op.id;
  moved.cause := op.kind;
  moved.actor := op.client;
  return moved;
end $$;

-- The bank's id of what an operation did, where the receipt has none yet.
create or replace function with_bank_id(pay payments, kind text, bank_id text) returns payments language plpgsql as $$
begin
  case kind
    when 'AUTHORIZE' then pay.authorization_id := coalesce(pay.authorization_id, bank_id);
    when 'CAPTURE' then pay.capture_id := coalesce(pay.capture_id, bank_id);
    when 'REFUND' then pay.refund_id := coalesce(pay.refund_id, bank_id);
    else pay.void_id := coalesce(pay.void_id, bank_id);
  end case;
  return pay;
end $$;
