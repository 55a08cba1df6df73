-- The authorizations of payments that were there before: in a statement of its own, since it may take a minute, and what
-- comes meanwhile is recorded by its trigger. Where a row says otherwise already, it stands.
insert into authorizations (authorization_id, role, payment_id, amount_cents, expires_at, found_at)
select authorization_id, 'WANTED', id, amount_cents, authorization_expires_at, created_at
from payments where authorization_id is not null
on conflict (authorization_id) do nothing;

-- And what the bank placed otherwise than it was asked to, which was evidence only.
insert into authorizations (authorization_id, operation_id, payment_id, amount_cents, expires_at, found_at)
select e #>> '{evidence,bankId}', o.id, p.id, (e #>> '{evidence,amountCents}')::bigint,
       coalesce((e #>> '{evidence,expiresAt}')::timestamptz, p.review_since), p.review_since
from payments p
cross join lateral jsonb_array_elements(p.review_evidence) as e
join operations o on 'op_' || o.id = e ->> 'operation' and o.kind = 'AUTHORIZE'
where p.review_reason is not null and e #>> '{evidence,bankId}' like 'auth\_%' and e #> '{evidence,amountCents}' is not null
on conflict (authorization_id) do nothing;
