import { bankCallId } from '../payment/ids.ts'
import { BankCallPurposeEnum } from './enums.ts'
import { BankCallType } from './nouns.ts'

BankCallType.implement({
  description: 'One HTTP exchange with the bank, for operators. It never holds card data.',
  fields: (t) => ({
    id: t.id({ description: '`call_` and a UUID that sorts by time.', resolve: ({ id }) => bankCallId(id) }),
    attempt: t.exposeInt('attempt', {
      description: 'The attempt of the operation that it belongs to, from 1.',
    }),
    purpose: t.expose('purpose', { type: BankCallPurposeEnum, description: 'Why the bank was called.' }),
    endpoint: t.exposeString('endpoint', {
      description: 'Method and path, for instance `POST /api/v1/captures`.',
    }),
    startedAt: t.expose('startedAt', { type: 'DateTime', description: 'When the request left.' }),
    durationMs: t.exposeInt('durationMs', {
      description: 'Until the answer was complete or given up, in milliseconds.',
    }),
    httpStatus: t.exposeInt('httpStatus', {
      nullable: true,
      description: 'Null when no complete answer came.',
    }),
    errorCode: t.exposeString('errorCode', {
      nullable: true,
      description: "The bank's error code, or that of the connection.",
    }),
    replayed: t.exposeBoolean('replayed', { description: "Answered from the bank's stored answers." }),
    conclusion: t.exposeString('conclusion', {
      description:
        'What the gateway concluded from the answer, for instance `done`, `ambiguous` or `notStored`.',
    }),
  }),
})
