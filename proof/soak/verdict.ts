import postgres from 'postgres'
import { connect } from '../../src/db/connection.ts'
import type { Database } from '../../src/db/connection.ts'
import type { Received } from '../../src/simulator/simulator.ts'
import { copyBank, copyReceipts, enter, openBooks } from './books.ts'
import { cardDataIn, CARDS, leaksInFiles } from './cards.ts'
import type { Seen } from './clients.ts'
import { check } from './invariants.ts'
import type { Checked } from './invariants.ts'
import { START_CENTS } from './stage.ts'
import type { Stage } from './stage.ts'

/** Lays both ledgers side by side, with what was seen, and asks of them all that must be true. */
export type Verdict = {
  checked: Checked[]
  outcomes: { state: string; payments: number; remark: string }[]
}

export async function judge(
  stage: Stage,
  seen: Seen,
  end: { exitCodes: (number | null)[]; unresolved: object[] },
): Promise<Verdict> {
  const { bankServer, receiptsServer, bank, gateways } = stage
  // On the bank's server, which may hold cards: the receipts' is searched for them.
  await bankServer.createDatabase('books')
  const open = (url: string) => connect(url, { connectionsMax: 2, statementTimeoutMs: 600_000 })
  const books = open(bankServer.url('books'))
  const receipts = open(receiptsServer.url('gateway'))
  const ledger = postgres(bankServer.url('bank'), { max: 1, fetch_types: false, onnotice: () => {} })
  try {
    await openBooks(books)
    await copyReceipts(receipts, books)
    await copyBank(
      ledger,
      books,
      CARDS.map(({ number }) => ({ number, startCents: START_CENTS })),
    )
    await enter(books, 'seen.requests', seen.requests)
    await enter(books, 'seen.answers', seen.answers)
    await enter(books, 'seen.checks', seen.checks)
    await enter(
      books,
      'seen.webhooks',
      stage.receiver.events.map(({ paymentId, version, toState }, seq) => {
        return { seq, payment_id: paymentId.slice('pay_'.length), version, to_state: toState }
      }),
    )
    await enter(
      books,
      'seen.exchanges',
      bank.received.map(exchangeOf).filter(({ key }) => key !== ''),
    )
    await enter(
      books,
      'seen.faulty',
      [...seen.faulty, ...stage.receiver.faulty].map((answer) => ({ answer })),
    )
    const ends = [...gateways.ended, ...end.exitCodes.filter((code) => code !== 0)]
    await enter(
      books,
      'seen.ends',
      ends.map((code) => ({ code })),
    )
    await enter(books, 'seen.unresolved', end.unresolved)
    // So that all is in the files.
    await receipts`checkpoint`
    await enter(books, 'seen.leaks', [
      ...seen.leaks,
      ...leaksInLog(gateways.output()),
      ...(await leaksInTables(receipts)),
      ...(await leaksInFiles(receiptsServer.folder)),
    ])
    return { checked: await check(books), outcomes: await outcomesOf(books) }
  } finally {
    await Promise.all([books, receipts, ledger].map(async (sql) => await sql.end({ timeout: 1 })))
  }
}

export function exchangeOf(line: Received, seq: number) {
  return {
    seq,
    key: line.key,
    endpoint: line.path.split('/')[3],
    has_body: !line.probe,
    arrived_ms: line.arrivedMs,
    ended_ms: line.endedMs,
    // Unanswered, or answered that it was done, or that the commit failed.
    ambiguous: line.status === null || line.committed !== 'no',
    key_lost: line.keyLost ?? (line.committed === 'perhaps' ? 'commit broken off' : null),
  }
}

function leaksInLog(output: string) {
  return output.split('\n').flatMap((line) => {
    const found = cardDataIn(line)
    return found === null ? [] : [{ place: `log: ${line.slice(0, 60)}`, found }]
  })
}

/** Every row of every table as text, in the server's search: the pattern is the same. */
async function leaksInTables(receipts: Database) {
  const tables = await receipts<{ name: string }[]>`
    select table_name as name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'`
  const leaks: { place: string; found: string }[] = []
  for (const { name } of tables) {
    await receipts`select t::text as line from ${receipts(name)} t`.cursor(1_000, (rows) => {
      for (const { line } of rows) {
        const found = cardDataIn(String(line))
        if (found !== null) leaks.push({ place: `table ${name}`, found })
      }
    })
  }
  return leaks
}

async function outcomesOf(books: Database): Promise<Verdict['outcomes']> {
  return [
    ...(await books<Verdict['outcomes']>`
      select state, count(*)::int as payments, concat_ws(', ',
        nullif(count(possible_orphan_hold_since), 0) || ' with a possible orphan hold',
        nullif((select count(*) from bank.transactions t join receipts.operations o on o.bank_key = t.idempotency_key
                join receipts.payments of on of.id = o.payment_id
                where t.type = 'AUTHORIZATION' and of.state = p.state and t.id is distinct from of.authorization_id), 0)
          || ' with one',
        nullif((select count(*) from receipts.stray_holds s join receipts.payments of on of.id = s.payment_id
                where of.state = p.state), 0) || ' whose hold was found late',
        nullif(count(*) filter (where state = 'CAPTURED' and capture_id is null), 0) || ' without the bank’s capture id',
        nullif(count(review_reason), 0) || ' in review') as remark
      from receipts.payments p group by state order by state`),
  ]
}
