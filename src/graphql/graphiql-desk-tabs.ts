/**
 * GraphiQL's tabs for the ops desk: what waits for somebody, and what can be done about it. What could be done by
 * accident is refused with INVALID_INPUT until it is filled in; and of several operations in a tab, Run asks which.
 */
export const atTheDesk = (now: Date) => [`${STUCK}\n${expiring(now)}`, REVIEW, RECONCILIATION, WEBHOOKS]

const DAY_MS = 24 * 3_600_000

const STUCK = `# What waits; choose under the Run button. What waits
# for an operator, and what the bank has not answered
# yet. Both empty: all is well.
query Stuck {
  inReview: payments(filter: { needsReview: true }, first: 10) {
    edges {
      node {
        id
        orderId
        state
        amount { formatted }
        review {
          reason
          since
          evidence { operationId reason facts { name value } }
        }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
  stuck: payments(filter: { operationInFlight: true }, first: 10) {
    edges {
      node {
        id
        orderId
        state
        operationInFlight {
          kind
          createdAt
          attempts
          ambiguous
          leasedUntil
          bankCalls {
            purpose
            startedAt
            httpStatus
            errorCode
            conclusion
          }
        }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}
`

const REVIEW = `# What you decided about a payment in review. Fill
# in its id and the reason, then choose one of the
# three under the Run button. Each is recorded under
# your name and cannot be taken back.

# Let recovery ask the bank again, now.
mutation RerunRecovery {
  rerunRecovery(input: { paymentId: "pay_...", reason: "" }) {
    ...done
  }
}

# The bank's own id, from its statement: auth_...,
# cap_... or ref_... It is looked up at the bank
# before it is believed.
mutation EnterBankReference {
  enterBankReference(
    input: { paymentId: "pay_...", bankReference: "", reason: "" }
  ) {
    ...done
  }
}

# By what the bank's statement shows: CARRIED_OUT,
# NOT_CARRIED_OUT, or NO_CHANGE when nothing is
# unresolved.
mutation CloseReview {
  closeReview(
    input: { paymentId: "pay_...", outcome: NO_CHANGE, reason: "" }
  ) {
    ...done
  }
}

fragment done on ReviewResult {
  __typename
  ... on PaymentReviewed {
    currentPayment { id state review { reason } }
    auditLine { at actor action reason }
  }
  ... on PaymentProblem { code message retry }
  ... on InvalidInput { fields { path reason } }
}
`

const expiring = (now: Date) => `# Holds that run out within a day: capture them, or
# the customer has to pay anew.
query Expiring {
  payments(
    filter: { expiringBefore: "${new Date(now.getTime() + DAY_MS).toISOString()}" }
    first: 50
  ) {
    edges {
      node {
        id
        orderId
        customerId
        amount { formatted }
        authorizationExpiresAt
        operationInFlight { kind }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}
`

const RECONCILIATION = `# The receipts compared with the bank: the last
# runs, and what did not agree.
query Reconciliation {
  reconciliations(first: 3) {
    edges {
      node {
        id
        kind
        status
        progress
        checked
        matched
        skipped
        discrepancyCount
        startedAt
        finishedAt
        note
        discrepancies(first: 20) {
          edges {
            node {
              kind
              bankReference
              advice
              mendable
              mendedAt
              ours { name value }
              bank { name value }
              payment { id orderId state }
            }
          }
        }
      }
    }
  }
}

# Begins a run, which changes no receipt; one at a
# time.
mutation StartReconciliation {
  startReconciliation(input: { days: 7 }) {
    __typename
    ... on ReconciliationAccepted { currentReconciliation { id status } }
    ... on ReconciliationRefused { message reconciliation { id status } }
    ... on InvalidInput { fields { path reason } }
  }
}
`

const WEBHOOKS = `# What FicMart's back end was told, of the newest
# payments first. What does not get through: filter:
# { status: FAILING }
query Webhooks {
  webhookDeliveries(first: 20) {
    edges {
      node {
        id
        type
        status
        attempts
        lastAttemptAt
        nextAttemptAt
        lastHttpStatus
        lastError
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}

# Sent again under the same id. Fill in the id and
# the reason.
mutation ResendWebhook {
  resendWebhook(input: { webhookId: "evt_...", reason: "" }) {
    __typename
    ... on WebhookResent { delivery { id status nextAttemptAt } }
    ... on PaymentProblem { code message retry }
    ... on InvalidInput { fields { path reason } }
  }
}
`
