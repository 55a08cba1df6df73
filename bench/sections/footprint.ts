import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { setTimeout as pause } from 'node:timers/promises'
import { median } from '../support/measured.ts'
import { allWell, withStage } from '../support/stage.ts'
import type { Section } from './section.ts'

/** What the gateway takes when it does nothing, and whether it keeps what it should forget. */

const SETTLE_MS = 1_000

export const footprint: Section = async ({ rounds, connections, payments }, show) =>
  await withStage(async (stage) => {
    await (await stage.startGateway()).end()
    const starts: number[] = []
    for (let round = 0; round < rounds; round += 1) {
      show('footprint: starting')
      const gateway = await stage.startGateway()
      starts.push(gateway.startedInMs)
      await gateway.end()
    }
    const gateway = await stage.startGateway()
    await pause(SETTLE_MS)
    const memory: [string, number][] = [['memory, idle', gateway.residentMb()]]
    const QUARTERS = 4
    for (let quarter = 1; quarter <= QUARTERS; quarter += 1) {
      show(`footprint: quarter ${quarter} of ${payments} payments`)
      const count = Math.ceil(payments / QUARTERS)
      allWell(
        await stage.load({
          gateways: [gateway],
          connections,
          work: { do: 'authorize' },
          name: `f${quarter}`,
          until: { count },
        }),
      )
      await pause(SETTLE_MS)
      memory.push([`memory after ${quarter * count} payments`, gateway.residentMb()])
    }
    return {
      title: 'Footprint',
      rows: [
        ['', ''],
        ['start to ready (prepared database)', `${median(starts).toFixed(0)} ms`],
        ...memory.map(([name, mb]) => [name, `${mb.toFixed(0)} MB`]),
        ['installed for production (dist, node_modules)', `${(await installedMb()).toFixed(0)} MB`],
      ],
      notes: [],
      aims: [],
    }
  })

/** What `npm ci --omit=dev` would keep of node_modules, and dist. */
async function installedMb(): Promise<number> {
  const run = promisify(execFile)
  const listed = await run('npm', ['ls', '--omit=dev', '--all', '--parseable']).catch(
    // Exit code 1 for what it would rather have otherwise; the list is whole.
    (error: { stdout: string }) => error,
  )
  const [, ...packages] = listed.stdout.trim().split('\n')
  const { stdout } = await run('du', ['-sk', '--total', 'dist', ...packages])
  return Number(/^(\d+)\s+total$/m.exec(stdout)?.[1]) / 1_024
}
