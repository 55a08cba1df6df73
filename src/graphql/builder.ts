import SchemaBuilder from '@pothos/core'
import ComplexityPlugin from '@pothos/plugin-complexity'
import RelayPlugin from '@pothos/plugin-relay'
import ScopeAuthPlugin from '@pothos/plugin-scope-auth'
import ValidationPlugin from '@pothos/plugin-validation'
import { AUDIENCE_PLUGIN, EVERYONE, LIST_LENGTH, scopesOf } from './audience.ts'
import type { Scopes } from './audience.ts'
import type { Context } from './context.ts'
import { ApiError } from './errors.ts'
import { PAGE_MAX } from './input-rules.ts'
import { INVALID_INPUT_PLUGIN } from './invalid-input.ts'
import { allKnown, known, typeOfId } from './node-ids.ts'

/** Everything is non-null and required unless it says otherwise. */
export const builder = new SchemaBuilder<{
  Context: Context
  AuthScopes: Scopes
  DefaultFieldNullability: false
  DefaultInputFieldRequiredness: true
  Scalars: {
    Cents: { Input: number; Output: number }
    DateTime: { Input: Date; Output: Date }
    ID: { Input: string; Output: string }
  }
}>({
  // Configured from the last to the first: the audience plugin fills in what those before it read.
  plugins: [
    INVALID_INPUT_PLUGIN,
    ScopeAuthPlugin,
    ComplexityPlugin,
    ValidationPlugin,
    RelayPlugin,
    AUDIENCE_PLUGIN,
  ],
  defaultFieldNullability: false,
  defaultInputFieldRequiredness: true,
  scopeAuth: {
    authScopes: scopesOf,
    unauthorizedError: (_, __, { parentType, fieldName }) =>
      new ApiError('FORBIDDEN', `You may not ask for ${parentType.name}.${fieldName}.`),
  },
  complexity: { defaultComplexity: 1, defaultListMultiplier: LIST_LENGTH },
  relay: {
    encodeGlobalID: (_, id) => String(id),
    decodeGlobalID: typeOfId,
    nodeTypeOptions: {
      description: 'What has an id of its own, by which it can be asked for again and kept in a cache.',
      authScopes: EVERYONE,
    },
    idFieldOptions: { description: 'Its id, the same everywhere; what it begins with says what it is.' },
    nodeQueryOptions: {
      description:
        'Whatever has this id; null when there is nothing, or it is nothing of yours. For clients that refetch by id, as Relay does.',
      authScopes: EVERYONE,
      args: { id: { description: 'Its id: `pay_...`, `op_...`, `evt_...`, `rec_...` or `dis_...`.' } },
      resolve: (_, { id }, __, ___, load) => load(known(id)),
    },
    nodesQueryOptions: {
      description: 'The same for several at one time, in their order.',
      authScopes: EVERYONE,
      args: { ids: { description: `Their ids, at most ${PAGE_MAX}.` } },
      resolve: (_, { ids }, __, ___, load) => load(allKnown(ids)),
    },
    pageInfoTypeOptions: { description: 'Where a page lies in its list.', authScopes: EVERYONE },
    hasNextPageFieldOptions: {
      description: 'There is more after this page: ask again with `after: endCursor`.',
    },
    hasPreviousPageFieldOptions: { description: 'This page was asked for with `after`.' },
    startCursorFieldOptions: { description: 'Of the first item; null when the page is empty.' },
    endCursorFieldOptions: {
      description:
        'Where the next page begins. An empty page that has more after it has one too: a rare filter is looked for bit by bit.',
    },
    pageInfoFieldOptions: { description: 'Where this page lies in the list.' },
    cursorFieldOptions: { description: 'Its place in the list: `after` goes on behind it.' },
    edgesFieldOptions: { description: 'The page, newest first.' },
  },
})
