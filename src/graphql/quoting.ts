import type { GraphQLSchema } from 'graphql'
import { isEnumType, isInputObjectType, isInterfaceType, isObjectType } from 'graphql'
import type { Role } from '../access/who.ts'
import { maySeeSchema } from './audience.ts'

/**
 * graphql-js quotes what it complains about: bad values, whole variables, unknown names, pieces of the document. Any of
 * that may be a card number in the wrong place, so of its sentences only two kinds of word are let through: those that
 * graphql-js itself is made of (below), and names that exist in the schema. Whatever else there is becomes `…`. A
 * sentence that a newer graphql-js has and this list has not loses words, never keeps a value.
 *
 * To whoever may see the schema a name that it does not have is told too: what was misspelt is then seen at once.
 */
const SENTENCES = `
  Syntax Error Expected found Unexpected character Unterminated string Invalid Unicode character escape
  sequence number expected digit but got unexpected after single quote did you mean to use a double EOF SOF
  Name Int Float String BlockString Comment Document contains more than tokens comments Parsing aborted
  descriptions are not supported on shorthand queries only GraphQL definitions support description variable
  in constant value Cannot query field on type Did you mean or inline fragment Unknown argument directive
  fragment type operation named Argument of required is but it was not provided invalid non-null must be
  null Variable used position expecting never defined by non-nullable for OneOf Input Object specify exactly
  one key Exactly specified Field Fields conflict because and different fields they differing arguments have
  return types subfields selection a no at least selected of aliases to fetch both if this was intentional
  Fragment can be spread here as objects with itself via condition non composite The definition executable
  There anonymous once location may named input Enum cannot represent value values integer bit signed
  boolean numeric an object does exist enum Directive location Unknown that the schema so Maximum
  introspection depth exceeded limit reached Too many errors processing variables Execution Must provide
  name query string multiple operations contains Could determine what operation execute Can perform mutation
  from POST request body sent JSON is be received param given params parameter Unexpected Content Length
  header Request too large Batching Use Value Validation validation errors Schema configured subscription
  supports GET requests false true null QUERY MUTATION FIELD FRAGMENT_DEFINITION FRAGMENT_SPREAD
  INLINE_FRAGMENT VARIABLE_DEFINITION Anonymous top level introspection directives skip include select since has
  within itself This conflicting which runtime reserved invalid empty array number undefined extensions`

const WORDS = new Set(SENTENCES.match(/\w+/g))
const HARMLESS = /[\s"'`.,:;!?()[\]{}<>$@&=|-]/

/** `role`: of whoever is told; undefined while that is not known. */
export type Quote = (message: string, role: Role | undefined) => string

/** For one schema: what may be said of a message. */
export function quoteOnly(schema: GraphQLSchema): Quote {
  const names = namesIn(schema)
  return (message, role) => {
    const maySee = role !== undefined && maySeeSchema(role)
    const misspelt = maySee ? namesGiven(message) : new Set<string>()
    const isTold = (token: string) =>
      WORDS.has(token) || names.has(token) || HARMLESS.test(token) || misspelt.has(token)
    const told = (message.replace(/ value: .*/s, ' value.').match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_]/gu) ?? [])
      .map((token) => (isTold(token) ? token : '…'))
      .join('')
      .replaceAll(/…(?:[^\p{L}\p{N}…]*…)+/gu, '…')
    // "Did you mean" tells a patient guesser the schema.
    return maySee ? told : told.replace(/ Did you mean .*$/s, '')
  }
}

/** Where a sentence names a field, an argument, a type and so on; three digits may be of a card. */
function namesGiven(message: string): Set<string> {
  const places = message.matchAll(NAMED)
  return new Set(
    [...places].map(([, name = '']) => name).filter((name) => (name.match(/\d/g) ?? []).length < 3),
  )
}

const NAMED = /\b(?:[Ff]ield|argument|type|fragment|directive|parameter) "@?([A-Za-z_]\w{0,99})"/g

function namesIn(schema: GraphQLSchema): Set<string> {
  const names = new Set(
    schema.getDirectives().flatMap(({ name, args }) => [name, ...args.map((arg) => arg.name)]),
  )
  for (const type of Object.values(schema.getTypeMap())) {
    names.add(type.name)
    if (isEnumType(type)) for (const { name } of type.getValues()) names.add(name)
    if (isInputObjectType(type)) for (const name of Object.keys(type.getFields())) names.add(name)
    if (isObjectType(type) || isInterfaceType(type)) {
      for (const { name, args } of Object.values(type.getFields())) {
        names.add(name)
        for (const arg of args) names.add(arg.name)
      }
    }
  }
  return names
}
