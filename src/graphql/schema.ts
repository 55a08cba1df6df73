import './bank-call.ts'
import './live.ts'
import './mutations.ts'
import './operation.ts'
import './payment.ts'
import './queries.ts'
import './review.ts'
import './scalars.ts'
import './transition.ts'
import './webhooks.ts'
import { builder } from './builder.ts'
import { observed } from './observed-fields.ts'

export const schema = observed(builder.toSchema())
