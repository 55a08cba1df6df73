import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

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

/** `env`: for one of its own. */
export async function findOrStartGateway(env: Record<string, string> = {}): Promise<GatewayInUse> {
  const bankUrl = process.env['BANK_URL'] ?? 'http://localhost:8788'
  const wanted = process.env['GATEWAY_URL']
  const running = await isReady(wanted ?? USUAL)
  if (wanted !== undefined && !running)
    throw new Error(`No gateway answers at ${wanted}. Start it, or unset GATEWAY_URL.`)
  if (running) return { url: wanted ?? USUAL, bankUrl, isOwn: false, stop: async () => {} }
  process.stdout.write('  No gateway is running here: starting one.\n')
  return await startGateway(env)
}

async function isReady(url: string): Promise<boolean> {
  const response = await fetch(new URL('/health/ready', url)).catch(() => null)
  return response?.ok === true
}

/** In a folder that is gone afterwards. */
async function startGateway(env: Record<string, string>): Promise<GatewayInUse> {
  const folder = await mkdtemp(join(tmpdir(), 'ficmart-gateway-'))
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
    await rm(folder, { recursive: true, force: true })
  }
  const { url, bank } = await ready.catch(async (error: unknown) => {
    await stop()
    throw error
  })
  return { url: `${url}/graphql`, bankUrl: bank, isOwn: true, stop }
}
