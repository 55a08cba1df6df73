import { mkdir, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import { whatIsMissing } from './failover/patroni.ts'
import { commitCost } from './failover/commit-cost.ts'
import { evidenceText, inJson, told, troubleOf } from './failover/report.ts'
import { play } from './failover/run.ts'
import type { Outcome } from './failover/run.ts'
import { scenesOfPair, scenesOfPatroni } from './failover/scenes.ts'
import { readNumber, readSeed, runProgram } from './support/program.ts'
import { showProgress } from './support/report.ts'

/**
 * npm run failover: the server of the receipts is killed under load, and its standby, or a backup, takes its place. What
 * was answered must be there, or come back by the clients' repeats, with nothing done twice at the bank.
 */

const USAGE = `npm run failover -- [--rounds N] [--answers N] [--seed N] [--only TEXT] [--patroni] [--out FILE] [--log FILE]

  --rounds N   each scene, N times (3)
  --answers N  that clients get in each part of a scene: before the failure, after it, after the return (100)
  --seed N     repeats what was random in an earlier run
  --only TEXT  the scenes whose name holds the text
  --patroni    a cluster of three by Patroni, etcd and HAProxy, with the files of deploy/, instead of a pair of servers
  --out FILE   where the figures go as JSON (build/failover.json)
  --log FILE   keeps what the gateways logged
`

runProgram(USAGE, async () => {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      answers: { type: 'string', default: '100' },
      seed: { type: 'string' },
      only: { type: 'string', default: '' },
      patroni: { type: 'boolean', default: false },
      out: { type: 'string', default: 'build/failover.json' },
      log: { type: 'string' },
    },
  })
  const rounds = readNumber('--rounds', values.rounds)
  const answersEach = readNumber('--answers', values.answers)
  const seed = readSeed(values.seed)
  const missing = values.patroni ? whatIsMissing() : null
  if (missing !== null) throw new Error(`The cluster cannot be made here: ${missing}.`)
  const all = values.patroni ? scenesOfPatroni() : scenesOfPair({ durable: true })
  const scenes = all.filter(({ name }) => name.includes(values.only))
  if (scenes.length === 0) throw new Error(`No scene's name holds "${values.only}".`)
  process.stdout.write(`${scenes.length} scenes, ${rounds} rounds, seed ${seed}\n`)
  const progress = showProgress()
  const outcomes: Outcome[] = []
  for (let round = 0; round < rounds; round += 1) {
    for (const scene of scenes) {
      const show = (line: string) => progress.show(`round ${round + 1}, ${scene.name}: ${line}`)
      const outcome = await play(scene, { seed: seed + round, answersEach, show })
      outcomes.push(outcome)
      progress.end()
      process.stdout.write(evidenceText(outcome))
    }
  }
  progress.end()
  const cost = values.patroni ? '' : `\n${await commitCost()}`
  await mkdir(dirname(values.out), { recursive: true })
  await writeFile(values.out, inJson(seed, outcomes))
  if (values.log !== undefined) await writeFile(values.log, outcomes.map(({ log }) => log).join('\n'))
  process.stdout.write(`\n${told(outcomes)}${cost}\nseed ${seed}, figures in ${values.out}\n`)
  return outcomes.every((outcome) => troubleOf(outcome).length === 0)
})
