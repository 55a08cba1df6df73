/**
 * Rung by whoever has something, waited for by one. Rings that come while it is busy are one ring, and none is lost.
 */
export type Bell = {
  ring: () => void
  /** Resolves when it has been rung since the last wait, or after `atMostMs`. */
  wait: (atMostMs?: number) => Promise<void>
}

export function createBell(): Bell {
  let isRung = false
  let wake: (() => void) | null = null
  return {
    ring() {
      isRung = true
      wake?.()
    },
    async wait(atMostMs) {
      if (!isRung) {
        await new Promise<void>((resolve) => {
          const timer = atMostMs === undefined ? undefined : setTimeout(resolve, atMostMs)
          wake = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      }
      wake = null
      isRung = false
    },
  }
}
