import { ANSWERS } from './rules/answers.ts'
import { ASKING } from './rules/asking.ts'
import { BOOKS } from './rules/books.ts'
import type { Rules } from './rules/history.ts'
import { RECOVERY } from './rules/recovery.ts'

/**
 * What must be true of every history, whatever failed in it: a pure model over the bank's true books, what was asked of
 * the bank, the receipts, and what the clients were told.
 */
export const RULES: Rules = { ...BOOKS, ...ANSWERS, ...ASKING, ...RECOVERY }
