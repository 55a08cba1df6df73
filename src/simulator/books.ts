/**
 * What changes the books: one function for each kind of work, guarded by the bank's row lock (its unique index stands
 * behind): of a capture and a void at once one wins, the other finds the authorization used.
 *
 * One call is one statement, so one transaction that the server commits or rolls back whole. With the driver's own
 * `begin` a lost connection throws where nothing can catch it and leaves the pool hanging: terminating backends under
 * load ended the process within seconds, and with it the gateway that `npm start` runs beside the bank.
 *
 * Each answers null when it is done, or with the code of its refusal, or with what a fault of the database is told as at
 * that step (`told_as`, see works.ts): the bank takes one while it looks for something as "not there". A `record` is of no
 * table's type, so that a table that cannot be read is such a fault, too. What is left for an error of the statement
 * itself is its beginning, its commit, or that it was broken off.
 */
export const FUNCTIONS = `
  create or replace function bank_authorize(
    wanted_card text, wanted_cvv text, cents bigint, new_id text, at timestamptz, until timestamptz, key text
  ) returns text language plpgsql as $$
  declare
    account record;
    told_as text := 'invalid_card';
  begin
    select * into account from accounts where card_number = wanted_card for update;
    if not found then return 'invalid_card'; end if;
    if account.cvv <> wanted_cvv then return 'invalid_cvv'; end if;
    -- The account's expiry counts, to the end of its month; the request's is not compared with it.
    if at >= make_timestamptz(account.expiry_year, account.expiry_month, 1, 0, 0, 0, 'UTC') + interval '1 month'
      then return 'card_expired'; end if;
    if account.available_cents < cents then return 'insufficient_funds'; end if;
    told_as := 'create_failed';
    insert into transactions values (new_id, 'AUTHORIZATION', null, wanted_card, cents, 'ACTIVE', at, until, key);
    told_as := 'adjust_failed';
    update accounts set available_cents = available_cents - cents where card_number = wanted_card;
    return null;
  exception when others then return told_as;
  end $$;

  create or replace function bank_capture(hold_id text, cents bigint, new_id text, at timestamptz, key text)
  returns text language plpgsql as $$
  declare
    hold record;
    told_as text := 'authorization_not_found';
  begin
    select * into hold from transactions where id = hold_id and type = 'AUTHORIZATION' for update;
    if not found then return 'authorization_not_found'; end if;
    if hold.status <> 'ACTIVE' then return 'authorization_already_used'; end if;
    if at >= hold.expires_at then return 'authorization_expired'; end if;
    if hold.amount_cents <> cents then return 'amount_mismatch'; end if;
    told_as := 'insert_failed';
    insert into transactions values (new_id, 'CAPTURE', hold.id, hold.card_number, cents, 'ACTIVE', at, null, key);
    told_as := 'update_failed';
    update transactions set status = 'CAPTURED' where id = hold.id;
    told_as := 'adjust_failed';
    update accounts set balance_cents = balance_cents - cents where card_number = hold.card_number;
    return null;
  exception when others then return told_as;
  end $$;

  -- Works after the expiry too: only this releases a hold.
  create or replace function bank_void(hold_id text, new_id text, at timestamptz, key text)
  returns text language plpgsql as $$
  declare
    hold record;
    told_as text := 'authorization_not_found';
  begin
    select * into hold from transactions where id = hold_id and type = 'AUTHORIZATION' for update;
    if not found then return 'authorization_not_found'; end if;
    if hold.status <> 'ACTIVE' then return 'authorization_already_used'; end if;
    told_as := 'insert_failed';
    insert into transactions values (new_id, 'VOID', hold.id, hold.card_number, hold.amount_cents, 'ACTIVE', at, null, key);
    told_as := 'update_failed';
    update transactions set status = 'VOIDED' where id = hold.id;
    told_as := 'adjust_failed';
    update accounts set available_cents = available_cents + hold.amount_cents where card_number = hold.card_number;
    return null;
  exception when others then return told_as;
  end $$;

  create or replace function bank_refund(capture_id text, cents bigint, new_id text, at timestamptz, key text)
  returns text language plpgsql as $$
  declare
    taken record;
    told_as text := 'capture_not_found';
  begin
    select * into taken from transactions where id = capture_id and type = 'CAPTURE' for update;
    if not found then return 'capture_not_found'; end if;
    if taken.status <> 'ACTIVE' then return 'already_refunded'; end if;
    if taken.amount_cents <> cents then return 'amount_mismatch'; end if;
    told_as := 'insert_failed';
    insert into transactions values (new_id, 'REFUND', taken.id, taken.card_number, cents, 'ACTIVE', at, null, key);
    told_as := 'update_failed';
    update transactions set status = 'REFUNDED' where id = taken.id;
    told_as := 'adjust_failed';
    update accounts set balance_cents = balance_cents + cents, available_cents = available_cents + cents
      where card_number = taken.card_number;
    return null;
  exception when others then return told_as;
  end $$;

  -- For faults: what was not refused is rolled back.
  create or replace function bank_keep(refusal text, is_kept boolean) returns text language plpgsql as $$
  begin
    if refusal is null and not is_kept then raise 'told to roll back' using errcode = 'BK001'; end if;
    return refusal;
  end $$;`
