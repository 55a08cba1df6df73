import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { createClient } from 'graphql-sse'
import { Agent, fetch as undiciFetch } from 'undici'
import type { RequestInit as UndiciRequest } from 'undici'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { authorized, client } from '../support/client.ts'
import type { Fetch } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import { spawnGateway } from '../support/gateway.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { expectBookedOnce, startOrders } from '../support/orders.ts'
import { subscribe } from '../support/stream.ts'
import { temporaryFolder } from '../support/temporary.ts'

/** HAProxy and nginx themselves in front of two gateways, with the files of deploy/: only addresses and places are put in. */

const isRoot = process.getuid?.() === 0
const folder = await temporaryFolder('gateway-proxy-')
const has = (program: string, ...args: string[]) => spawnSync(program, args).status === 0

type Proxy = {
  name: 'haproxy' | 'nginx'
  file: string
  /** Of the gateways behind it, as docs/deployment.md says. */
  shutdownDelayMs: string
  start: (file: string) => [command: string, args: string[]]
  isThere: boolean
}
const PROXIES: Proxy[] = [
  {
    name: 'haproxy',
    file: 'deploy/haproxy/haproxy.cfg',
    shutdownDelayMs: '5000',
    start: (file) => ['haproxy', ['-db', '-f', file]],
    isThere: isRoot && has('haproxy', '-v') && has('openssl', 'version'),
  },
  {
    name: 'nginx',
    file: 'deploy/nginx/nginx.conf',
    shutdownDelayMs: '0',
    start: (file) => ['nginx', ['-c', file, '-e', 'stderr', '-g', 'daemon off;']],
    isThere: isRoot && has('nginx', '-v') && has('openssl', 'version'),
  },
]
for (const { name, isThere } of PROXIES)
  if (!isThere)
    console.warn(
      `SKIPPED: as root with ${name} and openssl (apt-get install ${name} openssl) the gateways would be tried behind ${name}.`,
    )

/** The proxy's own certificate, by which its clients know it. */
function makeCertificate(): { certificate: string; key: string; both: string } {
  const [certificate, key, both] = ['crt', 'key', 'pem'].map((ending) =>
    join(folder, `payments.${ending}`),
  ) as [string, string, string]
  const make = `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$2" -out "$1" && cat "$1" "$2" > "$3"`
  execFileSync('sh', ['-c', make, 'sh', certificate, key, both], { stdio: 'ignore' })
  return { certificate, key, both }
}

/** Runs it with its file of deploy/, in front of what listens at the two ports. */
async function startProxy({ name, file, start }: Proxy, behind: readonly [number, number]) {
  const port = await freePort()
  const { certificate, key, both } = makeCertificate()
  const places: [string, string][] = [
    ['10.0.0.11:4000', `127.0.0.1:${behind[0]}`],
    ['10.0.0.12:4000', `127.0.0.1:${behind[1]}`],
    ['bind :443', `bind 127.0.0.1:${port}`],
    ['listen 443', `listen 127.0.0.1:${port}`],
    ['/etc/haproxy/certs/payments.pem', both],
    ['/etc/nginx/certs/payments.crt', certificate],
    ['/etc/nginx/certs/payments.key', key],
    ['/run/nginx.pid', join(folder, `${name}.pid`)],
    ['/var/log/nginx/access.log', join(folder, `${name}.log`)],
  ]
  const ours = join(folder, `${randomUUID()}.conf`)
  const text = await readFile(file, 'utf8')
  await writeFile(
    ours,
    places.reduce((config, [from, to]) => config.replaceAll(from, to), text),
  )
  await run(start(ours), port)
  const dispatcher = new Agent({ connect: { ca: await readFile(certificate, 'utf8') } })
  whenFileEnds(() => dispatcher.destroy())
  const url = `https://127.0.0.1:${port}`
  const send = (async (to: string, init: RequestInit = {}) =>
    await undiciFetch(to, { ...(init as UndiciRequest), dispatcher })) as unknown as Fetch
  return { url, send, client: client(`${url}/graphql`, { fetch: send }) }
}

/** Resolves when its port is open. */
async function run([command, args]: [string, string[]], port: number): Promise<void> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (said = `${said}${chunk.toString()}`.slice(-10_000)))
  whenFileEnds(() => child.kill('SIGTERM'))
  await vi.waitUntil(
    async () => {
      if (child.exitCode !== null) throw new Error(`${command} ended: ${said}`)
      const socket = connect(port, '127.0.0.1')
      const isOpen = await once(socket, 'connect').then(
        () => true,
        () => false,
      )
      socket.destroy()
      return isOpen
    },
    { timeout: 60_000 },
  )
}

