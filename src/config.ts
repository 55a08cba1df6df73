import { z } from 'zod'
import type { OperationSettings } from './gateway.ts'

/**
 * The environment, read once. Names carry their unit; README.md has the same table. A value that does not fit is
 * refused at the start, in one line per setting and in the words of whoever set it.
 */
export type Config = {
  production: boolean
  host: string
  port: number
  /** Null: start an embedded server. */
  databaseUrl: string | null
  databaseConnectionsMax: number
  databaseStatementTimeoutMs: number
  /** Null: start the simulator. */
  bankUrl: string | null
  bankInFlightMax: number
  bankQueueMax: number
  /** `client:sha256` of each API key; empty: everyone is `dev`. */
  apiKeys: string[]
  logLevel: string
  dataFolder: string
  sweepEveryMs: number
  operation: OperationSettings
  simulator: {
    port: number
    minLatencyMs: number
    maxLatencyMs: number
    failureRate: number
    authExpiryHours: number
  }
}

/** A start that cannot be: said in one line, without a stack trace. */
export class StartRefused extends Error {}

const positive = (fallback: number) => z.coerce.number().int().positive().default(fallback)
const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback)
const url = (protocols: string[]) =>
  z.string().refine((text) => URL.canParse(text) && protocols.includes(new URL(text).protocol), {
    error: `must be a URL that starts with ${protocols.map((protocol) => `${protocol}//`).join(' or ')}`,
  })

const environment = z.object({
  NODE_ENV: z.string().default('development'),
  HOST: z.string().default('127.0.0.1'),
  PORT: port(4000),
  DATABASE_URL: url(['postgres:', 'postgresql:'])
    .refine((text) => !URL.canParse(text) || !new URL(text).hostname.includes(','), {
      error: 'must name one host: put a proxy or a DNS name in front of several',
    })
    .nullable()
    .default(null),
  // A payment holds no connection while the bank thinks: ten carry thousands in flight.
  DATABASE_CONNECTIONS_MAX: positive(10),
  DATABASE_STATEMENT_TIMEOUT_MS: positive(5_000),
  BANK_URL: url(['http:', 'https:']).nullable().default(null),
  BANK_IN_FLIGHT_MAX: positive(256),
  BANK_QUEUE_MAX: z.coerce.number().int().min(0).default(256),
  // Above the bank's own 15 s, so that we never give up on an answer that it still may send.
  BANK_ATTEMPT_TIMEOUT_MS: positive(20_000),
  BANK_QUIET_PERIOD_MS: positive(30_000),
  BANK_CONFIRM_AFTER_MS: positive(1_000),
  RECOVER_AFTER_MS: positive(5_000),
  REQUEST_DEADLINE_MS: positive(10_000),
  API_KEYS: z
    .string()
    .default('')
    .transform((text) =>
      text
        .split(',')
        .map((part) => part.trim())
        .filter((part) => part !== ''),
    )
    .pipe(
      z.array(
        z.string().regex(/^[^:\s]+:[0-9a-f]{64}$/, 'must be client:sha256-in-hex, separated by commas'),
      ),
    ),
  SWEEP_EVERY_MS: positive(3_000),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  DATA_FOLDER: z.string().default('.data'),
  // The bank's own variables, for the simulator.
  SIMULATOR_PORT: port(8788),
  MIN_LATENCY_MS: z.coerce.number().min(0).default(100),
  MAX_LATENCY_MS: z.coerce.number().min(0).default(2_000),
  FAILURE_RATE: z.coerce.number().min(0).max(1).default(0.05),
  AUTH_EXPIRY_HOURS: z.coerce.number().positive().default(168),
})

export function readConfig(env: NodeJS.ProcessEnv): Config {
  // An empty variable, as compose files set it, is an unset one.
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''))
  const parsed = environment.safeParse(set)
  if (!parsed.success) {
    throw new StartRefused(
      parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('\n'),
    )
  }
  const e = parsed.data
  const production = e.NODE_ENV === 'production'
  const missing = (['DATABASE_URL', 'BANK_URL', 'API_KEYS'] as const).filter(
    (name) => set[name] === undefined,
  )
  if (production && missing.length > 0) {
    throw new StartRefused(
      `NODE_ENV is production, so ${missing.join(', ')} must be set (see the settings in README.md). Nothing was started.`,
    )
  }
  return {
    production,
    host: e.HOST,
    port: e.PORT,
    databaseUrl: e.DATABASE_URL,
    databaseConnectionsMax: e.DATABASE_CONNECTIONS_MAX,
    databaseStatementTimeoutMs: e.DATABASE_STATEMENT_TIMEOUT_MS,
    bankUrl: e.BANK_URL,
    bankInFlightMax: e.BANK_IN_FLIGHT_MAX,
    bankQueueMax: e.BANK_QUEUE_MAX,
    apiKeys: e.API_KEYS,
    logLevel: e.LOG_LEVEL,
    dataFolder: e.DATA_FOLDER,
    sweepEveryMs: e.SWEEP_EVERY_MS,
    operation: {
      ...OPERATION_DEFAULTS,
      requestDeadlineMs: e.REQUEST_DEADLINE_MS,
      attemptTimeoutMs: e.BANK_ATTEMPT_TIMEOUT_MS,
      quietPeriodMs: e.BANK_QUIET_PERIOD_MS,
      recoveriesMax: Math.ceil(e.BANK_IN_FLIGHT_MAX / 2),
      confirmAfterMs: e.BANK_CONFIRM_AFTER_MS,
      recoverAfterMs: e.RECOVER_AFTER_MS,
      // The lease starts at the claim: what its send starts late must fit in the quiet period.
      claimFreshMs: Math.min(OPERATION_DEFAULTS.claimFreshMs, e.BANK_QUIET_PERIOD_MS / 6),
    },
    simulator: {
      port: e.SIMULATOR_PORT,
      minLatencyMs: e.MIN_LATENCY_MS,
      maxLatencyMs: e.MAX_LATENCY_MS,
      failureRate: e.FAILURE_RATE,
      authExpiryHours: e.AUTH_EXPIRY_HOURS,
    },
  }
}

export const OPERATION_DEFAULTS: OperationSettings = {
  requestDeadlineMs: 10_000,
  attemptTimeoutMs: 20_000,
  quietPeriodMs: 30_000,
  claimFreshMs: 5_000,
  // The bank forgets after 24 h; an hour is left for clocks that differ.
  replayWindowMs: 23 * 3_600_000,
  resendsMax: 3,
  recoverAfterMs: 5_000,
  backoffBaseMs: 200,
  backoffCapMs: 2_000,
  confirmAfterMs: 1_000,
  // 5 min, 1 h and 20 h: a bank that was slow to tell, one that was repaired, and once before it forgets.
  lateLooksMs: [5 * 60_000, 3_600_000, 20 * 3_600_000],
  expireMarginMs: 60_000,
  recoveriesMax: 128,
}
