import { spawn, spawnSync } from 'node:child_process'
import { rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { startTestBank } from '../support/bank.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { expectBookedOnce, startOrders, unclaimed } from '../support/orders.ts'
import { removeWithUs, temporaryFolder } from '../support/temporary.ts'

/** A real full disk, for which a file system of our own is needed: only root may have one. */

const disk = await temporaryFolder('gateway-disk-')
const isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=140m', 'tmpfs', disk]).status === 0

it.skipIf(!isMounted)(
  'Postgres has its disk full: nothing is sent that is not claimed, no outcome is lost, and it goes on when there is room',
  async () => {
    unmountWithUs()
    const options = { folder: join(disk, 'postgres'), durable: false, connectionsMax: 20 }
    const start = async () => {
      const started = await startEmbedded(options)
      // Before its disk is taken from under it: then nobody would find it any more.
      whenFileEnds(() => started.stop())
      return started
    }
    const server = await start()
    removeWithUs(server.folder)
    await server.createDatabase('gateway')
    const bank = await startTestBank({ minLatencyMs: 5, maxLatencyMs: 30 })
    const gateway = await spawnGateway({
      DATABASE_URL: server.url('gateway'),
      BANK_URL: bank.url,
      BANK_ATTEMPT_TIMEOUT_MS: '2000',
      BANK_QUIET_PERIOD_MS: '1500',
      BANK_CONFIRM_AFTER_MS: '100',
      SWEEP_EVERY_MS: '300',
      REQUEST_DEADLINE_MS: '2000',
    })
    const receipts = connect(server.url('gateway'), { connectionsMax: 1, statementTimeoutMs: 5_000 })
    whenFileEnds(() => receipts.end({ timeout: 1 }))
    const orders = startOrders(gateway.client, 8)
    await orders.until(8)

    await fill(join(disk, 'ballast'))
    await untilLogged(gateway.output, /"code":"(53100|CONNECTION_CLOSED)"/)
    await untilLogged(gateway.output, /"failures":5,/)

    await rm(join(disk, 'ballast'))
    // Where it was the log that found no room, the server has ended itself: its supervisor starts it again.
    await start()
    const backMs = performance.now()
    await orders.placeOne()
    const servedAfterMs = performance.now() - backMs
    const placed = await orders.finish()

    expect(servedAfterMs).toBeLessThan(5_000)
    expect(gateway.child.exitCode).toBe(null)
    await expectBookedOnce(bank, placed)
    expect(await unclaimed(bank, receipts)).toEqual([])
  },
  60_000,
)

async function fill(path: string): Promise<void> {
  while (await writeFile(path, Buffer.alloc(1_000_000), { flag: 'a' }).then(() => true, isFull));
}

function isFull(error: unknown): false {
  expect(error).toMatchObject({ code: 'ENOSPC' })
  return false
}

async function untilLogged(output: () => string, line: RegExp): Promise<void> {
  await expect.poll(output, { timeout: 20_000 }).toMatch(line)
}

function unmountWithUs(): void {
  const shell = spawn('sh', ['-c', 'read -r _; sleep 1; umount -l "$0"; rmdir "$0"', disk], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  shell.unref()
  const ours = shell.stdin as Socket
  ours.unref()
  whenFileEnds(() => spawnSync('umount', ['-l', disk]))
}
