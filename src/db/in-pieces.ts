import { setTimeout as pause } from 'node:timers/promises'
import { isLockTimeout } from './persist.ts'

/** What a statement that needs a table for itself waits for it at a time. */
export const LOCK_MS = 300
const PAUSE_MS = 700
/** A minute. */
const TRIES = 60

/**
 * Whoever waits for a table's lock stops all that come after it. Behind a long read (a dump) such a statement waits in
 * small pieces, so that payments go on between: it ends itself after `LOCK_MS`, and is said again.
 */
export async function inPieces<T>(statement: () => PromiseLike<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await statement()
    } catch (error) {
      if (!isLockTimeout(error) || tries === TRIES) throw error
      await pause(PAUSE_MS)
    }
  }
}
