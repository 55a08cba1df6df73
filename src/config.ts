import { join } from 'node:path'
import { z } from 'zod'
import type { AccessSettings } from './access/access.ts'
import type { CustomerTokenSettings } from './access/customer-token.ts'
import type { RateLimits } from './access/rate-limit.ts'
import type { OperationSettings } from './gateway.ts'
import {
  baseUrl,
  databaseUrl,
  httpUrl,
  jwtSecret,
  latency,
  list,
  milliseconds,
  number,
  origin,
  port,
  positive,
  webhookSecret,
  whole,
} from './setting-rules.ts'

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
  /** Who is let in, and how: see access/. */
  access: AccessSettings
  rateLimits: RateLimits
  corsOrigins: string[]
  logLevel: string
  dataFolder: string
  sweepEveryMs: number
  /** Null: not sent from here. 'off': not recorded any more either. */
  webhook: { url: string; secrets: string[] } | 'off' | null
  /** 0: only when it is asked for. */
  reconcileEveryHours: number
  shutdownDelayMs: number
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

const DATA_FOLDER = '.data'

/** A year: what is added to a time remains one. */
const HOURS_MAX = 8_760

const environment = z.object({
  NODE_ENV: z
    .enum(['development', 'test', 'production'], { error: 'must be development, test or production' })
    .default('development'),
  HOST: z.string().default('127.0.0.1'),
  PORT: port(4000),
  DATABASE_URL: databaseUrl.nullable().default(null),
  // A payment holds no connection while the bank thinks: ten carry thousands in flight.
  DATABASE_CONNECTIONS_MAX: positive(10),
  DATABASE_STATEMENT_TIMEOUT_MS: milliseconds(5_000),
  BANK_URL: baseUrl.nullable().default(null),
  BANK_IN_FLIGHT_MAX: positive(256),
  BANK_QUEUE_MAX: whole(256, 0),
  // Above the bank's own 15 s, so that we never give up on an answer that it still may send.
  BANK_ATTEMPT_TIMEOUT_MS: milliseconds(20_000),
  BANK_QUIET_PERIOD_MS: milliseconds(30_000),
  BANK_CONFIRM_AFTER_MS: milliseconds(1_000),
  RECOVER_AFTER_MS: milliseconds(5_000),
  REQUEST_DEADLINE_MS: milliseconds(10_000),
  API_KEYS: list,
  API_KEYS_FILE: z.string().optional(),
  OPEN_TO_NETWORK: z.enum(['true', 'false']).default('false'),
  CUSTOMER_JWKS_URL: httpUrl.optional(),
  CUSTOMER_JWT_SECRET: jwtSecret.optional(),
  CUSTOMER_JWT_ISSUER: z.string().optional(),
  CUSTOMER_JWT_AUDIENCE: z.string().optional(),
  CORS_ORIGINS: list.pipe(z.array(origin)),
  CLIENT_REQUESTS_PER_SECOND_MAX: positive(1_000),
  CUSTOMER_REQUESTS_PER_MINUTE_MAX: positive(60),
  SWEEP_EVERY_MS: milliseconds(3_000),
  WEBHOOK_URL: z
    .union([z.literal('off'), httpUrl])
    .nullable()
    .default(null),
  WEBHOOK_SECRET: list.pipe(z.array(webhookSecret)),
  // Daily: a bank that was reset is noticed within a day, for some ten GETs a second while nobody needs the bank.
  RECONCILE_EVERY_HOURS: number(24, 0, HOURS_MAX),
  // At most ten seconds: with the longest wait of a client it ends before orchestrators lose patience (30 s).
  SHUTDOWN_DELAY_MS: whole(5_000, 0, 10_000),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  DATA_FOLDER: z.string().default(DATA_FOLDER),
  // The bank's own variables, for the simulator.
  SIMULATOR_PORT: port(8788),
  MIN_LATENCY_MS: latency(100),
  MAX_LATENCY_MS: latency(2_000),
  FAILURE_RATE: number(0.05, 0, 1),
  AUTH_EXPIRY_HOURS: number(168, 1e-6, HOURS_MAX),
})

