import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { startTestBank } from './support/bank.ts'
import type { TestBank } from './support/bank.ts'
import { authorized, captured } from './support/client.ts'
import { testDatabase } from './support/database.ts'
import { spawnGateway, startTestGateway } from './support/gateway.ts'
import { whenFileEnds } from './support/leaving.ts'
import { temporaryFolder } from './support/temporary.ts'

/** `npm run reconcile` as an operator runs it: what it prints, and what a script learns from its exit code. */

const program = fileURLToPath(new URL('../dist/reconcile.js', import.meta.url))

function started(env: Record<string, string>, ...args: string[]) {
  const child = spawn(process.execPath, [program, ...args], { env: { PATH: process.env['PATH'], ...env } })
  whenFileEnds(() => child.kill('SIGKILL'))
  let printed = ''
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, printed, said }))
  return { child, ended }
}
const ran = (env: Record<string, string>, ...args: string[]) => started(env, ...args).ended

async function scene() {
  const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
  const { client } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
  return { bank, client, database, env: { DATABASE_URL: database.url, BANK_URL: bank.url } }
}

async function statementOf(
  bank: TestBank,
  change: (text: string) => string = (text) => text,
): Promise<string> {
  const file = join(await temporaryFolder('statement-'), 'bank.csv')
  await writeFile(file, change(await (await fetch(`${bank.url}/simulator/statement.csv`)).text()))
  return file
}

describe('exit code 0: all agree', () => {
  it('by GET', async () => {
    const { client, env } = await scene()
    await captured(client)
    const { code, printed, said } = await ran(env)
    expect(printed).toMatch(
      /^rec_\S+ {3}by GET .*\nchecked 2 {3}matched 2 {3}skipped 0 {3}discrepancies 0\n$/,
    )
    expect(said).toMatch(/asking the bank: \d+ % {3}checked 2/)
    expect(code).toBe(0)
  })

  it('by statement', async () => {
    const { client, bank, env } = await scene()
    await captured(client)
    const { code, printed } = await ran(env, '--statement', await statementOf(bank))
    expect(printed).toMatch(/ statement bank\.csv .*\nchecked 2 {3}matched 2 /)
    expect(code).toBe(0)
  })

  it('with nothing set, beside a gateway that runs its own database and bank', async () => {
    const env = {
      DATA_FOLDER: await temporaryFolder('gateway-reconcile-'),
      SIMULATOR_PORT: '0',
      MAX_LATENCY_MS: '100',
      FAILURE_RATE: '0',
    }
    const gateway = await spawnGateway(env)
    await authorized(gateway.client)
    const { code, printed } = await ran(env)
    expect(printed).toContain('checked 1   matched 1')
    expect(code).toBe(0)
    // The database that both used is still there for the one that stays.
    expect((await authorized(gateway.client)).state).toBe('AUTHORIZED')
    expect(await gateway.end('SIGINT')).toBe(0)
  })
})

describe('exit code 1: discrepancies', () => {
  it('an aligned table with both sides, and what to do', async () => {
    const { client, bank, env } = await scene()
    const one = await captured(client)
    await authorized(client)
    const file = await statementOf(bank, (text) => text.replace(/^(CAPTURE,.*),4999,/m, '$1,1,'))
    const { code, printed } = await ran(env, '--statement', file)
    expect(code).toBe(1)
    const lines = printed.split('\n')
    const header = lines.find((line) => line.startsWith('discrepancy')) ?? ''
    const row = lines.find((line) => line.startsWith('AMOUNT_DIFFERS  ')) ?? ''
    expect(row.indexOf(one.id)).toBe(header.indexOf('payment'))
    expect(row.indexOf(String(one.captureId))).toBe(header.indexOf('bank reference'))
    expect(row.indexOf('state CAPTURED, amountCents 4999')).toBe(header.indexOf('ours'))
    expect(row.indexOf('type CAPTURE, status ACTIVE, amountCents 1')).toBe(header.indexOf("the bank's"))
    expect(printed).toContain('AMOUNT_DIFFERS: The amounts differ. Ask the bank')
  })

  it('a bank that was reset', async () => {
    const { client, bank, env } = await scene()
    for (let n = 0; n < 3; n += 1) await authorized(client)
    await bank.sql`delete from transactions`
    const { code, printed } = await ran(env)
    expect(printed).toContain('The bank knows none of the first 3 ids')
    expect(printed).toContain('npm run reconcile -- --resume')
    expect(code).toBe(1)
    expect(await ran(env, '--resume')).toMatchObject({
      code: 1,
      printed: expect.not.stringContaining('--resume') as string,
    })
  })

  it('none are left when --mend could do all that was found', async () => {
    const { client, bank, env, database } = await scene()
    const { id } = await captured(client)
    await database.sql`update payments set capture_id = null where id = ${id.slice(4)}`
    const file = await statementOf(bank)
    expect(await ran(env, '--statement', file)).toMatchObject({
      code: 1,
      printed: expect.stringMatching(/^ID_MISSING {2}/m) as string,
    })
    expect(await ran(env, '--statement', file, '--mend')).toMatchObject({
      code: 0,
      printed: expect.stringMatching(/^ID_MISSING \(mended\) /m) as string,
    })
    expect(await ran(env, '--statement', file)).toMatchObject({ code: 0 })
  })

  it('some are left when --mend could not', async () => {
    const { client, bank, env, database } = await scene()
    const { id } = await captured(client)
    await database.sql`
      update payments set capture_id = null, review_reason = 'looked at', review_since = now() where id = ${id.slice(4)}`
    const { code, printed } = await ran(env, '--statement', await statementOf(bank), '--mend')
    expect(printed).toMatch(/^cap_\S+ was not mended: the payment is under review$/m)
    expect(code).toBe(1)
  })
})

