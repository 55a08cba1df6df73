import './bank-call.ts'
import './live.ts'
import './mutations.ts'
import './node.ts'
import './operation.ts'
import './payment.ts'
import './queries.ts'
import './reconciliation.ts'
import './review.ts'
import './scalars.ts'
import './transition.ts'
import './webhooks.ts'
import { GraphQLSchema } from 'graphql'
import { builder } from './builder.ts'
import { observed } from './observed-fields.ts'
import { pricedAsGiven } from './priced-fields.ts'

const built = builder.toSchema().toConfig()

export const schema = pricedAsGiven(
  observed(
    new GraphQLSchema({
      ...built,
      description:
        "FicMart's payments: authorize, capture, void and refund at one bank, and the receipts of all that was asked. Each mutation is safe to repeat under its idempotency key. A success or a problem is a member of the result; `docs/api.md` says what to do on each.",
    }),
  ),
)
