import { spawn } from 'node:child_process'
import { chmod, mkdtemp } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * A new folder, removed by `removeWithUs`. Anyone may enter it, since Postgres runs as another user when we are root;
 * root's TMPDIR may be closed to that user.
 */
export async function temporaryFolder(prefix: string): Promise<string> {
  const folder = await mkdtemp(join(process.getuid?.() === 0 ? '/tmp' : tmpdir(), prefix))
  removeWithUs(folder)
  await chmod(folder, 0o755)
  return folder
}

/**
 * Removes the folder, and stops the embedded servers whose data is in it, when this process ends, however it ends:
 * Ctrl-C in Vitest runs no afterAll, and left a dozen servers behind. A shell waits for the pipe from us to close.
 */
export function removeWithUs(folder: string): void {
  const shell = spawn('sh', ['-c', REMOVE, folder], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
  shell.unref()
  // A pipe of a child's is a socket, whatever its type says.
  const ours = shell.stdin as Socket
  ours.unref()
}

/** The process ids in files may be others' by now: only those whose command line names the folder are stopped. */
const REMOVE = `
  read -r _
  find "$0" -name postmaster.pid | while read -r file; do
    pid=$(head -n 1 "$file")
    ps -o args= -p "$pid" | grep -qF "$0" && kill -QUIT "$pid"
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" && sleep 0.1; done
  done
  rm -rf "$0"`
