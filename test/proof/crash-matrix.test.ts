import { expect, it } from 'vitest'
import { cellsOf } from '../../proof/crash/cells.ts'
import type { Cell, OperationName, Point } from '../../proof/crash/cells.ts'
import { runCells } from '../../proof/crash/matrix.ts'

/** The short form of `npm run crash-matrix`: two processes die with four requests each, and Postgres with two; the time is the program's to hold. */

const SEED = 1
/** Not repeated, and the process is started again. */
const ALONE: [OperationName, Point][] = [
  ['authorize', 'key stored, answer withheld'],
  ['capture', 'bank committed, key unstored'],
  ['void', 'settle sent'],
  ['refund', 'claim committed, its answer withheld'],
]
/** Repeated by its client, and the other process takes over. */
const REPEATED: [OperationName, Point][] = [
  ['authorize', 'bank committed, key unstored'],
  ['authorize', 'claim sent'],
  ['capture', "client's answer unsent"],
  ['refund', 'at the bank, before the work'],
]

/** Under a gateway that lives. */
const POSTGRES_DIES: [OperationName, Point][] = [
  ['capture', 'settle sent'],
  ['void', 'claim committed, its answer withheld'],
]

function isChosen({ scene, dies, operation, point, repeats, processes }: Cell): boolean {
  if (dies === 'Postgres') return POSTGRES_DIES.some(([name, where]) => name === operation && where === point)
  if (scene !== 'first send') return false
  const chosen = repeats ? REPEATED : ALONE
  return (
    processes === (repeats ? 2 : 1) && chosen.some(([name, where]) => name === operation && where === point)
  )
}

it('whatever a gateway was doing when it or its Postgres was killed ends as the bank has it, once', async () => {
  const cells = cellsOf(SEED, 0).filter(isChosen)
  const { outcomes, books } = await runCells(cells, { seed: SEED, atOnce: 3, show: () => {} })
  const bad = outcomes.filter(({ convergedMs, violations }) => convergedMs === null || violations.length > 0)
  expect(bad).toEqual([])
  expect(books).toEqual([])
  expect(outcomes).toHaveLength(10)
}, 60_000)