it('asks again where the bank fails at random, and mends all the same', async () => {
  const { client, bank, env, database } = await scene()
  const { id } = await captured(client)
  await database.sql`update payments set capture_id = null where id = ${id.slice(4)}`
  bank.faults.add('chaos', { endpoint: 'captures', method: 'GET', times: 2 })
  expect(await ran(env, '--statement', await statementOf(bank), '--mend')).toMatchObject({ code: 0 })
})

it('prints no escape sequence, wherever it comes from', async () => {
  const { client, bank, env } = await scene()
  await captured(client)
  const red = '\u001B[31m\u009B2J\u202Etxt'
  const file = join(await temporaryFolder('statement-'), `bank${red}.csv`)
  await rename(await statementOf(bank), file)
  const obeyed = /(?!\n)[\p{C}]/u
  const read = await ran(env, '--statement', file)
  expect(read).toMatchObject({ code: 0, printed: expect.stringContaining('bank\\u{1b}[31m') as string })
  const refusals = await Promise.all([ran(env, `--${red}`), ran(env, '--statement', `none${red}`)])
  for (const { printed, said } of [read, ...refusals]) {
    expect(printed).not.toMatch(obeyed)
    expect(said).not.toMatch(obeyed)
  }
})

describe('exit code 2: it could not be done', () => {
  it('BANK_URL is not set: the simulated bank is nobody else’s, whatever listens at its port', async () => {
    const { env, client } = await scene()
    await authorized(client)
    const NO_BANK = {
      code: 2,
      printed: '',
      said: expect.stringMatching(/^BANK_URL is not set, .* Set BANK_URL .*\n$/) as string,
    }
    const DATA_FOLDER = await temporaryFolder('gateway-reconcile-')
    expect(await ran({ DATABASE_URL: env.DATABASE_URL, DATA_FOLDER })).toEqual(NO_BANK)
    // Nor is there a bank where no gateway ever ran.
    expect(await ran({ DATA_FOLDER })).toEqual(NO_BANK)
  })

  it('the bank does not answer', async () => {
    const { client, env, database } = await scene()
    await authorized(client)
    expect(await ran({ ...env, BANK_URL: 'http://127.0.0.1:9' })).toMatchObject({
      code: 2,
      said: 'The bank does not answer, or says that it is not well. Check BANK_URL. Nothing was compared.\n',
    })
    expect(await database.sql`select from reconciliations`).toHaveLength(0)
  })

  it('another is under way', async () => {
    const { client, env, bank } = await scene()
    await authorized(client)
    const gate = bank.faults.hold('before', { endpoint: 'authorizations', method: 'GET' })
    const first = started(env)
    await gate.arrived
    expect(await ran(env)).toEqual({
      code: 2,
      printed: '',
      said: expect.stringMatching(
        /^A reconciliation is under way: rec_\S+, begun by cli:\S+ at \S+ One at a time; nothing was begun\.\n$/,
      ) as string,
    })
    gate.open()
    expect((await first.ended).code).toBe(0)
  })

  it('was interrupted: it ends after what it is asking, and --resume goes on', async () => {
    const { client, env, bank } = await scene()
    for (let n = 0; n < 25; n += 1) await authorized(client)
    const gate = bank.faults.hold('before', { endpoint: 'authorizations', method: 'GET' })
    const { child, ended } = started(env)
    await gate.arrived
    child.kill('SIGINT')
    gate.open()
    const { code, printed } = await ended
    expect({ code, printed }).toEqual({
      code: 2,
      printed: expect.stringContaining('Stopped before its end.') as string,
    })
    const again = await ran(env, '--resume')
    expect(again.printed).toContain('checked 25   matched 25')
    expect(again.code).toBe(0)
    const asked = bank.received.filter(({ path }) => path.startsWith('/api/v1/authorizations/'))
    expect(new Set(asked.map(({ path }) => path)).size).toBe(25)
  })

  it.each([
    [['--statement', 'none.csv'], /^The statement cannot be read \(ENOENT\)\.\n$/],
    [['--resume'], /^There is no reconciliation that was stopped\. .*\n$/],
    [['--mend'], /^--mend needs --statement FILE: .*\n$/],
    [['--days', 'many'], /^--days must be .*\n$/],
    [['--nonsense'], /^Unknown option '--nonsense'/],
  ])('%j', async (args, said) => {
    const { env } = await scene()
    expect(await ran(env, ...args)).toEqual({
      code: 2,
      printed: '',
      said: expect.stringMatching(said) as string,
    })
  })

  it('the database is not there: one clear line, and no password', async () => {
    const env = { DATABASE_URL: 'postgres://user:secret@127.0.0.1:9/gateway', BANK_URL: 'http://127.0.0.1:9' }
    expect(await ran(env)).toEqual({
      code: 2,
      printed: '',
      said: 'No Postgres answers at the host and port of DATABASE_URL. Check DATABASE_URL. Nothing was compared.\n',
    })
  })
})

it('--help says how', async () => {
  expect(await ran({}, '--help')).toMatchObject({
    code: 0,
    printed: expect.stringContaining('--statement FILE') as string,
  })
})
