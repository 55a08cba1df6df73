import type { Delivery } from '../events/deliveries.ts'
import type { AuditLine, BankCall, Operation, Payment, StrayHold, Transition } from '../payment/payment.ts'
import type { Discrepancy } from '../recovery/reconcile/discrepancy.ts'
import type { Reconciliation } from '../recovery/reconcile/runs.ts'
import { builder } from './builder.ts'

/** The nouns by name, so that each can speak of the others; every one is described in the file of its name. */

export const PaymentType = builder.objectRef<Payment>('Payment')
export const OperationType = builder.objectRef<Operation>('Operation')
export const TransitionType = builder.objectRef<Transition>('Transition')
export const BankCallType = builder.objectRef<BankCall>('BankCall')
export const StrayHoldType = builder.objectRef<StrayHold>('StrayHold')
export const AuditLineType = builder.objectRef<AuditLine>('AuditLine')
export const WebhookDeliveryType = builder.objectRef<Delivery>('WebhookDelivery')
export const ReconciliationType = builder.objectRef<Reconciliation>('Reconciliation')
export const DiscrepancyType = builder.objectRef<Discrepancy>('Discrepancy')
