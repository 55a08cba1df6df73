import SchemaBuilder, { BasePlugin } from '@pothos/core'
import type { PothosOutputFieldConfig, SchemaTypes } from '@pothos/core'
import { InputValidationError } from '@pothos/plugin-validation'
import type { GraphQLFieldResolver } from 'graphql'
import { problem } from '../operation/problems.ts'
import { ApiError } from './errors.ts'
import type { FieldProblem } from './errors.ts'

/**
 * Turns what the validation plugin throws into an answer: the member InvalidInput where the field's result is a union
 * that has one (the mutations), a top-level INVALID_INPUT elsewhere. Pothos calls `wrapArgMappers` around the
 * validation, so nothing has been stored or sent by then.
 */
export const INVALID_INPUT_PLUGIN = 'invalidInput'

/** The member InvalidInput, as types/problems.ts shows it. */
export type InvalidInputAnswer = ReturnType<typeof invalidInput>

export function invalidInput(fields: FieldProblem[]) {
  return { is: 'problem' as const, problem: problem('INVALID_INPUT'), replayed: false, fields }
}

/** Of a query: there is no result that it could be a member of. */
export function invalidArguments(fields: FieldProblem[]): ApiError {
  const said = fields.map(({ path, reason }) => `${path}: ${reason}`).join('; ')
  return new ApiError('INVALID_INPUT', `The input is not valid. ${said}.`, { fields })
}

class InvalidInputPlugin<Types extends SchemaTypes> extends BasePlugin<Types> {
  override wrapArgMappers(
    resolver: GraphQLFieldResolver<unknown, Types['Context'], object> | undefined,
    field: PothosOutputFieldConfig<Types>,
  ) {
    if (resolver === undefined) return resolver
    const isMutation = field.parentType === 'Mutation'
    const answer = (error: unknown) => {
      if (!(error instanceof InputValidationError)) throw error
      if (isMutation) return invalidInput(error.issues.map(fieldProblem))
      throw invalidArguments(error.issues.map(fieldProblem))
    }
    const validated: typeof resolver = (...args) => {
      try {
        const result: unknown = resolver(...args)
        return result instanceof Promise ? result.catch(answer) : result
      } catch (error) {
        return answer(error)
      }
    }
    return validated
  }
}

/** The reasons are ours (inputs.ts) and never hold the value. */
function fieldProblem({ path = [], message }: InputValidationError['issues'][number]): FieldProblem {
  const segments = path.map((part) => String(typeof part === 'object' ? part.key : part))
  return { path: segments.join('.'), reason: message }
}

declare global {
  namespace PothosSchemaTypes {
    interface Plugins<Types extends SchemaTypes> {
      invalidInput: InvalidInputPlugin<Types>
    }
  }
}

SchemaBuilder.registerPlugin(INVALID_INPUT_PLUGIN, InvalidInputPlugin)
