/** What one round of one contender comes to, and what several rounds say together. */

export type Measured = {
  perSecond: number
  /** Of what is measured. */
  cpuMsEach: number
  /** Of the load and the bank, which share its cores. */
  besideMsEach: number
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2
}

/** The median and, where there are several, the least and the most. */
export function spread(values: readonly number[], digits = 0): string {
  const text = (value: number) => value.toFixed(digits)
  if (values.length < 2) return text(median(values))
  return `${text(median(values))} (${text(Math.min(...values))} to ${text(Math.max(...values))})`
}
