import { execute, isIntrospectionType, isObjectType, parse, validate } from 'graphql'
import type { ExecutionResult, GraphQLObjectType, GraphQLResolveInfo } from 'graphql'
import { describe, expect, it } from 'vitest'
import { schema } from '../../src/graphql/schema.ts'
import { paymentsById } from '../../src/payment/reads.ts'
import { startTestBank } from '../support/bank.ts'
import { authorized, succeeded } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { ASKER_NAMES, ASKERS, CHECKOUT, clientFor } from './askers.ts'
import type { Asker } from './askers.ts'
import { documentFor } from './document-for.ts'

/**
 * Every field and mutation of the schema x everyone who may ask. What is expected stands in the table; a field that is
 * not in it fails, so nothing new is shown to anybody before somebody has thought about it.
 */
type Audience = 'everyone' | 'staff' | 'operators' | 'service' | 'checkout'
const MAY: Record<Audience, readonly Asker[]> = {
  everyone: ['service', 'ops', 'customer', 'stranger', 'dev'],
  staff: ['service', 'ops', 'dev'],
  operators: ['ops', 'dev'],
  service: ['service', 'dev'],
  checkout: ['service', 'customer', 'stranger', 'dev'],
}

const PROBLEM = 'code message payment replayed retry retryAfterMs'
const EXPECTED: Record<string, Partial<Record<Audience, string>>> = {
  Query: {
    everyone: 'customerHistory node nodes payment paymentsByOrder',
    staff: 'operation payments shipmentCheck webhookDeliveries',
    operators: 'reconciliation reconciliations',
  },
  Subscription: { everyone: 'paymentUpdated' },
  Mutation: {
    checkout: 'authorizePayment',
    service: 'capturePayment refundPayment voidPayment',
    operators:
      'closeReview enterBankReference rerunRecovery resendWebhook startReconciliation stopReconciliation',
  },
  Payment: {
    everyone:
      'amount authorizationExpiresAt authorizedAt capturedAt card createdAt customerId declinedAt expiredAt failedAt id orderId refundedAt state version voidedAt',
    staff:
      'allowedOperations auditLines authorizationId captureId operationInFlight operations possibleOrphanHoldSince refundId review strayHolds transitions voidId',
  },
  Card: { everyone: 'brand last4', staff: 'expiryMonth expiryYear' },
  Money: { everyone: 'cents currency formatted' },
  PaymentConnection: { everyone: 'edges pageInfo' },
  PaymentEdge: { everyone: 'cursor node' },
  PageInfo: { everyone: 'endCursor hasNextPage hasPreviousPage startCursor' },
  Operation: {
    staff:
      'ambiguous attempts bankCalls client code createdAt id idempotencyKey kind leasedUntil lookAgainAt payment resolvedAt result sentAt status transition',
  },
  Transition: { staff: 'actor at bankAt cause delivery fromState operation toState version' },
  BankCall: {
    staff: 'attempt conclusion durationMs endpoint errorCode httpStatus id purpose replayed startedAt',
  },
  AllowedOperation: { staff: 'allowed blockedBy operation' },
  Review: { staff: 'evidence reason since' },
  Evidence: { staff: 'facts operationId reason' },
  Fact: { staff: 'name value' },
  StrayHold: { staff: 'amount authorizationId expiresAt foundAt operation releasedAt' },
  AuditLine: { staff: 'action actor at closedEvidence closedReview entered operation reason' },
  WebhookDelivery: {
    staff:
      'attempts endedAt id lastAttemptAt lastError lastHttpStatus nextAttemptAt payment recordedAt resentAt status transition type',
  },
  WebhookDeliveryConnection: { staff: 'edges pageInfo' },
  WebhookDeliveryEdge: { staff: 'cursor node' },
  WebhookResent: { staff: 'delivery' },
  WebhookNotFound: { everyone: PROBLEM },
  PaymentReviewed: { staff: 'auditLine currentPayment payment' },
  Reconciliation: {
    staff:
      'actor checked discrepancies discrepancyCount finishedAt id kind matched note progress skipped source spanFrom spanTo startedAt status stoppedAt',
  },
  ReconciliationConnection: { staff: 'edges pageInfo' },
  ReconciliationEdge: { staff: 'cursor node' },
  ReconciliationAccepted: { staff: 'currentReconciliation reconciliation' },
  ReconciliationRefused: { staff: 'message reconciliation' },
  Discrepancy: { staff: 'advice bank bankReference foundAt id kind mendable mendedAt ours payment' },
  DiscrepancyConnection: { staff: 'edges pageInfo' },
  DiscrepancyEdge: { staff: 'cursor node' },
  ShipmentCheck: { staff: 'confirmedBy explanation holdExpiresAt mayShip payments reason' },
  ShipmentPayment: { staff: 'confirmedBy holdExpiresAt mayShip payment reason' },
  AuthorizePaymentSuccess: { everyone: 'currentPayment payment replayed', staff: 'transition' },
  CapturePaymentSuccess: { everyone: 'currentPayment payment replayed', staff: 'transition' },
  VoidPaymentSuccess: { everyone: 'currentPayment payment replayed', staff: 'transition' },
  RefundPaymentSuccess: { everyone: 'currentPayment payment replayed', staff: 'transition' },
  IdempotencyKeyReused: { everyone: `${PROBLEM} field` },
  InvalidInput: { everyone: `${PROBLEM} fields` },
  FieldProblem: { everyone: 'path reason' },
  InvalidTransition: { everyone: PROBLEM, staff: 'allowed from to' },
  AmountMismatch: { everyone: PROBLEM, staff: 'actual expected' },
  AuthorizationExpired: { everyone: PROBLEM },
  BankReferenceMissing: { everyone: PROBLEM },
  BankReferenceRefused: { everyone: PROBLEM },
  NothingToSettle: { everyone: PROBLEM },
  BankUnavailable: { everyone: PROBLEM },
  OperationInFlight: { everyone: PROBLEM },
  OrderAlreadyHasPayment: { everyone: PROBLEM },
  PaymentDeclined: { everyone: PROBLEM },
  PaymentNotFound: { everyone: PROBLEM },
  PaymentOutcomeUnknown: { everyone: PROBLEM },
}

