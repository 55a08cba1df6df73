import type { Socket } from 'node:net'
import postgres from 'postgres'
import type { Options, PostgresType } from 'postgres'
import type { Address } from './address.ts'
import { ConnectionFailed, refusing } from './dial.ts'

/** postgres.js on connections of our own making. (Its types do not know `socket`.) */
export function openPool<Types extends Record<string, PostgresType> = {}>(
  address: Address,
  connectSocket: () => Promise<Socket>,
  options: Options<Types> & { max_pipeline?: number },
) {
  const { hosts, user, password, database, keepAliveS } = address
  let isOver = false
  const ours = {
    // For its messages, and one alone: with several it tells no error of connecting.
    host: [hosts[0].name],
    port: ['port' in hosts[0].at ? hosts[0].at.port : 0],
    user,
    password,
    database,
    ssl: false,
    keep_alive: keepAliveS,
    ...options,
    socket: async () => {
      try {
        const socket = await connectSocket()
        if (!isOver) return socket
        // The driver would keep it.
        socket.destroy()
        throw new ConnectionFailed('CONNECTION_ENDED', 'the pool was closed')
      } catch (error) {
        return refusing(error)
      }
    },
  }
  const sql = postgres<Types>(ours as Options<Types>)
  const end = sql.end.bind(sql)
  return Object.assign(sql, {
    end: async (how?: { timeout?: number }) => {
      await end(how)
      isOver = true
    },
  })
}
