import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, inject, it } from 'vitest'
import { authorized } from './support/client.ts'
import { testDatabase } from './support/database.ts'
import { refusedStart } from './support/gateway-process.ts'
import { spawnGateway } from './support/gateway.ts'
import { temporaryFolder } from './support/temporary.ts'

/** `npm start` as a new user meets it, and what it says when something is not as it should be. */

const newFolder = () => temporaryFolder('gateway-start-')

describe('with nothing set', () => {
  it('everything runs, prints where it is and a first mutation that works when pasted', async () => {
    const gateway = await spawnGateway({
      DATA_FOLDER: await newFolder(),
      SIMULATOR_PORT: '0',
      MAX_LATENCY_MS: '100',
      FAILURE_RATE: '0',
    })
    const [curl = ''] = /^\s*curl .*$/m.exec(gateway.output()) ?? []
    expect(gateway.output()).toContain(`${gateway.url}/graphql`)
    const shell = spawn('sh', ['-c', curl])
    let answer = ''
    shell.stdout.on('data', (chunk: Buffer) => (answer += chunk.toString()))
    await once(shell, 'exit')
    expect(JSON.parse(answer)).toMatchObject({
      data: {
        authorizePayment: { __typename: 'AuthorizePaymentSuccess', currentPayment: { state: 'AUTHORIZED' } },
      },
    })

    // Ctrl-C: the terminal tells us, and npm, which it tells as well, tells us again.
    const stopping = new Promise((resolve) => {
      gateway.child.stdout?.on('data', (chunk: Buffer) => {
        if (chunk.toString().includes('stopping')) resolve(null)
      })
    })
    gateway.child.kill('SIGINT')
    await stopping
    gateway.child.kill('SIGINT')
    expect(await gateway.exited).toBe(0)
    await expect(fetch(gateway.url)).rejects.toThrow('fetch failed')
  })

  it('no committed receipt is lost by kill -9, and the next start is not held up', async () => {
    const env = {
      DATA_FOLDER: await newFolder(),
      SIMULATOR_PORT: '0',
      MIN_LATENCY_MS: '0',
      MAX_LATENCY_MS: '0',
      FAILURE_RATE: '0',
    }
    const first = await spawnGateway(env)
    const payment = await authorized(first.client, { orderId: 'kept' })
    first.child.kill('SIGKILL')
    await first.exited
    const port = new URL(first.url).port
    const second = await spawnGateway({ ...env, PORT: port })
    expect(await second.client.query(`{ paymentsByOrder(orderId: "kept") { id state } }`)).toEqual({
      paymentsByOrder: [{ id: payment.id, state: 'AUTHORIZED' }],
    })
    expect((await authorized(second.client)).state).toBe('AUTHORIZED')
    second.child.kill('SIGTERM')
    expect(await second.exited).toBe(0)
  })
})

describe('one clear line, no stack trace, when', () => {
  const oneLine = (text: RegExp) => expect.stringMatching(new RegExp(`^${text.source}\\n$`))

  it('the port is taken', async () => {
    const holder = createServer().listen(0, '127.0.0.1')
    await once(holder, 'listening')
    const { port } = holder.address() as AddressInfo
    const database = await testDatabase()
    const { code, said } = await refusedStart({
      PORT: String(port),
      DATABASE_URL: database.url,
      BANK_URL: 'http://127.0.0.1:9',
    })
    expect({ code, said }).toEqual({ code: 1, said: oneLine(/Port \d+ is taken\. .*PORT=\d+\./) })
    holder.close()
  })
  it.each([
    [
      'nothing listens at DATABASE_URL',
      'postgres://user:secret@127.0.0.1:9/gateway',
      /No Postgres answers .* Check DATABASE_URL\. Nothing was started\./,
    ],
    [
      'the password of DATABASE_URL is wrong',
      () => inject('serverUrl').replace(/:[0-9a-f]+@/, ':wrong@') + 'gateway_template',
      /Postgres refuses the user or the password .*/,
    ],
    [
      'the database of DATABASE_URL does not exist',
      () => `${inject('serverUrl')}nowhere`,
      /The database that DATABASE_URL names does not exist\. .*/,
    ],
    ['DATABASE_URL is no URL', 'gateway', /DATABASE_URL: must be a URL that starts with postgres:\/\/ .*/],
    [
      'DATABASE_URL is of another kind',
      'mysql://localhost/x',
      /DATABASE_URL: must be a URL that starts with postgres:\/\/ .*/,
    ],
  ])('%s', async (_, url, text) => {
    const { code, said } = await refusedStart({
      DATABASE_URL: typeof url === 'string' ? url : url(),
      BANK_URL: 'http://127.0.0.1:9',
    })
    expect({ code, said }).toEqual({ code: 1, said: oneLine(text) })
    expect(said).not.toMatch(/secret|wrong/)
  })
  it.each([
    [{}, /NODE_ENV is production, so DATABASE_URL, BANK_URL must be set .*/],
    [
      { DATABASE_URL: 'postgres://localhost/x', BANK_URL: 'http://localhost:1' },
      /NODE_ENV is production and there is no API key\. Make a key with .* Nothing was started\./,
    ],
    [
      { DATABASE_URL: 'postgres://localhost/x', API_KEYS: `ficmart:service:${'0'.repeat(64)}` },
      /NODE_ENV is production, so BANK_URL must be set .*/,
    ],
    [
      { DATABASE_URL: 'postgres://localhost/x', BANK_URL: 'http://localhost:1', API_KEYS: 'plain-text-key' },
      /API_KEYS: must be client:role:sha256.*/,
    ],
  ])('production lacks what it needs: %j', async (env, text) => {
    const { code, said, printed } = await refusedStart({ NODE_ENV: 'production', ...env })
    expect({ code, said, printed }).toEqual({ code: 1, said: oneLine(text), printed: '' })
  })
  it('everybody could reach it and move money', async () => {
    const { code, said, printed } = await refusedStart({ HOST: '0.0.0.0' })
    expect({ code, said, printed }).toEqual({
      code: 1,
      said: oneLine(/HOST is 0\.0\.0\.0 and there is no API key: .* Nothing was started\./),
      printed: '',
    })
  })
  it('the bank cannot be reached: it starts, says so, and payments are refused with nothing recorded', async () => {
    const database = await testDatabase()
    const gateway = await spawnGateway({ DATABASE_URL: database.url, BANK_URL: 'http://127.0.0.1:9' })
    expect(gateway.output()).toMatch(/The bank at http:\/\/127\.0\.0\.1:9 does not answer.*check BANK_URL/)
    expect(await gateway.client.authorize()).toMatchObject({ code: 'BANK_UNAVAILABLE' })
  })
})
