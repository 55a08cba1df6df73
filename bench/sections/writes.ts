import { readFile } from 'node:fs/promises'
import { connect } from '../../src/db/connection.ts'
import type { Work } from '../support/load.ts'
import { median, spread } from '../support/measured.ts'
import type { Measured } from '../support/measured.ts'
import { findPgbench, HOW_TO_GET_IT, runPgbench } from '../support/pgbench.ts'
import { allWell, withStage } from '../support/stage.ts'
import type { RunningGateway, Stage } from '../support/stage.ts'
import type { Section } from './section.ts'

/**
 * Payments a second through all of the gateway, against what the same server does for pgbench: with the frozen
 * yardstick's plain statements, and with our own claim and settle. Load and bank take of the same cores, and are
 * counted apart: the CPU of gateway and Postgres per payment is the fairer figure.
 */

const YARDSTICK = 'bench/yardstick'
const CLIENTS = [8, 32]
const AUTHORIZE = 'authorize, by the gateway'
const OTHER = 'authorize, by the other build'
const FROZEN = 'frozen yardstick'
const FUNCTIONS = 'our claim and settle by pgbench'

export const writes: Section = async ({ rounds, ms, connections, against }, show) =>
  await withStage(async (stage) => {
    const gateway = await stage.startGateway()
    const other = against === null ? null : await stage.startGateway({}, against)
    const pgbench = findPgbench()
    const contenders: [string, () => Promise<Measured>][] = [
      [AUTHORIZE, () => byGateway(stage, gateway, { do: 'authorize' })],
      // Two builds are compared as warm as each other.
      other === null
        ? ['whole life (three operations)', () => byGateway(stage, gateway, { do: 'life' })]
        : [OTHER, () => byGateway(stage, other, { do: 'authorize' })],
      ...(pgbench === null
        ? []
        : ([
            [FROZEN, () => byPgbench(pgbench, 'yardstick', 'authorize.pgbench')],
            [FUNCTIONS, () => byPgbench(pgbench, 'gateway', 'functions.pgbench')],
          ] as const satisfies [string, () => Promise<Measured>][])),
    ]
    if (pgbench !== null) await makeYardstick(stage)
    const measured = new Map(contenders.map(([name]) => [name, [] as Measured[]]))

    show('writes: warming up')
    let names = 0
    for (const [, measure] of contenders) await measure()
    for (let round = 1; round <= rounds; round += 1) {
      for (const [name, measure] of contenders) {
        show(`writes: round ${round} of ${rounds}, ${name}`)
        measured.get(name)?.push(await measure())
      }
    }

    const of = (name: string, figure: keyof Measured) => (measured.get(name) ?? []).map((one) => one[figure])
    const ratio = (figure: keyof Measured, yardstick: string) =>
      of(AUTHORIZE, figure).map((value, round) => value / (of(yardstick, figure)[round] ?? Number.NaN))
    return {
      title: `Writes: ${connections} connections, ${rounds} rounds of ${ms / 1_000} s`,
      rows: [
        ['', 'payments/s', 'CPU ms each', 'load and bank'],
        ...contenders.map(([name]) => [
          name,
          spread(of(name, 'perSecond')),
          spread(of(name, 'cpuMsEach'), 2),
          spread(of(name, 'besideMsEach'), 2),
        ]),
        ...(pgbench === null ? [] : [FROZEN, FUNCTIONS])
          .concat(other === null ? [] : [OTHER])
          .map((name) => [
            `authorize / ${name}`,
            spread(ratio('perSecond', name), 2),
            spread(ratio('cpuMsEach', name), 2),
            '',
          ]),
      ],
      notes: pgbench === null ? [HOW_TO_GET_IT] : [],
      aims:
        pgbench === null
          ? []
          : [
              {
                what: "throughput / the frozen yardstick's (least 0.6, aim 1.0)",
                seen: median(ratio('perSecond', FROZEN)),
                atLeast: 0.6,
              },
            ],
    }

    async function byGateway(stage: Stage, gateway: RunningGateway, work: Work): Promise<Measured> {
      const cpu = () => gateway.cpuMs() + stage.postgresCpuMs()
      const before = cpu()
      const besideBefore = stage.besideCpuMs()
      names += 1
      const { count, ms: tookMs } = allWell(
        await stage.load({ gateways: [gateway], connections, work, name: `w${names}`, until: { ms } }),
      )
      return {
        perSecond: (count / tookMs) * 1_000,
        cpuMsEach: (cpu() - before) / count,
        besideMsEach: (stage.besideCpuMs() - besideBefore) / count,
      }
    }

    /** At its best client count. */
    async function byPgbench(program: string, database: string, script: string): Promise<Measured> {
      const tried: Measured[] = []
      for (const clients of CLIENTS) {
        tried.push(
          await runPgbench(program, {
            url: stage.server.url(database),
            serverPid: stage.server.pid,
            script: `${YARDSTICK}/${script}`,
            clients,
            ms,
          }),
        )
      }
      return tried.reduce((best, one) => (one.perSecond > best.perSecond ? one : best))
    }
  })

async function makeYardstick({ server }: Stage): Promise<void> {
  await server.createDatabase('yardstick')
  const sql = connect(server.url('yardstick'), { connectionsMax: 1, statementTimeoutMs: 60_000 })
  await sql.unsafe(await readFile(`${YARDSTICK}/schema.sql`, 'utf8'))
  await sql.end({ timeout: 5 })
}