const expected = new Map<string, readonly Asker[]>(
  Object.entries(EXPECTED).flatMap(([type, fields]) =>
    Object.entries(fields).flatMap(([audience, names]) =>
      names.split(' ').map((name) => [`${type}.${name}`, MAY[audience as Audience]] as const),
    ),
  ),
)
/** Of objects: what is asked of an interface or a union is answered by one of them. */
const objects = Object.values(schema.getTypeMap()).filter(
  (type): type is GraphQLObjectType => isObjectType(type) && !isIntrospectionType(type),
)
const fieldsOf = (type: GraphQLObjectType) =>
  Object.keys(type.getFields()).map((name) => `${type.name}.${name}`)

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { gateway } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const service = clientFor(gateway, ASKERS.service)
const { id: paymentId } = await authorized(service, CHECKOUT)
succeeded(await service.capture({ paymentId }))

it('each field of the schema has its line in the table, and each line its field', () => {
  expect([...expected.keys()].toSorted()).toEqual(objects.flatMap(fieldsOf).toSorted())
})

describe.each(ASKER_NAMES)('%s', (asker) => {
  const may = (field: string) => expected.get(field)?.includes(asker) === true
  const client = clientFor(gateway, ASKERS[asker])

  // A subscription is answered by a stream: test/events/live.test.ts asks for it.
  const answered = objects.filter((type) => type !== schema.getSubscriptionType())
  it.each(answered)('asks for each field of $name', async (type) => {
    for (const field of fieldsOf(type)) {
      // By fields that may be asked for, if there is such a road: then it is this field's own line that decides.
      const { document, path } = documentFor(field, { may, paymentId, ...CHECKOUT })
      expect([document, validate(schema, parse(document))]).toEqual([document, []])
      const forbidden = path.find((step) => !may(step))

      const { data, errors = [] } = await client.post<Record<string, unknown>>(document)
      if (forbidden === undefined) {
        expect([document, errors]).toEqual([document, []])
        if (asker === 'stranger') expect(JSON.stringify(data)).not.toContain(paymentId.slice(4))
        continue
      }
      expect([document, data ?? null, errors[0]?.message, errors[0]?.extensions?.['code']]).toEqual([
        document,
        null,
        `You may not ask for ${forbidden}. Nothing was carried out.`,
        'FORBIDDEN',
      ])

      // So it is too where nothing stands before the resolvers.
      const contextValue = { gateway, ...ASKERS[asker] }
      const bare = await execute({ schema, document: parse(document), contextValue })
      expect([document, leavesOf(bare)]).toEqual([document, []])
      if (isReached(forbidden, asker)) {
        expect([document, bare.errors?.[0]?.extensions]).toMatchObject([document, { code: 'FORBIDDEN' }])
      }
    }
  })
})

it('a payment of somebody else is refused even where a resolver would give it away', async () => {
  const payments = await paymentsById(gateway, [paymentId.slice(4)])
  const info = { parentType: schema.getQueryType(), fieldName: 'payment' } as GraphQLResolveInfo
  const isTypeOf = objects.find(({ name }) => name === 'Payment')?.isTypeOf
  const reach = (asker: Asker) => isTypeOf?.(payments[0], { gateway, ...ASKERS[asker] }, info)
  expect(reach('customer')).toBe(true)
  expect(reach('ops')).toBe(true)
  expect(() => reach('stranger')).toThrow(
    expect.objectContaining({ extensions: expect.objectContaining({ code: 'FORBIDDEN' }) as unknown }),
  )
})

/** The payment is there to be asked, and is no stranger's. */
function isReached(field: string, asker: Asker): boolean {
  return /^(Query|Mutation)\./.test(field) || (/^(Payment|Card)\./.test(field) && asker !== 'stranger')
}

/** What an answer says, but for the names of types. */
function leavesOf({ data }: ExecutionResult): unknown[] {
  const leaves: unknown[] = []
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) leaves.push(value)
    else for (const [name, inner] of Object.entries(value)) if (name !== '__typename') walk(inner)
  }
  walk(data)
  return leaves.filter((leaf) => leaf !== null)
}
