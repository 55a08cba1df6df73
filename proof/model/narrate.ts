import { START } from './bank.ts'
import type { History, Told } from './play.ts'
import { keyOf, nameOf } from './rules/history.ts'

/** A history as lines in the order of time, for whoever looks for the fault. */
export function narrate(h: History): string {
  const names = new Map(h.settled.operations.map((o) => [keyOf(h.settled, o), nameOf(o)]))
  const lines: { atMs: number; text: string }[] = [
    ...h.told.map((told) => ({ atMs: told.askedMs, text: `client asks ${askedOf(told)}` })),
    ...h.told
      .filter(({ result }) => result !== null)
      .map((told) => ({ atMs: told.answeredMs, text: `client is told ${toldOf(told)}` })),
    ...h.bank.exchanges.map(({ sentMs, key, endpoint, hasBody, fault, endedMs }) => ({
      atMs: sentMs,
      text: `bank is ${hasBody ? 'sent' : 'probed for'} ${endpoint} of ${names.get(key) ?? key}: ${fault ?? 'plain'}, ${endedMs === null ? 'never heard of' : `until ${seconds(endedMs)}`}`,
    })),
    ...h.bank.books.map(({ atMs, id, key }) => ({
      atMs,
      text: `bank books ${id} for ${names.get(key) ?? key}`,
    })),
    ...h.settled.transitions.map(({ at, fromState, toState, cause, actor }) => ({
      atMs: at.getTime() - START,
      text: `receipt goes from ${fromState ?? 'nothing'} to ${toState} by ${cause} of ${actor}`,
    })),
  ]
  return [
    ...lines
      .toSorted((one, other) => one.atMs - other.atMs)
      .map(({ atMs, text }) => `${seconds(atMs)}  ${text}`),
    ...h.settled.operations.map((o) => `${o.kind} ${o.idempotencyKey} ended ${o.status} ${o.code ?? ''}`),
    ...h.settled.payments.map((p) => `payment ended ${p.state} v${p.version} ${p.reviewReason ?? ''}`),
  ].join('\n')
}

const seconds = (ms: number) => `${(ms / 1_000).toFixed(3).padStart(10)} s`

function askedOf({ request }: Told): string {
  const about =
    request.kind === 'AUTHORIZE' ? request.input.orderId : `of ${request.input.paymentId.slice(-4)}`
  return `${request.kind} ${about} under ${request.idempotencyKey}`
}

function toldOf({ request, result }: Told): string {
  const answer =
    result?.is === 'problem' ? `${result.problem.code} (${result.problem.retry})` : result?.payment.state
  return `${answer} for ${request.idempotencyKey}`
}
