import { reconciliationId } from '../../payment/ids.ts'
import { adviceOn, paymentOf } from './discrepancy.ts'
import type { Discrepancy, Side } from './discrepancy.ts'
import { portionDone } from './reads.ts'
import type { Reconciliation } from './runs.ts'

/** What `npm run reconcile` prints. */

const count = new Intl.NumberFormat('en-US')

export function progressLine(run: Reconciliation, linesLoaded: number | undefined): string {
  if (run.phase === 'LOAD') return `loading ${run.source}: ${count.format(linesLoaded ?? 0)} lines`
  const what = run.kind === 'GET' ? 'asking the bank' : WHAT[run.phase]
  return `${what}: ${(portionDone(run) * 100).toFixed(0)} %   ${counts(run)}`
}

const WHAT = { LINES: "the statement's lines", CLAIMS: "the receipts' claims" } as const

export function counts({ checked, matched, skipped, found }: Reconciliation): string {
  return Object.entries({ checked, matched, skipped, discrepancies: found })
    .map(([name, number]) => `${name} ${count.format(number)}`)
    .join('   ')
}

/** `notMended`: why not, by discrepancy; empty when nothing was to be mended. */
export function report(
  run: Reconciliation,
  discrepancies: readonly Discrepancy[],
  notMended: ReadonlyMap<string, string>,
): string {
  const lines = [
    `${reconciliationId(run.id)}   ${run.kind === 'GET' ? 'by GET' : `statement ${run.source}`}${spanOf(run)}`,
    counts(run),
    ...(run.note === null ? [] : [run.note]),
  ]
  if (discrepancies.length > 0) {
    const rows = discrepancies.map((one) => [
      one.mendedAt === null ? one.kind : `${one.kind} (mended)`,
      paymentOf(one),
      one.bankReference ?? '',
      inShort(one, one.ours),
      inShort(one, one.bank),
    ])
    lines.push('', table([['discrepancy', 'payment', 'bank reference', 'ours', "the bank's"], ...rows]))
    const more = run.found - discrepancies.length
    if (more > 0)
      lines.push(
        `and ${count.format(more)} more: query { reconciliation(id: "${reconciliationId(run.id)}") }`,
      )
    lines.push(...discrepancies.flatMap(candidatesOf))
    lines.push('', ...new Set(discrepancies.filter(isOpen).map((one) => `${one.kind}: ${adviceOn(one)}`)))
    lines.push(...discrepancies.flatMap((one) => whyNot(one, notMended.get(one.id))))
  }
  return `${lines.join('\n')}\n`
}

function spanOf({ spanFrom, spanTo }: Reconciliation): string {
  return spanFrom === null || spanTo === null ? '' : `   ${minute(spanFrom)} to ${minute(spanTo)}`
}

const minute = (moment: Date) => `${moment.toISOString().slice(0, 16).replace('T', ' ')} UTC`
const isOpen = ({ mendedAt }: Discrepancy) => mendedAt === null

function whyNot({ bankReference }: Discrepancy, why: string | undefined): string[] {
  return why === undefined ? [] : [`${bankReference} was not mended: ${why}`]
}

/** One a line: the table would grow as wide as they are many. */
function candidatesOf({ bankReference, ours }: Discrepancy): string[] {
  const candidates = namesOf(ours)
  return candidates.length === 0
    ? []
    : ['', `${bankReference} is perhaps of`, ...candidates.map((name) => `  ${name}`)]
}

const namesOf = (ours: Side | null) =>
  ours === null
    ? []
    : String(ours['candidates'] ?? '')
        .split(', ')
        .filter(Boolean)

/** The ids are in columns of their own; of those that differ both are shown. */
function inShort({ kind }: Discrepancy, side: Side | null): string {
  const candidates = namesOf(side).length
  if (candidates > 0) return `candidates ${candidates}`
  const withIds = kind === 'ID_DIFFERS' || kind === 'PARENT_DIFFERS'
  return Object.entries(side ?? {})
    .filter(([name]) => withIds || !/(^i|I)d$/.test(name))
    .toSorted(([one], [other]) => place(one) - place(other))
    .map(([name, value]) => `${name} ${value}`)
    .join(', ')
}

/** First what tells most: a row of jsonb has its names in an order of its own. */
const FIRST = ['type', 'state', 'status', 'claim', 'amountCents', 'currency']
function place(name: string): number {
  const index = FIRST.indexOf(name)
  return index < 0 ? FIRST.length : index
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>(
    (widest, row) => row.map((cell, column) => Math.max(cell.length, widest[column] ?? 0)),
    [],
  )
  const pad = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
  return rows.map(pad).join('\n')
}
