import { z } from 'zod'
import { begin, goOn } from '../recovery/reconcile/begin.ts'
import { pageOfReconciliations, reconciliationById } from '../recovery/reconcile/reads.ts'
import { stop } from '../recovery/reconcile/runs.ts'
import type { Reconciliation } from '../recovery/reconcile/runs.ts'
import { DAYS_BY_DEFAULT, DAYS_MAX } from '../recovery/reconcile/schedule.ts'
import { OPERATORS } from './audience.ts'
import { builder } from './builder.ts'
import { reconciliationIdText } from './input-rules.ts'
import { ReconciliationType } from './nouns.ts'
import { page, PAGE_ARGS } from './pages.ts'
import { problemTypes } from './problems.ts'
import type { ProblemAnswer } from './problems.ts'
import { pageOf, ReconciliationConnection } from './reconciliation-types.ts'

/** For operators: the receipts compared with the bank. One run at a time, over all processes. */

builder.queryField('reconciliation', (t) =>
  t.field({
    type: ReconciliationType,
    nullable: true,
    authScopes: OPERATORS,
    description: 'For operators. One reconciliation; null when there is none.',
    args: t.validate(
      { id: t.arg.id({ description: 'Its id: `rec_...`.' }) },
      z.object({ id: reconciliationIdText }),
    ),
    resolve: (_, { id }, { gateway }) => reconciliationById(gateway, id),
  }),
)

builder.queryField('reconciliations', (t) =>
  t.field({
    type: ReconciliationConnection,
    authScopes: OPERATORS,
    description: 'For operators. All reconciliations, newest first.',
    args: t.validate(
      { first: t.arg.int(PAGE_ARGS.first), after: t.arg.string(PAGE_ARGS.after) },
      z.object(page),
    ),
    resolve: async (_, { first, after }, { gateway }) =>
      pageOf(await pageOfReconciliations(gateway, { first, after: after ?? null }), { first, after }),
  }),
)

type Begun = { is: 'begun' | 'stopped'; run: Reconciliation }
type Refused = { is: 'refused'; run: Reconciliation | null }
type Answer = Begun | Refused | ProblemAnswer

const ReconciliationAccepted = builder.objectRef<Begun>('ReconciliationAccepted').implement({
  description: 'It was done.',
  fields: (t) => ({
    currentReconciliation: t.field({
      type: ReconciliationType,
      description: 'The run as it stands now. Ask for it again to see how far it has come.',
      resolve: ({ run }) => run,
    }),
    reconciliation: t.field({
      type: ReconciliationType,
      nullable: true,
      deprecationReason: 'Use `currentReconciliation`, the same and never null.',
      description: 'The run as it stands now. Never null in fact.',
      resolve: ({ run }) => run,
    }),
  }),
})

const ReconciliationRefused = builder.objectRef<Refused>('ReconciliationRefused').implement({
  description: 'Nothing was done: another run is under way, or the one to be stopped is not.',
  fields: (t) => ({
    message: t.string({
      description: 'Why, for people.',
      resolve: ({ run }) =>
        run === null
          ? 'There is no such reconciliation under way. Nothing was stopped.'
          : 'A reconciliation is under way, and there is one at a time. Nothing was begun: wait for its end, or stop it.',
    }),
    reconciliation: t.field({
      type: ReconciliationType,
      nullable: true,
      description: 'The run that is under way; null when there is none.',
      resolve: ({ run }) => run,
    }),
  }),
})

const ReconciliationResult = builder.unionType('ReconciliationResult', {
  description: 'The answer to `startReconciliation` and `stopReconciliation`.',
  types: [ReconciliationAccepted, ReconciliationRefused, problemTypes.INVALID_INPUT],
  resolveType: (answer: Answer): string => {
    if (answer.is === 'problem') return problemTypes.INVALID_INPUT.name
    return answer.is === 'refused' ? ReconciliationRefused.name : ReconciliationAccepted.name
  },
})

const daysReason = `must be 1 to ${DAYS_MAX}`
const StartReconciliationInput = builder
  .inputType('StartReconciliationInput', {
    description: 'A reconciliation by GET.',
    fields: (t) => ({
      days: t.int({
        required: false,
        defaultValue: DAYS_BY_DEFAULT,
        description: `Operations asked for in the last so many days, 1 to ${DAYS_MAX}.`,
      }),
      resume: t.boolean({
        required: false,
        defaultValue: false,
        description: 'When the last run by GET was stopped, it goes on where it was, whatever `days` says.',
      }),
    }),
  })
  .validate(
    z.object({
      days: z
        .number()
        .min(1, daysReason)
        .max(DAYS_MAX, daysReason)
        .nullish()
        .transform((days) => days ?? DAYS_BY_DEFAULT),
      resume: z.boolean().nullish(),
    }),
  )

builder.mutationField('startReconciliation', (t) =>
  t.field({
    type: ReconciliationResult,
    authScopes: OPERATORS,
    description:
      'For operators. Compares the receipts with the bank by asking it for each id that they have. It goes on in the background, survives the process, and leaves payments the precedence. Refused while one is under way. A statement is compared by `npm run reconcile -- --statement FILE`.',
    args: { input: t.arg({ type: StartReconciliationInput, description: 'What to compare.' }) },
    resolve: async (_, { input: { days, resume } }, { gateway, client }): Promise<Answer> => {
      const again = resume === true ? await goOn(gateway) : null
      if (again !== null) return { is: 'begun', run: again }
      const answer = await begin(gateway, { kind: 'GET', actor: client, days }, null)
      return 'begun' in answer ? { is: 'begun', run: answer.begun } : { is: 'refused', run: answer.underWay }
    },
  }),
)

const StopReconciliationInput = builder
  .inputType('StopReconciliationInput', {
    description: 'A reconciliation to stop.',
    fields: (t) => ({ reconciliationId: t.id({ description: 'Its id: `rec_...`.' }) }),
  })
  .validate(z.object({ reconciliationId: reconciliationIdText }))

builder.mutationField('stopReconciliation', (t) =>
  t.field({
    type: ReconciliationResult,
    authScopes: OPERATORS,
    description:
      'For operators. Stops a reconciliation after what it is asking the bank just now. It keeps what it has found and can be taken up again.',
    args: { input: t.arg({ type: StopReconciliationInput, description: 'Which one.' }) },
    resolve: async (_, { input: { reconciliationId } }, { gateway, client }): Promise<Answer> => {
      const run = await stop(gateway, reconciliationId, `Stopped by ${client}.`)
      return run === null ? { is: 'refused', run: null } : { is: 'stopped', run }
    },
  }),
)
