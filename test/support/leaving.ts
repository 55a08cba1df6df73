import { afterAll } from 'vitest'

/**
 * What a maker must undo when the test file has ended, newest first. Vitest loads this module anew for every file, so
 * the one afterAll below is the file's; one that a maker called from inside a test would never run.
 */
const undos: (() => unknown)[] = []

export function whenFileEnds(undo: () => unknown): void {
  undos.push(undo)
}

afterAll(async () => {
  for (const undo of undos.toReversed()) await undo()
})
