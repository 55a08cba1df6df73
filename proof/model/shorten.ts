import type { Asking, Deed, Failing, Story } from './deeds.ts'

/**
 * The story without whatever it does not need: fast-check makes each deed simple, this leaves out those in the middle
 * and what fails in vain. `isBroken` plays a story.
 */
export async function shorten(story: Story, isBroken: (story: Story) => Promise<boolean>): Promise<Story> {
  for (const simpler of simplerThan(story)) {
    if (await isBroken(simpler)) return await shorten(simpler, isBroken)
  }
  return story
}

function simplerThan(story: Story): Story[] {
  const { deeds } = story
  const fewer = without(deeds).map((left) => ({ ...story, deeds: left }))
  const simpler = deeds.flatMap((deed, at) =>
    simplerDeeds(deed).map((one) => ({ ...story, deeds: deeds.with(at, one) })),
  )
  const plain: Story[] = [
    ...(story.scene === 'captured' ? [{ ...story, scene: 'authorized' as const }] : []),
    ...(story.scene === 'authorized' ? [{ ...story, scene: 'empty' as const }] : []),
    ...(story.chance === 0 ? [] : [{ ...story, chance: 0 }]),
  ]
  return [...fewer, ...plain, ...simpler]
}

function simplerDeeds(deed: Deed): Deed[] {
  switch (deed.do) {
    case 'together':
      return [
        ...[deed.one, deed.other].map((left) => ({
          ...left,
          bank: [...deed.one.bank, ...deed.other.bank],
          database: [...deed.one.database, ...deed.other.database],
        })),
        ...lessFailing<Asking>(deed.one).map((one) => ({ ...deed, one })),
        ...lessFailing<Asking>(deed.other).map((other) => ({ ...deed, other })),
      ]
    case 'ask':
    case 'sweep':
    case 'settle':
    case 'rerun':
    case 'err':
      return lessFailing(deed)
    case 'wait':
    case 'kill':
    case 'drain':
    case 'outage':
    case 'step':
      return []
  }
}

function lessFailing<F extends Failing>(deed: F): F[] {
  return [
    ...(deed.trouble === null ? [] : [{ ...deed, trouble: null }]),
    ...without(deed.database).map((database) => ({ ...deed, database })),
    ...without(deed.bank).map((bank) => ({ ...deed, bank })),
    ...(deed.by === 0 ? [] : [{ ...deed, by: 0 as const }]),
  ]
}

/** All ways to leave one out. */
function without<T>(items: readonly T[]): T[][] {
  return items.map((_, at) => items.toSpliced(at, 1))
}
