/** What every section is given, and what it tells in the end. */

export type Options = {
  /** The main.js of another build of the gateway, measured in the same rounds. */
  against: string | null
  rounds: number
  /** Of one measurement. */
  ms: number
  connections: number
  /** Payments open at once in a slow bank. */
  inFlight: number
  /** Payments stored, the smallest first. */
  stored: number[]
  /** Gateway processes on one Postgres. */
  processes: number[]
  /** Operations that are unresolved when their gateway is killed. */
  unresolved: number
  /** After which the memory is looked at again. */
  payments: number
}

export type Told = {
  title: string
  rows: (string | number)[][]
  notes: string[]
  /** What the issue asks for. `isAsserted`: a count, which no load of the machine excuses. */
  aims: Aim[]
}
export type Aim = { what: string; seen: number; atLeast?: number; atMost?: number; isAsserted?: boolean }

export type Section = (options: Options, show: (line: string) => void) => Promise<Told>

export function isMet({ seen, atLeast = -Infinity, atMost = Infinity }: Aim): boolean {
  return seen >= atLeast && seen <= atMost
}
