import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isAlive } from './process-id.ts'

/**
 * Makes a folder by `make(draft)`, which leaves it as `<draft>/made`, and puts it in its place whole: one that was
 * killed half-way is never taken for it. Of two processes that make it at once the first one's stays.
 */
export async function makeOnce(folder: string, make: (draft: string) => Promise<void>): Promise<void> {
  if (existsSync(folder)) return
  await removeAbandoned(dirname(folder))
  const draft = await mkdtemp(join(dirname(folder), `draft-${process.pid}-`))
  try {
    await make(draft)
    await rename(join(draft, 'made'), folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error
    })
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
}

async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const pid = Number(/^draft-(\d+)-/.exec(name)?.[1] ?? process.pid)
    // What cannot be removed is in nobody's way.
    if (!isAlive(pid)) await rm(join(folder, name), { recursive: true, force: true }).catch(() => {})
  }
}
