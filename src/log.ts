import { pino } from 'pino'
import type { Logger, LoggerOptions } from 'pino'
import postgres from 'postgres'
import { logLines } from './observe/metrics.ts'
import { withoutCard } from './payment/card-guard.ts'

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

/**
 * The text of a Postgres error can echo a value of the statement; its code and place cannot. What a library says may
 * hold an input: no digits are told where they could be a card's.
 */
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
      where: where && withoutCard(where.slice(0, 200)),
    }
  }
  if (error instanceof Error) {
    const { name, message, stack } = error
    return { type: name, message: withoutCard(message), stack: stack && withoutCards(stack) }
  }
  return { type: typeof error }
}

/** Its frames are looked at one by one, or their lines and columns would be one long number. */
function withoutCards(stack: string): string {
  const frames = stack.search(/^ {4}at /m)
  if (frames === -1) return withoutCard(stack)
  const lines = stack.slice(frames).split('\n').map(withoutCard)
  return withoutCard(stack.slice(0, frames)) + lines.join('\n')
}
