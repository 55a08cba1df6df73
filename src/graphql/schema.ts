import './bank-call.ts'
import './mutations.ts'
import './operation.ts'
import './payment.ts'
import './queries.ts'
import './reconciliation.ts'
import './review.ts'
import './scalars.ts'
import './transition.ts'
import { builder } from './builder.ts'
import { observed } from './observed-fields.ts'

export const schema = observed(builder.toSchema())
