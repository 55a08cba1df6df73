import { EVERYONE } from './audience.ts'
import { builder } from './builder.ts'

export const MoneyType = builder.objectRef<{ cents: number; currency: string }>('Money')

MoneyType.implement({
  description: 'An amount of money.',
  authScopes: EVERYONE,
  fields: (t) => ({
    cents: t.expose('cents', { type: 'Cents', description: 'In cents: the only form to calculate with.' }),
    currency: t.exposeString('currency', { description: 'ISO 4217; always `USD`.' }),
    formatted: t.string({
      description: 'For people, in US English: `$1,234.56`.',
      resolve: ({ cents, currency }) => formatterOf(currency).format(cents / CENTS_PER_DOLLAR),
    }),
  }),
})

const CENTS_PER_DOLLAR = 100
const formatters = new Map<string, Intl.NumberFormat>()

function formatterOf(currency: string): Intl.NumberFormat {
  const formatter =
    formatters.get(currency) ?? new Intl.NumberFormat('en-US', { style: 'currency', currency })
  formatters.set(currency, formatter)
  return formatter
}
