import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { temporaryFolder } from '../test/support/temporary.ts'

/** The gateway that an example plays against: the one at GATEWAY_URL, or one that runs here, or one of its own. */
export type GatewayInUse = {
  /** Its endpoint. */
  url: string
  bankUrl: string
  isOwn: boolean
  /** Ends one of its own, and leaves nothing of it. */
  stop: () => Promise<void>
}

const USUAL = 'http://localhost:4000/graphql'

/** `suits`: null, or why one that runs is of no use. `env`: for one of its own. */
export async function findOrStartGateway(
  suits: (url: string) => Promise<string | null> = async () => null,
  env: Record<string, string> = {},
): Promise<GatewayInUse> {
  const bankUrl = process.env['BANK_URL'] ?? 'http://localhost:8788'
  const wanted = process.env['GATEWAY_URL']
  const url = wanted ?? USUAL
  const against = (await isReady(url)) ? await suits(url) : `No gateway answers at ${url}`
  if (against === null) return { url, bankUrl, isOwn: false, stop: async () => {} }
  if (wanted !== undefined) throw new Error(`${against}. Mend that, or unset GATEWAY_URL.`)
  process.stdout.write(`  ${against}: starting one.\n`)
  return await startGateway(env)
}

async function isReady(url: string): Promise<boolean> {
  const response = await fetch(new URL('/health/ready', url)).catch(() => null)
  return response?.ok === true
}

/** In a folder that is gone afterwards, however we end. */
async function startGateway(env: Record<string, string>): Promise<GatewayInUse> {
  const folder = await temporaryFolder('ficmart-gateway-')
  const child = spawn(process.execPath, [fileURLToPath(new URL('../../dist/main.js', import.meta.url))], {
    env: {
      PATH: process.env['PATH'],
      PORT: '0',
      SIMULATOR_PORT: '0',
      DATA_FOLDER: folder,
      NODE_ENV: 'development',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = new Promise((resolve) => child.once('exit', resolve))
  const ready = new Promise<{ url: string; bank: string }>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (text) => {
      if (text.includes('"msg":"ready"')) resolve(JSON.parse(text) as { url: string; bank: string })
    })
    void exited.then(() => reject(new Error('The gateway did not start.')))
  })
  const stop = async () => {
    child.kill('SIGTERM')
    await exited
  }
  const { url, bank } = await ready.catch(async (error: unknown) => {
    await stop()
    throw error
  })
  return { url: `${url}/graphql`, bankUrl: bank, isOwn: true, stop }
}