/** The bank's own times. A simulation scales them all down, and its waits with them. */
const LEAST_IN_PRODUCTION = [
  [
    'BANK_ATTEMPT_TIMEOUT_MS',
    15_000,
    'the bank takes as long for an answer, and whoever gives up before leaves money moved unseen',
  ],
  ['BANK_QUIET_PERIOD_MS', 15_000, 'the bank may still be at work on what was not answered'],
  ['REQUEST_DEADLINE_MS', 1_000, 'a claim alone may take as long, and nothing would ever be sent'],
  ['BANK_CONFIRM_AFTER_MS', 1_000, 'a short fault at the bank must not be taken for its word twice'],
] as const

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
  const missing = (['DATABASE_URL', 'BANK_URL'] as const).filter((name) => set[name] === undefined)
  if (production && missing.length > 0) {
    throw new StartRefused(
      `NODE_ENV is production, so ${missing.join(', ')} must be set (see the settings in README.md). Nothing was started.`,
    )
  }
  for (const [name, leastMs, reason] of production ? LEAST_IN_PRODUCTION : []) {
    if (e[name] < leastMs)
      throw new StartRefused(
        `${name}: must be ${leastMs} or more in production: ${reason}. Nothing was started.`,
      )
  }
  if (e.WEBHOOK_URL !== null && e.WEBHOOK_URL !== 'off' && e.WEBHOOK_SECRET.length === 0) {
    throw new StartRefused(
      'WEBHOOK_URL is set, so WEBHOOK_SECRET must be: whsec_ and 24 to 64 random bytes in base64. Nothing was started.',
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
    access: {
      production,
      host: e.HOST,
      apiKeys: e.API_KEYS,
      apiKeysFile: keysFileOf(set),
      openToNetwork: e.OPEN_TO_NETWORK === 'true',
      customerTokens: customerTokensOf(e, production),
    },
    rateLimits: {
      clientPerSecond: e.CLIENT_REQUESTS_PER_SECOND_MAX,
      customerPerMinute: e.CUSTOMER_REQUESTS_PER_MINUTE_MAX,
    },
    corsOrigins: e.CORS_ORIGINS,
    logLevel: e.LOG_LEVEL,
    dataFolder: e.DATA_FOLDER,
    sweepEveryMs: e.SWEEP_EVERY_MS,
    webhook:
      e.WEBHOOK_URL === null || e.WEBHOOK_URL === 'off'
        ? e.WEBHOOK_URL
        : { url: e.WEBHOOK_URL, secrets: e.WEBHOOK_SECRET },
    reconcileEveryHours: e.RECONCILE_EVERY_HOURS,
    shutdownDelayMs: e.SHUTDOWN_DELAY_MS,
    operation: {
      ...OPERATION_DEFAULTS,
      requestDeadlineMs: e.REQUEST_DEADLINE_MS,
      attemptTimeoutMs: e.BANK_ATTEMPT_TIMEOUT_MS,
      quietPeriodMs: e.BANK_QUIET_PERIOD_MS,
      confirmAfterMs: e.BANK_CONFIRM_AFTER_MS,
      recoverAfterMs: e.RECOVER_AFTER_MS,
      // The lease starts at the claim: what its send starts late must fit in the quiet period.
      claimFreshMs: Math.min(OPERATION_DEFAULTS.claimFreshMs, e.BANK_QUIET_PERIOD_MS / 6),
      recoveriesMax: Math.ceil(e.BANK_IN_FLIGHT_MAX / 2),
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

/** For `npm run keys` too, which needs no other setting. */
export function keysFileOf(env: Record<string, string | undefined>): string {
  return env['API_KEYS_FILE'] || join(env['DATA_FOLDER'] || DATA_FOLDER, 'api-keys')
}

/** All of it or nothing: half a setting would let nobody in, or everybody. */
function customerTokensOf(e: z.infer<typeof environment>, production: boolean): CustomerTokenSettings | null {
  const {
    CUSTOMER_JWKS_URL: jwksUrl,
    CUSTOMER_JWT_SECRET: secret,
    CUSTOMER_JWT_ISSUER: issuer,
    CUSTOMER_JWT_AUDIENCE: audience,
  } = e
  if ([jwksUrl, secret, issuer, audience].every((setting) => setting === undefined)) return null
  const signedBy =
    jwksUrl === undefined ? secret !== undefined && { secret } : secret === undefined && { jwksUrl }
  if (!signedBy || issuer === undefined || audience === undefined) {
    throw new StartRefused(
      "Customers' tokens need CUSTOMER_JWT_ISSUER, CUSTOMER_JWT_AUDIENCE and one of CUSTOMER_JWKS_URL and CUSTOMER_JWT_SECRET. Nothing was started.",
    )
  }
  if (production && 'jwksUrl' in signedBy && !signedBy.jwksUrl.startsWith('https:')) {
    throw new StartRefused(
      'CUSTOMER_JWKS_URL must be https in production: whoever changes these keys on their way is every customer.',
    )
  }
  return { issuer, audience, signedBy }
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
  expireMarginMs: 60_000,
  recoveriesMax: 128,
}
