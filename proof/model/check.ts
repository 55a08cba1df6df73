import fc from 'fast-check'
import type { Database } from '../../src/db/connection.ts'
import { story } from './deeds.ts'
import type { Story } from './deeds.ts'
import { play } from './play.ts'
import type { History } from './play.ts'
import { RULES } from './rules.ts'
import { shorten } from './shorten.ts'

/** The shortest story that was found to break a rule. */
export type Found = { story: Story; broken: string[]; seed: number; runs: number }

/**
 * Plays random stories, a share of them on each database, until all are played or one breaks a rule. Every database
 * must have been prepared by `allowEmptying`, and have one connection.
 */
export async function check(
  databases: readonly Database[],
  options: { runs: number; seed: number; onRun?: (history: History) => void },
): Promise<Found | null> {
  let found: Found | null = null
  const lanes = databases.map(async (sql, lane) => {
    const seed = (options.seed + lane) | 0
    const isKept = fc.asyncProperty(story, async (one) => {
      if (found !== null) return
      const broken = await brokenBy(sql, one, options.onRun)
      if (broken.length > 0) throw new Error(broken.join('\n'))
    })
    const numRuns = Math.ceil(options.runs / databases.length)
    const { failed, counterexample, numRuns: runs } = await fc.check(isKept, { numRuns, seed })
    if (!failed || counterexample === null) return
    const isBroken = async (one: Story) => (await brokenBy(sql, one)).length > 0
    const shortest = await shorten(counterexample[0], isBroken)
    found = { story: shortest, broken: await brokenBy(sql, shortest), seed, runs: runs * databases.length }
  })
  await Promise.all(lanes)
  return found
}

/** Empty when all is well. */
export async function brokenBy(
  sql: Database,
  one: Story,
  onRun: (history: History) => void = () => {},
): Promise<string[]> {
  try {
    const history = await play(sql, one)
    onRun(history)
    return brokenIn(history)
  } catch (error) {
    return [`the story does not come to its end: ${error instanceof Error ? error.stack : String(error)}`]
  }
}

function brokenIn(history: History): string[] {
  return Object.entries(RULES).flatMap(([rule, judge]) => judge(history).map((what) => `${rule}: ${what}`))
}
