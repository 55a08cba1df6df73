import postgres from 'postgres'
import { connect } from '../../src/db/connection.ts'
import type { Database } from '../../src/db/connection.ts'
import { copyBank, copyReceipts, enter, openBooks } from '../soak/books.ts'
import { CARDS } from '../soak/cards.ts'
import type { Seen } from '../soak/clients.ts'
import { check } from '../soak/invariants.ts'
import { START_CENTS } from '../soak/stage.ts'
import { exchangeOf } from '../soak/verdict.ts'
import type { Played } from './run.ts'

/** What must be true when all is over, whatever was lost: none may select a row. */
const RULES: readonly { says: string; violations: string }[] = [
  {
    says: 'no double hold',
    violations: `
      select amount_cents, array_agg(id) as ids, array_agg(idempotency_key) as keys from bank.transactions
      where type = 'AUTHORIZATION' group by amount_cents having count(*) > 1`,
  },
  {
    says: 'no double charge, no double refund',
    violations: `
      select amount_cents, type, array_agg(id) as ids from bank.transactions
      where type in ('CAPTURE', 'REFUND') group by amount_cents, type having count(*) > 1`,
  },
  {
    says: 'every row of the bank has a receipt, or the statement lists it',
    violations: `
      select t.id, t.type, t.amount_cents, t.status from bank.transactions t
      where not exists (select from seen.listed l where l.bank_reference in (t.id, t.reference_id))
        and not exists (
          select from receipts.payments p
          where t.id in (p.authorization_id, p.capture_id, p.void_id, p.refund_id))
        and not exists (
          select from receipts.stray_holds s where s.authorization_id in (t.id, t.reference_id))`,
  },
  {
    says: 'what a client was told is done has a receipt, or the statement lists it',
    violations: `
      select r.key, r.kind, r.amount_cents, o.status, o.code, p.state, p.review_reason,
             (select array_agg(a.client || ' ' || a.answer) from seen.answers a where a.key = r.key) as answers
      from seen.requests r
      left join receipts.operations o on o.idempotency_key = r.key
      left join receipts.payments p on p.id = o.payment_id
      where exists (select from seen.answers a where a.key = r.key and a.answer ? 'version')
        and o.status is distinct from 'SUCCEEDED'
        and not exists (
          select from bank.transactions t join seen.listed l on l.bank_reference in (t.id, t.reference_id)
          where t.amount_cents = r.amount_cents)`,
  },
  {
    says: 'the server that failed is not written to when it is back',
    violations: 'select * from seen.written_to_old',
  },
]

/**
 * Of the soak's, what holds though receipts were lost. Files are searched for cards by the soak itself, which also has an
 * operator and webhooks.
 */
const THOUGH_LOST = ['I7', 'I9', '']
const NOT_HERE = ['I10', 'I11', 'I13']

export type Judged = {
  checked: { says: string; rows: Record<string, unknown>[] }[]
  /** Rows of the bank's ledger, and those that the statement listed. */
  bankRows: number
  listed: object[]
}

export async function judge(
  { bankServer, bank, receipts, gateways }: Played,
  end: {
    seen: Seen
    exitCodes: (number | null)[]
    unresolved: object[]
    listed: object[]
    loses: boolean
  },
): Promise<Judged> {
  await bankServer.createDatabase('books')
  const open = (url: string) => connect(url, { connectionsMax: 2, statementTimeoutMs: 60_000 })
  const books = open(bankServer.url('books'))
  const ours = open(receipts.url())
  const ledger = postgres(bankServer.url('bank'), { max: 1, fetch_types: false, onnotice: () => {} })
  try {
    await openBooks(books)
    await books.unsafe(`
      create table seen.listed (kind text, bank_reference text);
      create table seen.written_to_old (what text, id text, at timestamptz);`)
    await copyReceipts(ours, books)
    await copyBank(
      ledger,
      books,
      CARDS.map(({ number }) => ({ number, startCents: START_CENTS })),
    )
    const { seen } = end
    await enter(books, 'seen.requests', seen.requests)
    await enter(books, 'seen.answers', seen.answers)
    await enter(
      books,
      'seen.exchanges',
      bank.received.map(exchangeOf).filter(({ key }) => key !== ''),
    )
    await enter(
      books,
      'seen.faulty',
      seen.faulty.map((answer) => ({ answer })),
    )
    const codes = [...gateways.ended, ...end.exitCodes.filter((code) => code !== 0)]
    await enter(
      books,
      'seen.ends',
      codes.map((code) => ({ code })),
    )
    await enter(books, 'seen.unresolved', end.unresolved)
    await enter(books, 'seen.listed', end.listed)
    await enter(books, 'seen.written_to_old', await receipts.writtenToOld())
    const [counted] = await books<{ rows: number }[]>`select count(*)::int as rows from bank.transactions`
    return {
      checked: [...(await checkRules(books)), ...(await checkAsSoak(books, end.loses))],
      bankRows: counted?.rows ?? 0,
      listed: end.listed,
    }
  } finally {
    await Promise.all([books, ours, ledger].map(async (sql) => await sql.end({ timeout: 1 })))
  }
}

async function checkRules(books: Database): Promise<Judged['checked']> {
  const checked: Judged['checked'] = []
  for (const { says, violations } of RULES)
    checked.push({ says, rows: [...(await books.unsafe(violations))] })
  return checked
}

async function checkAsSoak(books: Database, loses: boolean): Promise<Judged['checked']> {
  return (await check(books)).filter(({ id }) => (loses ? THOUGH_LOST.includes(id) : !NOT_HERE.includes(id)))
}
