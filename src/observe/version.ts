import { readFileSync } from 'node:fs'

/** The release that runs, by its package.json; the programs of `build/` lie one folder deeper. */
export const VERSION =
  ['../../package.json', '../../../package.json'].map(versionIn).find(Boolean) ?? 'unknown'

function versionIn(path: string): string | null {
  try {
    const { version } = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as {
      version?: unknown
    }
    return typeof version === 'string' ? version : null
  } catch {
    return null
  }
}
