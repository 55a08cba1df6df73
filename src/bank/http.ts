import { createFetch, FetchError } from 'ofetch'
import type { Fetch } from 'ofetch'
import { Pool, request } from 'undici'
import { connector } from '../http-connector.ts'

/**
 * One HTTP exchange with the bank. ofetch speaks, undici carries, and one AbortSignal.timeout bounds all of it: the
 * connection, the headers and the body. Nothing is retried and no redirect is followed here or below.
 */

export type Ask = {
  method: 'GET' | 'POST'
  path: string
  /** POST only: the Idempotency-Key. */
  key?: string
  /** POST only: JSON, or empty for a probe. */
  body?: string
  /** Ends the exchange early; for questions that move no money. */
  signal?: AbortSignal
}

/** What came back: a complete answer, or how it failed and whether a byte of the request can have left. */
export type Reply =
  | { arrived: true; status: number; contentType: string; replayed: boolean; text: string }
  | { arrived: false; perhapsSent: boolean; code: string }

export type Exchange = { startedAt: Date; durationMs: number; reply: Reply }

export type Http = { exchange(ask: Ask): Promise<Exchange>; close(): Promise<void> }

/** The bank's longest answer is some 300 bytes; more than this is not an answer of the bank's. */
const RESPONSE_BYTES_MAX = 64 * 1024
/** Shorter than any server's idle limit that is worth the name: a socket reused just as the bank closes it costs a probe. */
const KEEP_ALIVE_MS = 2_000
/** Below the attempt's timeout, so that "never connected, nothing sent" is told apart from "no answer". */
const CONNECT_TIMEOUT_MS_MAX = 5_000

export function createHttp(options: { baseUrl: string; attemptTimeoutMs: number }): Http {
  const base = normalised(options.baseUrl)
  const pool = new Pool(base.origin, {
    // As many connections as there are exchanges in flight (the bulkhead bounds those). A pool that is full would
    // let a request wait unsent until its timeout, which then looks ambiguous.
    connections: null,
    pipelining: 1,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    headersTimeout: 0,
    bodyTimeout: 0,
    maxResponseSize: RESPONSE_BYTES_MAX,
    connect: connector({ timeout: Math.min(CONNECT_TIMEOUT_MS_MAX, options.attemptTimeoutMs / 2) }),
  })
  const fetch = createFetch({ fetch: fetchOver(pool) })

  async function exchange(ask: Ask): Promise<Exchange> {
    const startedAt = new Date()
    const startedMs = performance.now()
    const timeout = AbortSignal.timeout(options.attemptTimeoutMs)
    const reply = await fetch
      .raw<string, 'text'>(base.href + ask.path, {
        method: ask.method,
        ...(ask.key === undefined ? {} : { headers: { 'idempotency-key': ask.key } }),
        ...(ask.body === undefined ? {} : { body: ask.body }),
        retry: 0,
        ignoreResponseError: true,
        responseType: 'text',
        signal: ask.signal === undefined ? timeout : AbortSignal.any([timeout, ask.signal]),
      })
      .then(
        ({ status, headers, _data }): Reply => ({
          arrived: true,
          status,
          contentType: headers.get('content-type') ?? '',
          replayed: headers.get('x-idempotent-replayed') === 'true',
          text: _data ?? '',
        }),
        failure,
      )
    return { startedAt, durationMs: Math.round(performance.now() - startedMs), reply }
  }

  return { exchange, close: async () => (pool.closed ? undefined : await pool.close()) }
}

/**
 * A fetch of the few lines that ofetch asks of one. undici's own `fetch` costs 2.5 to 4 times the CPU (measured: 2,900
 * against 11,000 exchanges a second on two cores), and silently sends a POST again when it is answered 421.
 */
function fetchOver(pool: Pool): Fetch {
  return async (url, init) => {
    const { statusCode, headers, body } = await request(url as string, {
      dispatcher: pool,
      method: init?.method as 'GET' | 'POST',
      headers: init?.headers as Headers,
      body: (init?.body as string | undefined) ?? null,
      signal: init?.signal,
    })
    return {
      status: statusCode,
      headers: new Headers(headers as Record<string, string>),
      body: body as unknown,
      text: () => body.text(),
    } as Response
  }
}

/** Without a trailing or doubled slash: the bank answers those with a 301 that skips idempotency. */
function normalised(baseUrl: string): { origin: string; href: string } {
  const { origin, pathname } = new URL(baseUrl)
  return { origin, href: origin + pathname.replaceAll(/\/{2,}/g, '/').replace(/\/$/, '') }
}

/** The error itself goes no further: ofetch's holds the options it was called with, and so the card. */
function failure(error: unknown): Reply {
  // What fails after the headers comes as it is, all else wrapped.
  const cause = error instanceof FetchError ? error.cause : error
  return { arrived: false, perhapsSent: !failedBeforeSending(cause), code: codeOf(cause) }
}

/**
 * Only what cannot have sent a byte. Judged by the system call, not by the code: EHOSTUNREACH and ETIMEDOUT also end
 * connections that have carried a request. `localhost` fails as an AggregateError, one error for each address.
 */
function failedBeforeSending(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.every(failedBeforeSending)
  const { code, syscall } = Object(error) as { code?: unknown; syscall?: unknown }
  return syscall === 'connect' || syscall === 'getaddrinfo' || code === 'UND_ERR_CONNECT_TIMEOUT'
}

function codeOf(error: unknown): string {
  const { name, code } = Object(error) as { name?: unknown; code?: unknown }
  if (name === 'TimeoutError') return 'TIMEOUT'
  return typeof code === 'string' ? code : String(name)
}
