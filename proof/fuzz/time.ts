/** The time that the statements are told, a thousand times as fast as ours, and not the same everywhere. */

export const LEASE_MS = 50_000
export const RETRY_MS = 5_000
/** The bank forgets within seconds of ours, so that late looks and forgotten authorizes happen. */
export const REPLAY_WINDOW_MS = 900_000
export const HOLD_MS_MAX = 1_200_000

const START = Date.parse('2026-11-23T10:00:00Z')
const TIMES = 1_000
const DRIFT_MS = 5_000
const STEP_MS = 3_600_000

/** Now and then by a clock that is an hour off. */
export function createTime(random: () => number): () => Date {
  const startedMs = performance.now()
  return () => {
    const step = random() < 0.01 ? (random() < 0.5 ? STEP_MS : -STEP_MS) : 0
    const drift = (random() - 0.5) * 2 * DRIFT_MS
    return new Date(START + Math.round((performance.now() - startedMs) * TIMES + drift + step))
  }
}
