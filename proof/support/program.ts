import { inspect } from 'node:util'

/**
 * Runs a program that people start: exit code 0 when it says that all is well, else 1. Ctrl-C ends it at once, and what
 * it started ends with it.
 */
export function runProgram(usage: string, main: () => Promise<boolean>): void {
  if (process.argv.includes('--help')) {
    process.stdout.write(usage)
    return
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  main().then(
    (isWell) => process.exit(isWell ? 0 : 1),
    (error: unknown) => {
      process.stderr.write(`\n${told(error)}\n`)
      process.exit(1)
    },
  )
  function told(error: unknown): string {
    if (!(error instanceof Error)) return String(error)
    const isMisused = 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')
    return isMisused ? `${error.message}\n\n${usage}` : inspect(error)
  }
}

/** A whole number of the command line. */
export function readNumber(name: string, text: string): number {
  const number = Number(text)
  if (text !== '' && Number.isSafeInteger(number) && number >= 0) return number
  throw Object.assign(new Error(`${name} must be a whole number`), { code: 'ERR_PARSE_ARGS_NUMBER' })
}

/** A new one when none was given; print it, so that the run can be repeated. */
export function readSeed(text: string | undefined): number {
  return text === undefined ? Math.floor(Math.random() * 2 ** 32) : readNumber('--seed', text)
}
