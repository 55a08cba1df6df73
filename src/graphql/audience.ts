import SchemaBuilder, { BasePlugin } from '@pothos/core'
import type { PothosOutputFieldConfig, SchemaTypes } from '@pothos/core'
import type { GraphQLField, GraphQLNamedType } from 'graphql'
import type { Role } from '../access/who.ts'
import { PAGE_MAX } from './input-rules.ts'

/**
 * Who may ask for a field: each says so in one line, `authScopes: EVERYONE`. One that says nothing is for STAFF, so
 * that nothing new is ever shown to customers by oversight; and a field of Query, Mutation or Subscription that says
 * nothing is no schema at all. A type may say it too: then both must agree. `dev` may everything.
 *
 * document.ts refuses by it before anything is carried out; the scope-auth plugin does so again at each field.
 */
export const EVERYONE = { service: true, ops: true, customer: true } as const satisfies Audience
export const STAFF = { service: true, ops: true } as const satisfies Audience
export const OPERATORS = { ops: true } as const satisfies Audience
/** What moves money. */
export const SERVICE = { service: true } as const satisfies Audience
export const CHECKOUT = { service: true, customer: true } as const satisfies Audience

type Audience = Partial<Scopes>
/** Names that scope-auth knows: a role each, but `dev`, which has all of them. */
export type Scopes = Record<Exclude<Role, 'dev'>, boolean>

export function scopesOf({ role }: { role: Role }): Scopes {
  const has = (scope: Role) => role === scope || role === 'dev'
  return { service: has('service'), ops: has('ops'), customer: has('customer') }
}

/** What can be told without data; where a scope is a function (of a payment, say) scope-auth asks it later. */
export function mayAsk(role: Role, type: GraphQLNamedType, field: GraphQLField<unknown, unknown>): boolean {
  if (field.name === '__schema' || field.name === '__type') return maySeeSchema(role)
  const scopes = scopesOf({ role })
  const allows = (audience: unknown) =>
    typeof audience !== 'object' ||
    audience === null ||
    Object.keys(audience).some((scope) => scopes[scope as keyof Scopes])
  return [type, field].every(({ extensions }) => allows(Object(extensions['pothosOptions']).authScopes))
}

/** By introspection, and `GET /schema.graphql`: whoever has a key may make code from it. */
export function maySeeSchema(role: Role): boolean {
  return role !== 'customer'
}

export const AUDIENCE_PLUGIN = 'audience'
const ROOTS = ['Query', 'Mutation', 'Subscription']

/** Fills in what a field does not say: who may ask for it, and what it costs. */
class AudiencePlugin<Types extends SchemaTypes> extends BasePlugin<Types> {
  override onOutputFieldConfig(field: PothosOutputFieldConfig<Types>) {
    const { parentType, name, pothosOptions } = field
    const ofType = this.buildCache.getTypeConfig(parentType).pothosOptions as { authScopes?: unknown }
    const isDecided = pothosOptions.authScopes !== undefined || typeof ofType.authScopes === 'object'
    if (!isDecided && ROOTS.includes(parentType)) {
      throw new Error(
        `${parentType}.${name} does not say who may ask for it: give it authScopes (audience.ts)`,
      )
    }
    const options: object = {
      ...(!isDecided && { authScopes: STAFF }),
      ...(parentType === 'Query' && { complexity: field.type.kind === 'List' ? SHORT_LIST : LOOKUP_COST }),
      ...(parentType === 'Subscription' && { complexity: LOOKUP_COST }),
      ...(parentType === 'Mutation' && { complexity: MUTATION_COST }),
      ...('first' in field.args && { complexity: costOfPage }),
      ...('ids' in field.args && { complexity: costOfIds }),
      ...(name === 'edges' && { complexity: EDGES_COST }),
      ...pothosOptions,
    }
    return { ...field, pothosOptions: options } as PothosOutputFieldConfig<Types>
  }
}

/**
 * A value in an answer costs 1, measured at some 2 us; what stands behind it is priced in the same coin. The limits are
 * in document.ts.
 */
const LOOKUP_COST = 200
/** Some statements, and a place at the bank for seconds. */
const MUTATION_COST = 1_000
/** A filter may look at 10,000 rows. */
const PAGE_COST = 1_000
/** A payment's transitions, an operation's bank calls: as long as such lists are. */
export const LIST_LENGTH = 4
const SHORT_LIST = { field: LOOKUP_COST, multiplier: LIST_LENGTH }

/** As dear as it may become long; one whose `first` is refused is as dear as the longest. */
function costOfPage(args: object) {
  const first: unknown = 'first' in args ? args.first : null
  const isSize = typeof first === 'number' && 1 <= first && first <= PAGE_MAX
  return { field: PAGE_COST, multiplier: isSize ? first : PAGE_MAX }
}
function costOfIds(args: object) {
  const ids: unknown = 'ids' in args ? args.ids : null
  return { field: LOOKUP_COST, multiplier: Array.isArray(ids) ? ids.length : 1 }
}
/** Its length is in the price of the page. */
const EDGES_COST = { field: 1, multiplier: 1 }

declare global {
  namespace PothosSchemaTypes {
    interface Plugins<Types extends SchemaTypes> {
      audience: AudiencePlugin<Types>
    }
  }
}

SchemaBuilder.registerPlugin(AUDIENCE_PLUGIN, AudiencePlugin)
