import { readdirSync, readFileSync } from 'node:fs'

/** CPU time and memory of processes, as Linux keeps them in /proc. */

/** USER_HZ: what /proc counts in, on every Linux that Node runs on. */
const TICK_MS = 10

type Stat = { pid: number; parent: number; ownMs: number; reapedMs: number }

/** Of itself and of all that it has started, those that have ended included. */
export function cpuMs(pid: number): number {
  const all = readdirSync('/proc').flatMap((name) => {
    const stat = /^\d+$/.test(name) ? statOf(Number(name)) : null
    return stat === null ? [] : [stat]
  })
  const of = (stat: Stat): number =>
    stat.ownMs +
    stat.reapedMs +
    all.filter(({ parent }) => parent === stat.pid).reduce((sum, child) => sum + of(child), 0)
  const root = all.find((stat) => stat.pid === pid)
  if (root === undefined) throw new Error(`process ${pid} is gone`)
  return of(root)
}

/** Of the processes that this one has started and seen end. */
export function reapedMs(): number {
  return statOf(process.pid)?.reapedMs ?? 0
}

export function residentMb(pid: number): number {
  const [, kb = '0'] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kb) / 1_024
}

/** Null when it has just gone. */
function statOf(pid: number): Stat | null {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return null
  }
  // The name, in parentheses, may hold anything; man proc_pid_stat: the state follows as field 3.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
  const [, parent = 0] = fields
  const ticks = (...numbers: number[]) => numbers.reduce((sum, number) => sum + (fields[number - 3] ?? 0), 0)
  return { pid, parent, ownMs: ticks(14, 15) * TICK_MS, reapedMs: ticks(16, 17) * TICK_MS }
}
