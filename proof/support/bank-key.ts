/**
 * The bank's key of an operation `o`, whose payment is `p`, as operation/bank-key.ts makes it: for ledgers that are
 * compared by SQL.
 */
export const BANK_KEY_SQL = `
  case when substr(o.id::text, 15, 1) <> '8' then 'op_' || o.id
  else encode(sha256(convert_to(array_to_json(
    array[o.client, o.idempotency_key, o.kind] || case o.kind
      when 'AUTHORIZE' then array[
        o.input ->> 'orderId', o.input ->> 'customerId', o.input ->> 'amountCents', o.input ->> 'allowAnotherForOrder',
        o.input ->> 'cardBrand', o.input ->> 'cardLast4', o.input ->> 'cardExpiryMonth', o.input ->> 'cardExpiryYear']
      else array[coalesce(case o.kind
        when 'RELEASE' then o.input ->> 'authorizationId'
        when 'REFUND' then p.capture_id
        else p.authorization_id end, 'null')]
    end)::text, 'UTF8')), 'hex')
  end`
