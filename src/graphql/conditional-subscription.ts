import { GraphQLError, Kind, OperationTypeNode } from 'graphql'
import type { DirectiveNode, DocumentNode, SelectionSetNode } from 'graphql'

/**
 * A subscription whose one field may be skipped has nothing to follow: the specification forbids it, and graphql-js 17
 * refuses it with these words. graphql-js 16 lets it through, or throws while it validates, and then has no field to run.
 */
export function conditionalSubscriptions(document: DocumentNode): GraphQLError[] {
  return document.definitions.flatMap((definition) => {
    if (definition.kind !== Kind.OPERATION_DEFINITION) return []
    if (definition.operation !== OperationTypeNode.SUBSCRIPTION) return []
    const nodes = conditionsAtTop(document, definition.selectionSet)
    if (nodes.length === 0) return []
    const name = definition.name === undefined ? 'Anonymous Subscription' : 'Subscription'
    const message = `${name} must not use \`@skip\` or \`@include\` directives in the top level selection.`
    // No JSON is the answer to a subscription, which alone would be 200 (errors.ts).
    const extensions = { code: 'GRAPHQL_VALIDATION_FAILED', http: { status: 400, spec: false } }
    return [new GraphQLError(message, { nodes, extensions })]
  })
}

/** Fragments are looked into once each, however they spread each other. */
function conditionsAtTop(
  document: DocumentNode,
  { selections }: SelectionSetNode,
  seen = new Set<string>(),
): DirectiveNode[] {
  return selections.flatMap((selection) => {
    const conditions = (selection.directives ?? []).filter(({ name }) => CONDITIONS.has(name.value))
    switch (selection.kind) {
      case Kind.FIELD:
        return conditions
      case Kind.INLINE_FRAGMENT:
        return [...conditions, ...conditionsAtTop(document, selection.selectionSet, seen)]
      case Kind.FRAGMENT_SPREAD: {
        const name = selection.name.value
        if (seen.has(name)) return conditions
        seen.add(name)
        const inside = document.definitions.flatMap((definition) =>
          definition.kind === Kind.FRAGMENT_DEFINITION && definition.name.value === name
            ? conditionsAtTop(document, definition.selectionSet, seen)
            : [],
        )
        return [...conditions, ...inside]
      }
    }
  })
}

const CONDITIONS = new Set(['skip', 'include'])
