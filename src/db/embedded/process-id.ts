import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'

/** What a process id, read from a file, is worth: the process may be gone, and the number another's by now. */

/** True for a zombie as well, whose parent has not asked for its end; its command line is empty. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** With spaces between the arguments; empty when there is no such process. */
export async function commandLine(pid: number): Promise<string> {
  try {
    if (process.platform === 'linux')
      return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ')
    return (await promisify(execFile)('ps', ['-p', String(pid), '-o', 'args='])).stdout
  } catch {
    return ''
  }
}
