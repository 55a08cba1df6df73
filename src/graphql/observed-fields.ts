import { defaultFieldResolver } from 'graphql'
import type { GraphQLField, GraphQLSchema } from 'graphql'
import { answers, answerSeconds } from '../observe/metrics.ts'
import { idsOf, inSpan } from '../observe/span.ts'
import { paymentId } from '../payment/ids.ts'
import type { Payment } from '../payment/payment.ts'
import type { Context } from './context.ts'
import { codeOf } from './public-errors.ts'

/**
 * What was asked and what was answered, told once for each field of Query and Mutation, from outside of all that may
 * refuse it: a line of the log, a count, a time and the span below which the work happens.
 */
export function observed(schema: GraphQLSchema): GraphQLSchema {
  for (const field of fieldsOf(schema.getQueryType())) observe(field, 'debug')
  for (const field of fieldsOf(schema.getMutationType())) observe(field, 'info')
  return schema
}

function fieldsOf(type: ReturnType<GraphQLSchema['getQueryType']>) {
  return Object.values(type?.getFields() ?? {})
}

function observe(field: GraphQLField<unknown, Context>, level: 'debug' | 'info'): void {
  const { name, resolve = defaultFieldResolver } = field
  // There before they happen: an alert compares how they grow.
  if (name.endsWith('Payment'))
    for (const result of ['SUCCESS', 'OUTCOME_UNKNOWN'])
      answers.inc({ field: name, result, replayed: 'false' }, 0)
  field.resolve = async (source, args, context, info) => {
    const startedMs = performance.now()
    const tell = (outcome: Outcome): void => {
      const { result, replayed, ...ids } = outcome
      const seconds = (performance.now() - startedMs) / 1_000
      answers.inc({ field: name, result, replayed: String(replayed) })
      answerSeconds.observe({ field: name }, seconds)
      const { gateway, client, role } = context
      // A customer's name is in the receipt, and need not be in the log.
      const by = role === 'customer' ? role : client
      const line = {
        field: name,
        client: by,
        result,
        replayed,
        ...ids,
        durationMs: Math.round(seconds * 1_000),
      }
      gateway.log[level](line, 'answered')
    }
    return await inSpan(
      name,
      {},
      async (span) => {
        try {
          const answered: unknown = await resolve(source, args, context, info)
          const outcome = outcomeOf(answered)
          span.setAttributes({ ...idsOf(outcome), 'gateway.result': outcome.result })
          tell(outcome)
          return answered
        } catch (error) {
          tell({ result: codeOf(error), replayed: false })
          throw error
        }
      },
      { parent: context.trace },
    )
  }
}

type Member = {
  is: string
  problem: { code: string; payment: Payment | null }
  payment: Payment | null
  operation: string | null
  replayed: boolean
}
type Outcome = { result: string; replayed: boolean; operation?: string | null; payment?: string | null }

/** Mutations answer with a member of a union; whatever a query answers is a success. */
function outcomeOf(answer: unknown): Outcome {
  const { is, problem, payment, operation, replayed } = Object(answer) as Partial<Member>
  if (is === undefined) return { result: 'SUCCESS', replayed: false }
  const about = problem?.payment ?? payment ?? null
  return {
    result: problem?.code ?? 'SUCCESS',
    replayed: replayed ?? false,
    operation: operation ?? null,
    payment: about && paymentId(about.id),
  }
}
