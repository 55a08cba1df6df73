import { pino } from 'pino'
import type { Logger, LoggerOptions } from 'pino'
import postgres from 'postgres'
import { logLines } from './observe/metrics.ts'

/** JSON lines; on a terminal, in development, lines for people. Never card data: errors are cut to what is safe. */
export async function createLogger(level: string, forPeople: boolean): Promise<Logger> {
  const options: LoggerOptions = {
    level,
    serializers: { err: safeError },
    base: null,
    hooks: {
      // So that an alarm needs no reader of the log.
      logMethod(args, method, number) {
        if (number >= WARN) logLines.inc({ level: pino.levels.labels[number] ?? 'other' })
        method.apply(this, args)
      },
    },
  }
  // The image, made for production, does not have it.
  const printer = forPeople ? await import('pino-pretty').catch(() => null) : null
  return printer === null
    ? pino(options, standardOutput())
    : pino(options, printer.default({ translateTime: 'SYS:HH:MM:ss', singleLine: true }))
}

/** The library tries for ever to write to a terminal that was closed, and the process would never end. */
function standardOutput() {
  const output = pino.destination(1)
  const write = () => true
  return output.on('error', ({ code }: NodeJS.ErrnoException) => {
    if (code === 'EIO')
      Object.assign(output, { write, flushSync: () => {}, end: () => {}, destroy: () => {} })
  })
}

/** pino's own number for it. */
const WARN = 40

/** The text of a Postgres error can echo a value of the statement; its code and place cannot. */
export function safeError(error: unknown): Record<string, unknown> {
  if (error instanceof postgres.PostgresError) {
    const { code, severity, routine, constraint_name, table_name, where } = error
    return {
      type: 'PostgresError',
      code,
      severity,
      routine,
      constraint_name,
      table_name,
      where: where?.slice(0, 200),
    }
  }
  if (error instanceof Error) return { type: error.name, message: error.message, stack: error.stack }
  return { type: typeof error }
}
