/** What the bank says when it carries nothing out: its refusals, and how it tells a fault of its own database. */
export type Refusal = { status: number; error: string; message: string }
export type RefusalCode = keyof typeof REFUSALS | keyof typeof DATABASE_FAULTS

const REFUSALS = {
  invalid_card: 'card not found or invalid',
  invalid_cvv: 'invalid cvv',
  card_expired: 'card has expired',
  insufficient_funds: 'insufficient funds',
  authorization_not_found: 'authorization not found',
  authorization_already_used: 'authorization has already been used',
  authorization_expired: 'authorization has expired',
  amount_mismatch: 'amount must equal the one before',
  capture_not_found: 'capture not found',
  already_refunded: 'capture has already been refunded',
}

/** By the step of the work. Where it looks for the card, the authorization or capture, one is told as "not found". */
const DATABASE_FAULTS = {
  start_failed: 'failed to start transaction',
  create_failed: 'failed to create authorization',
  insert_failed: 'internal error',
  update_failed: 'failed to update status',
  adjust_failed: 'failed to adjust balance',
  commit_failed: 'failed to commit transaction',
}

export function refusal(code: RefusalCode): Refusal {
  return code in DATABASE_FAULTS
    ? {
        status: code === 'insert_failed' ? 500 : 400,
        error: 'internal_error',
        message: DATABASE_FAULTS[code as keyof typeof DATABASE_FAULTS],
      }
    : {
        status: code === 'insufficient_funds' ? 402 : 400,
        error: code,
        message: REFUSALS[code as keyof typeof REFUSALS],
      }
}
