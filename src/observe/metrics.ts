import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import { VERSION } from './version.ts'

/**
 * What this process counts while it works, for Prometheus. One registry for the process, since a process is what is
 * scraped; what the receipts say is read at each scrape (graphql/metrics-page.ts). docs/operations.md tells what each
 * number means and what to do when it moves. No label holds an id, an amount or anything that a client made up.
 */
export const registry = new Registry()
const registers = [registry]

new Gauge({
  name: 'gateway_build_info',
  help: 'Always 1; its labels say which release runs, on which Node.',
  labelNames: ['version', 'node'],
  registers,
}).set({ version: VERSION, node: process.versions.node }, 1)

export const answers = new Counter({
  name: 'gateway_answers_total',
  help: 'Answers to fields of Query and Mutation: SUCCESS, or the code of the problem or error.',
  labelNames: ['field', 'result', 'replayed'],
  registers,
})

export const answerSeconds = new Histogram({
  name: 'gateway_answer_seconds',
  help: 'From a field of Query or Mutation to its result.',
  labelNames: ['field'],
  buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  registers,
})

export const requestErrors = new Counter({
  name: 'gateway_request_errors_total',
  help: 'Top-level errors by code: who is not known, what is malformed, too much or too often, and faults.',
  labelNames: ['code'],
  registers,
})

export const operationsSettled = new Counter({
  name: 'gateway_operations_settled_total',
  help: 'What became of operations that were asked of the bank: SUCCEEDED, the code of the refusal, LEFT (the bank is asked again later), IN_REVIEW, STRAY (a hold that no receipt wants), TAKEN (another process goes on).',
  labelNames: ['operation', 'outcome'],
  registers,
})

export const operationAttempts = new Histogram({
  name: 'gateway_operation_attempts',
  help: 'Exchanges with the bank that an operation took until its outcome was certain, probes included.',
  labelNames: ['operation'],
  buckets: [1, 2, 3, 4, 6, 10, 20],
  registers,
})

export const operationsGone = new Counter({
  name: 'gateway_operations_gone_total',
  help: 'Operations whose claim was committed and is gone, seen by who worked on them: the database has lost commits.',
  registers,
})

/** By what the database could lose commits that it has confirmed. */
export const COMMIT_RISKS = [
  'fsyncOff',
  'fullPageWritesOff',
  'synchronousCommitOff',
  'noSynchronousStandby',
] as const
export type CommitRisk = (typeof COMMIT_RISKS)[number]
export const commitsAtRisk = new Gauge({
  name: 'gateway_commits_at_risk',
  help: '1 where commits that the database has confirmed can be lost: by a crash (fsyncOff, fullPageWritesOff, synchronousCommitOff), or by a failover (noSynchronousStandby).',
  labelNames: ['risk'],
  registers,
})

export const historyLost = new Gauge({
  name: 'gateway_history_lost',
  help: '1 while the database may have lost commits that the bank still remembers: a standby was promoted, a backup restored.',
  registers,
})

export const bankSeconds = new Histogram({
  name: 'gateway_bank_exchange_seconds',
  help: 'Exchanges with the bank, by what they were for and what could be concluded from the answer.',
  labelNames: ['endpoint', 'purpose', 'conclusion'],
  // The bank takes 0.1 to 2 s, gives up at 15 s, and we at 20 s.
  buckets: [0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 15, 20],
  registers,
})

// What the alerts read is there before it happens: what appears with its first count has not grown.
for (const endpoint of ['authorizations', 'captures', 'voids', 'refunds'])
  for (const conclusion of ['done', 'declined', 'notDone', 'ambiguous'])
    bankSeconds.zero({ endpoint: `POST /api/v1/${endpoint}`, purpose: 'SEND', conclusion })

export const bankRefusals = new Counter({
  name: 'gateway_bank_refusals_total',
  help: 'Work that was not let through to the bank: its circuit is open, or all places and the queue are taken.',
  labelNames: ['reason'],
  registers,
})
for (const reason of ['circuit_open', 'full']) bankRefusals.inc({ reason }, 0)

export const databaseSeconds = new Histogram({
  name: 'gateway_database_step_seconds',
  help: 'Steps that write to the receipts, from the wish to the answer: waiting for a connection and repeats included.',
  labelNames: ['step'],
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30],
  registers,
})

for (const step of ['claim', 'claim again', 'settle']) databaseSeconds.zero({ step })

export const databaseRepeats = new Counter({
  name: 'gateway_database_repeats_total',
  help: 'Statements that the database did not answer and that were said again.',
  labelNames: ['step'],
  registers,
})

export const statementsInFlight = new Gauge({
  name: 'gateway_database_statements_in_flight',
  help: 'Statements not answered yet; those beyond gateway_database_connections_max wait for another to end.',
  registers,
})

export const webhooksSent = new Counter({
  name: 'gateway_webhooks_sent_total',
  help: 'Webhooks sent: delivered, failed (sent again later), or given_up after three days.',
  labelNames: ['result'],
  registers,
})
for (const result of ['delivered', 'failed', 'given_up']) webhooksSent.inc({ result }, 0)

export const logLines = new Counter({
  name: 'gateway_log_lines_total',
  help: 'Lines of the log at level warn and above.',
  labelNames: ['level'],
  registers,
})
for (const level of ['warn', 'error', 'fatal']) logLines.inc({ level }, 0)

for (const risk of COMMIT_RISKS) commitsAtRisk.set({ risk }, 0)

/** Memory, CPU, garbage collection and the lag of the event loop; once in a process. */
export function watchProcess(): void {
  collectDefaultMetrics({ register: registry })
}
