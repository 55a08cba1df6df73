/** What a proof shows: a line of progress while it runs, aligned tables at its end. */

export type Progress = { show(line: string): void; end(): void }

const LINE_EVERY_MS = 5_000

/** In place on a terminal; elsewhere a line now and then. */
export function showProgress(out: NodeJS.WriteStream = process.stdout): Progress {
  let last = { line: '', atMs: -Infinity }
  const print = (line: string) => {
    out.write(out.isTTY ? `\r\u001B[2K${line.slice(0, Math.max(20, out.columns - 1))}` : `${line}\n`)
    last = { line, atMs: performance.now() }
  }
  return {
    show: (line) => {
      if (line === last.line) return
      if (out.isTTY || performance.now() - last.atMs >= LINE_EVERY_MS) print(line)
    },
    end: () => {
      if (out.isTTY) out.write('\r\u001B[2K')
    },
  }
}

/** The first row is the head. What reads as a number is set to the right. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const cells = rows.map((row) => row.map(String))
  const widths = (cells[0] ?? []).map((_, column) =>
    Math.max(...cells.map((row) => (row[column] ?? '').length)),
  )
  const isNumber = widths.map((_, column) =>
    cells.slice(1).every((row) => /^[-\d][\d.,]*( ?(ms|s|%|MB|\/s))?$|^-?$/.test(row[column] ?? '')),
  )
  const lines = cells.map((row) =>
    row
      .map((cell, column) =>
        isNumber[column] === true ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  )
  const rule = widths.map((width) => '─'.repeat(width)).join('──')
  return [lines[0], rule, ...lines.slice(1)].join('\n') + '\n'
}

/** The value below which the share `p` of the values lies. */
export function percentile(values: readonly number[], p: number): number {
  const sorted = values.toSorted((one, other) => one - other)
  return sorted[Math.min(sorted.length - 1, Math.ceil(p * sorted.length) - 1)] ?? Number.NaN
}
