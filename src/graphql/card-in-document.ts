import type { ValidationRule } from 'graphql'
import { createLRUCache } from 'graphql-yoga'
import { mayHoldCard } from '../payment/card-guard.ts'
import { ApiError } from './errors.ts'

/** A card belongs into the variables. Where it is written into the document itself, two things must not keep it. */

const LONG_NUMBER = /\d{13,}/

/**
 * Names that a client makes up (aliases, operations, variables, fragments) come back in answers and show in traces: one
 * that holds a number as long as a card's, or what could be one, is refused, without being repeated.
 */
export const noCardInNames: ValidationRule = (context) => ({
  Name: (node) => {
    if (!LONG_NUMBER.test(node.value) && !mayHoldCard(node.value)) return
    context.reportError(
      new ApiError(
        'BAD_USER_INPUT',
        'A name must not hold a number of 13 digits or more, nor what could be the number of a card: names are repeated in answers.',
        {
          nodes: node,
        },
      ),
    )
  },
})

/** Yoga remembers parsed documents and syntax errors for an hour: not those that may hold a card. */
export function documentCache<Value extends object>() {
  const cache = createLRUCache<Value>({ max: DOCUMENTS_MAX })
  return {
    get: (document: string) => cache.get(document),
    set: (document: string, value: Value) => {
      if (!MAY_HOLD_CARD.test(document) && !mayHoldCard(document)) cache.set(document, value)
    },
  }
}

const DOCUMENTS_MAX = 1_000
/** A card that is still being typed, too: in the browser it is asked at every key (graphiql-page.ts). */
export const MAY_HOLD_CARD = /cvv|\d(?:[ -]*\d){11}/i
