import SchemaBuilder from '@pothos/core'
import RelayPlugin from '@pothos/plugin-relay'
import ValidationPlugin from '@pothos/plugin-validation'
import type { Context } from './context.ts'
import { INVALID_INPUT_PLUGIN } from './invalid-input.ts'

/** Everything is non-null and required unless it says otherwise. */
export const builder = new SchemaBuilder<{
  Context: Context
  DefaultFieldNullability: false
  DefaultInputFieldRequiredness: true
  Scalars: {
    Cents: { Input: number; Output: number }
    DateTime: { Input: Date; Output: Date }
    ID: { Input: string; Output: string }
  }
}>({
  plugins: [INVALID_INPUT_PLUGIN, ValidationPlugin, RelayPlugin],
  defaultFieldNullability: false,
  defaultInputFieldRequiredness: true,
  relay: {
    pageInfoTypeOptions: { description: 'Where a page lies in its list.' },
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
