import { readFile } from 'node:fs/promises'
import {
  getIntrospectionQuery,
  getNamedType,
  graphqlSync,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isIntrospectionType,
  isNonNullType,
  isObjectType,
  isScalarType,
  isSpecifiedScalarType,
  isUnionType,
  parse,
  validate,
} from 'graphql'
import { describe, expect, it } from 'vitest'
import {
  changesToHeed,
  SCHEMA_FILE,
  SCHEMA_TYPES_FILE,
  schemaText,
  schemaTypes,
} from '../src/graphql/schema-text.ts'
import { schema } from '../src/graphql/schema.ts'

it('schema.graphql is what the code says', async () => {
  const committed = await readFile(SCHEMA_FILE, 'utf8')
  const current = schemaText()
  if (committed === current) return
  const changes = await changesToHeed(committed, current)
  expect.fail(['schema.graphql is stale: run `npm run schema`. Changes to heed:', ...changes].join('\n'))
})

it("the clients' types are those of the schema", async () => {
  expect(await readFile(SCHEMA_TYPES_FILE, 'utf8')).toBe(schemaTypes())
})

it('what breaks clients, or may surprise them, is told by name', async () => {
  const before = schemaText()
  const after = before
    .replace('  fromState: PaymentState\n', '  from: PaymentState\n')
    .replace('allowAnotherForOrder: Boolean = false', 'allowAnotherForOrder: Boolean!')
    .replace('enum Retry {', 'enum Retry {\n  NEVER')
    .replace('union VoidPaymentResult = ', 'union VoidPaymentResult = Money | ')
  expect(await changesToHeed(before, before)).toEqual([])
  expect(await changesToHeed(before, after)).toMatchInlineSnapshot(`
    [
      "BREAKING  AuthorizePaymentInput.allowAnotherForOrder  Input field 'AuthorizePaymentInput.allowAnotherForOrder' changed type from 'Boolean' to 'Boolean!'",
      "BREAKING  Transition.fromState  Field 'fromState' was removed from object type 'Transition'",
      "DANGEROUS  AuthorizePaymentInput.allowAnotherForOrder  Input field 'AuthorizePaymentInput.allowAnotherForOrder' default value changed from 'false' to 'undefined'",
      "DANGEROUS  Retry.NEVER  Enum value 'NEVER' was added to enum 'Retry'",
      "DANGEROUS  VoidPaymentResult  Member 'Money' was added to Union type 'VoidPaymentResult'",
    ]
  `)
})

it('everything in it is described', () => {
  const silent: string[] = []
  const look = (name: string, { description }: { description?: string | null | undefined }) => {
    if (description === null || description === undefined || description === '') silent.push(name)
  }
  look('schema', schema)
  for (const type of Object.values(schema.getTypeMap())) {
    if (isIntrospectionType(type) || isSpecifiedScalarType(type)) continue
    look(type.name, type)
    // A URL that says what its values are.
    if (isScalarType(type))
      expect([type.name, URL.canParse(type.specifiedByURL ?? '')]).toEqual([type.name, true])
    if (isEnumType(type)) for (const value of type.getValues()) look(`${type.name}.${value.name}`, value)
    if (isInputObjectType(type)) {
      for (const field of Object.values(type.getFields())) look(`${type.name}.${field.name}`, field)
    }
    if (isObjectType(type) || isInterfaceType(type)) {
      for (const field of Object.values(type.getFields())) {
        look(`${type.name}.${field.name}`, field)
        for (const argument of field.args) look(`${type.name}.${field.name}(${argument.name})`, argument)
      }
    }
  }
  expect(silent).toEqual([])
})

describe('what was done is there for certain', () => {
  const unions = Object.values(schema.getTypeMap()).filter(isUnionType)
  const problem = schema.getType('PaymentProblem')
  const successes = new Set(
    unions
      .flatMap((union) => union.getTypes())
      .filter(
        (type) => !type.getInterfaces().some((one) => one === problem) && !type.name.endsWith('Refused'),
      ),
  )

  it.each([...successes].map((type) => [type.name, type] as const))('in %s', (_, type) => {
    const fields = Object.values(type.getFields())
    const nouns = fields.filter((field) => isObjectType(getNamedType(field.type)))
    expect(nouns.length).toBeGreaterThan(0)
    for (const { name, type, deprecationReason } of nouns) {
      if (isNonNullType(type)) continue
      // Of what is not, another field has the same.
      const [, successor = ''] =
        /^Use `(\w+)`, the same and never null\.$/.exec(deprecationReason ?? '') ?? []
      const sure = nouns.find((field) => field.name === successor)
      expect([name, sure?.type.toString()]).toEqual([name, `${type.toString()}!`])
    }
  })

  it('and one document covers each result, success and problem', () => {
    for (const [field, success] of [
      ['authorizePayment(input: $input)', '... on PaymentSuccess { currentPayment { id } payment { id } }'],
      ['rerunRecovery(input: $input)', '... on PaymentReviewed { currentPayment { id } payment { id } }'],
    ]) {
      const type = `${(field ?? '').replace(/^./, (letter) => letter.toUpperCase()).replace(/\(.*/, '')}Input!`
      const document = `mutation ($input: ${type}) { ${field} { ${success} ... on PaymentProblem { code payment { id } } } }`
      expect(validate(schema, parse(document))).toEqual([])
    }
    const document = `mutation { startReconciliation(input: {}) {
      ... on ReconciliationAccepted { currentReconciliation { id } reconciliation { id } }
      ... on ReconciliationRefused { message reconciliation { id } } } }`
    expect(validate(schema, parse(document))).toEqual([])
  })
})

it('can be introspected', () => {
  expect(
    graphqlSync({ schema, source: getIntrospectionQuery({ inputValueDeprecation: true, oneOf: true }) })
      .errors,
  ).toBeUndefined()
})