describe.each(PROXIES)('behind $name', { timeout: 240_000 }, (proxy) => {
  it.skipIf(!proxy.isThere)(
    'two gateways are restarted in turn, and no request fails and no stream is over',
    async () => {
      const [database, bank, ...ports] = await Promise.all([
        testDatabase(),
        startTestBank(),
        freePort(),
        freePort(),
      ])
      const start = (port: number) =>
        spawnGateway({
          DATABASE_URL: database.url,
          BANK_URL: bank.url,
          PORT: String(port),
          SHUTDOWN_DELAY_MS: proxy.shutdownDelayMs,
        })
      const gateways = await Promise.all(ports.map(start))
      const { client, url, send } = await startProxy(proxy, ports)
      const { id } = await vi.waitUntil(() => authorized(client).catch(() => null), { timeout: 60_000 })
      const following = createClient({
        url: `${url}/graphql`,
        fetchFn: send,
        retryAttempts: Infinity,
        retry: () => pause(50),
      })
      onTestFinished(() => following.dispose())
      const updates = following.iterate<{ paymentUpdated: { state: string } }>({
        query: `subscription { paymentUpdated(by: { paymentId: "${id}" }) { state } }`,
      })
      const state = async () => (await updates.next()).value?.data?.paymentUpdated.state
      // Now, and not when the proxy has filled a buffer.
      expect(await Promise.race([state(), pause(20_000, 'nothing')])).toBe('AUTHORIZED')

      const orders = startOrders(client, 4)
      for (const [at, port] of ports.entries()) {
        await orders.until(orders.count() + 4)
        expect(await gateways[at]?.end('SIGTERM')).toBe(0)
        await start(port)
        await orders.until(orders.count() + 4)
      }
      // `startOrders` throws when an answer is none of the API's.
      await expectBookedOnce(bank, await orders.finish())
      await client.void({ paymentId: id })
      for (let told = await state(); told !== 'VOIDED'; told = await state()) expect(told).toBe('AUTHORIZED')
    },
  )

  it.skipIf(!proxy.isThere)(
    'a gateway learns where its client is, and not what the client says',
    async () => {
      const seen: NodeJS.Dict<string | string[]>[] = []
      const asked: string[] = []
      const http = createServer((request, response) => {
        asked.push(request.url ?? '')
        if (request.url === '/graphql') seen.push(request.headers)
        response.end('{}')
      }).listen(0, '127.0.0.1')
      await once(http, 'listening')
      whenFileEnds(() => {
        http.closeAllConnections()
        http.close()
      })
      const { port } = http.address() as AddressInfo
      const { url, send } = await startProxy(proxy, [port, port])
      const forged = { 'x-forwarded-for': '6.6.6.6', forwarded: 'for=6.6.6.6', 'x-forwarded-proto': 'http' }
      const answer = await send(`${url}/graphql`, { method: 'POST', headers: forged, body: '{}' })
      expect(answer.headers.get('strict-transport-security')).toBe('max-age=31536000')
      expect(seen).toMatchObject([{ 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'https' }])
      expect(JSON.stringify(seen)).not.toContain('6.6.6.6')
      // Who has a key reads the schema by its URL, through a cache of theirs.
      const schema = await send(`${url}/schema.graphql?v=1`, { headers: { 'if-none-match': '"x"' } })
      expect(schema.status).toBe(200)
      // What is for those inside is not shown outside.
      for (const path of [
        '/metrics',
        '/health/ready',
        '//metrics',
        '/graphql/../metrics',
        '/schema_graphql',
        '/',
      ])
        expect([path, (await send(`${url}${path}`, {})).status]).toEqual([path, 404])
      expect(
        asked.filter((path) => !['/graphql', '/schema.graphql?v=1', '/health/ready'].includes(path)),
      ).toEqual([])
    },
  )
})

describe('behind an nginx that was told nothing', { timeout: 120_000 }, () => {
  const [, nginx] = PROXIES
  it.skipIf(nginx?.isThere !== true)('a live stream comes as it is sent', async () => {
    const [database, bank, port] = await Promise.all([testDatabase(), startTestBank(), freePort()])
    const gateway = await spawnGateway({ DATABASE_URL: database.url, BANK_URL: bank.url })
    const { id } = await authorized(gateway.client)
    const file = join(folder, 'bare.conf')
    const [pid, log] = ['bare.pid', 'bare.log'].map((name) => join(folder, name))
    const bare = `location / { proxy_pass ${gateway.url.replace('localhost', '127.0.0.1')}; }`
    await writeFile(
      file,
      `pid ${pid}; events {} http { access_log ${log}; server { listen 127.0.0.1:${port}; ${bare} } }`,
    )
    await run(['nginx', ['-c', file, '-e', 'stderr', '-g', 'daemon off;']], port)
    const document = `subscription { paymentUpdated(by: { paymentId: "${id}" }) { state } }`
    const first = async () => {
      const stream = await subscribe<object>(`http://127.0.0.1:${port}/graphql`, document)
      onTestFinished(() => stream.close())
      return await stream.next()
    }
    const told = await Promise.race([first(), pause(20_000, 'nothing')])
    expect(told).toEqual({ data: { paymentUpdated: { state: 'AUTHORIZED' } } })
  })
})
