import { openPair, openWithBackup } from './receipts.ts'
import { openPatroni, STRIKES } from './patroni.ts'
import type { Scene } from './run.ts'

export function scenesOfPair({ durable }: { durable: boolean }): Scene[] {
  return [
    {
      name: 'standby, synchronous',
      loses: false,
      open: () => openPair({ isSynchronous: true, durable }),
    },
    {
      name: 'standby, the last seconds lost',
      loses: true,
      open: () => openPair({ isSynchronous: false, durable }),
    },
    { name: 'backup from before', loses: true, open: () => openWithBackup({ durable }) },
  ]
}

export function scenesOfPatroni(): Scene[] {
  const paths = ['HAProxy', 'hosts'] as const
  return paths.flatMap((path) =>
    STRIKES.map((strike) => ({
      name: `Patroni by ${path}, leader ${strike}`,
      loses: false,
      open: () => openPatroni(strike, path),
    })),
  )
}
