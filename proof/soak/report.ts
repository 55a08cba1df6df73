import { table } from '../support/report.ts'
import type { SoakReport } from './run.ts'

/** What a run shows at its end: what was done to the gateway, what became of the payments, and what was proven. */
export function told({
  faults,
  outcomes,
  checked,
  seen,
  acts,
  events,
  tookMs,
  settledMs,
  log,
}: SoakReport): string {
  const seconds = (ms: number) => `${(ms / 1_000).toFixed(1)} s`
  const answered = (...by: string[]) => seen.answers.filter(({ client }) => by.includes(client)).length
  const errors = errorsIn(log)
  const broken = checked.filter(({ rows }) => rows.length > 0)
  const evidence = broken.flatMap(({ id, says, rows }) => [
    `${id} ${says}: ${rows.length} violations`,
    ...rows.slice(0, ROWS_SHOWN).map((row) => `  ${JSON.stringify(row)}`),
    '',
  ])
  return [
    table([['fault', 'times'], ...faults]),
    table([
      ['payments', 'number', ''],
      ...outcomes.map(({ state, payments, remark }) => [state, payments, remark]),
    ]),
    table([
      ['requests', 'number'],
      ['sent to a gateway', seen.sent],
      ['broken off: gateway killed, or client gone', seen.broken],
      ['final answers to the first client', answered('first')],
      ['to duplicates', answered('duplicate')],
      ['to late clients', answered('late')],
      ['to conflicting requests', answered('conflict')],
      ['may the goods leave: yes', seen.checks.filter(({ may_ship: mayShip }) => mayShip).length],
      ['may the goods leave: no', seen.checks.filter(({ may_ship: mayShip }) => !mayShip).length],
      ['acts of the operator', acts],
      ['webhooks received', events],
    ]),
    table([
      ['', 'must be true', 'violations'],
      ...checked.map(({ id, says, rows }) => [id, says, rows.length]),
    ]),
    ...(errors.size === 0 ? [] : [table([['logged at level error', 'times'], ...errors])]),
    `Recovery had ended ${seconds(settledMs)} after the last fault; the run took ${seconds(tookMs)}.`,
    '',
    ...evidence,
  ].join('\n')
}

const ROWS_SHOWN = 10

/** Messages at level error, each with what was wrong, by how often they came. */
function errorsIn(log: string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const line of log.split('\n').filter((text) => text.startsWith('{"level":50'))) {
    const { msg, err, fault } = JSON.parse(line) as {
      msg: string
      err?: { code?: string; message?: string }
      fault?: unknown
    }
    const what = [msg, err?.code, err?.message, fault === undefined ? undefined : JSON.stringify(fault)]
    const text = what
      .filter((part) => part !== undefined)
      .join(': ')
      .slice(0, 200)
    counts.set(text, (counts.get(text) ?? 0) + 1)
  }
  return counts
}
