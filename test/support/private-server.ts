import { join } from 'node:path'
import { startEmbedded } from '../../src/db/embedded.ts'
import type { EmbeddedServer } from '../../src/db/embedded.ts'
import { stopServer } from '../../src/db/embedded/postmaster.ts'
import { removeWithUs, temporaryFolder } from './temporary.ts'

export type PrivateServer = EmbeddedServer & {
  /** Lets it die at once and brings it back on the same port. */
  restart(whileDown?: () => Promise<void>): Promise<void>
}

/** A Postgres of one's own, for what kills it or fills it; gone with this process, however that ends. */
export async function privateServer(connectionsMax = 100): Promise<PrivateServer> {
  const folder = await temporaryFolder('gateway-private-')
  const options = { folder, durable: false, connectionsMax }
  const server = await startEmbedded(options)
  removeWithUs(server.folder)
  return {
    ...server,
    restart: async (whileDown) => {
      await stopServer(join(server.folder, 'data'), 'SIGQUIT')
      await whileDown?.()
      await startEmbedded(options)
    },
  }
}
