import { z } from 'zod'
import { cursorOf } from '../payment/ids.ts'
import { adviceOn, isMendable } from '../recovery/reconcile/discrepancy.ts'
import { pageOfDiscrepancies, portionDone } from '../recovery/reconcile/reads.ts'
import { builder } from './builder.ts'
import { DiscrepancyKindEnum, ReconciliationKindEnum, ReconciliationStatusEnum } from './enums.ts'
import { loaders } from './loaders.ts'
import { DiscrepancyType, PaymentType, ReconciliationType } from './nouns.ts'
import { page, PAGE_ARGS } from './pages.ts'
import { factsOf, FactType } from './review-types.ts'

/** What operators see of the receipts' comparison with the bank. */

DiscrepancyType.implement({
  description:
    'Something that the receipts and the bank do not agree about. Nothing was changed by finding it.',
  fields: (t) => ({
    kind: t.expose('kind', { type: DiscrepancyKindEnum, description: 'What differs.' }),
    payment: t.field({
      type: PaymentType,
      nullable: true,
      description:
        'The payment that it concerns, as it stands now; of an orphan hold the only one that may have left it. Null when there is none.',
      resolve: ({ paymentId }, _, context) =>
        paymentId === null ? null : loaders(context).payment.load(paymentId),
    }),
    bankReference: t.exposeString('bankReference', {
      nullable: true,
      description: "The bank's id that it is about; null where it has none.",
    }),
    ours: t.field({
      type: [FactType],
      nullable: true,
      description: 'What the receipt said when it was compared; null where there is none.',
      resolve: ({ ours }) => ours && factsOf(ours),
    }),
    bank: t.field({
      type: [FactType],
      nullable: true,
      description: 'What the bank, or its statement, said; null where it has nothing.',
      resolve: ({ bank }) => bank && factsOf(bank),
    }),
    advice: t.string({ description: 'What to do about it, for people.', resolve: adviceOn }),
    mendable: t.boolean({
      description:
        'It is certain, and the gateway can do it by itself: `npm run reconcile` with `--mend` does.',
      resolve: isMendable,
    }),
    foundAt: t.expose('foundAt', { type: 'DateTime', description: 'When it was found.' }),
    mendedAt: t.expose('mendedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the gateway mended it; null when it did not.',
    }),
  }),
})

const DiscrepancyConnection = builder.connectionObject(
  {
    type: DiscrepancyType,
    name: 'DiscrepancyConnection',
    description: 'A page of discrepancies, the last found first.',
    edgesNullable: { list: false, items: false },
  },
  { description: 'A discrepancy and its place in the list.', nodeField: { description: 'The discrepancy.' } },
)

ReconciliationType.implement({
  description:
    'A run that compared the receipts with the bank. It finds, and changes nothing. One is under way at a time.',
  fields: (t) => ({
    kind: t.expose('kind', { type: ReconciliationKindEnum, description: 'How it compares.' }),
    status: t.field({
      type: ReconciliationStatusEnum,
      description: 'Whether it has ended.',
      resolve: ({ stoppedAt, finishedAt }) =>
        finishedAt !== null ? 'FINISHED' : stoppedAt !== null ? 'STOPPED' : 'UNDER_WAY',
    }),
    actor: t.exposeString('actor', {
      description:
        'Who began it: an API client, `gateway` by schedule, or `cli:` and the user of `npm run reconcile`.',
    }),
    spanFrom: t.expose('spanFrom', {
      type: 'DateTime',
      nullable: true,
      description:
        'By GET: operations asked for from then on are compared. By statement: the time of its first line, once loaded.',
    }),
    spanTo: t.expose('spanTo', {
      type: 'DateTime',
      nullable: true,
      description: 'And until then; of a statement, the time of its last line.',
    }),
    source: t.exposeString('source', { nullable: true, description: "The name of the statement's file." }),
    progress: t.float({
      description: 'How far it has come in what it is doing, 0 to 1; 1 once finished.',
      resolve: portionDone,
    }),
    checked: t.exposeInt('checked', {
      description: 'Compared so far: ids, or lines of the statement. The sum of the three below.',
    }),
    matched: t.exposeInt('matched', { description: 'Agree.' }),
    skipped: t.exposeInt('skipped', {
      description: 'Could not be compared: recovery is at work on it, or there is no id yet to ask for.',
    }),
    discrepancyCount: t.exposeInt('found', { description: 'Do not agree.' }),
    note: t.exposeString('note', { nullable: true, description: 'Why it ended early, for people.' }),
    startedAt: t.expose('startedAt', { type: 'DateTime', description: 'When it was begun.' }),
    stoppedAt: t.expose('stoppedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was stopped before its end; it can be taken up again.',
    }),
    finishedAt: t.expose('finishedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When everything was compared.',
    }),
    discrepancies: t.field({
      type: DiscrepancyConnection,
      description: 'What does not agree, the last found first.',
      args: t.validate(
        { first: t.arg.int(PAGE_ARGS.first), after: t.arg.string(PAGE_ARGS.after) },
        z.object(page),
      ),
      resolve: async ({ id }, { first, after }, { gateway }) =>
        pageOf(await pageOfDiscrepancies(gateway, id, { first, after: after ?? null }), { first, after }),
    }),
  }),
})

export const ReconciliationConnection = builder.connectionObject(
  {
    type: ReconciliationType,
    name: 'ReconciliationConnection',
    description: 'A page of reconciliations, newest first.',
    edgesNullable: { list: false, items: false },
  },
  {
    description: 'A reconciliation and its place in the list.',
    nodeField: { description: 'The reconciliation.' },
  },
)

/** `rows`: one more than asked for when there are more. */
export function pageOf<Row extends { id: string }>(
  rows: Row[],
  { first, after }: { first: number; after?: string | null | undefined },
) {
  const edges = rows.slice(0, first).map((node) => ({ node, cursor: cursorOf(node.id) }))
  return {
    edges,
    pageInfo: {
      hasNextPage: rows.length > first,
      hasPreviousPage: after != null,
      startCursor: edges[0]?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
  }
}
