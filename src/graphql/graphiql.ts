import { randomUUID } from 'node:crypto'
import type { GraphiQLOptions } from 'graphql-yoga'
import type { Role } from '../access/who.ts'
import { atTheDesk } from './graphiql-desk-tabs.ts'
import { lookIntoIt, takeAPayment } from './graphiql-payment-tabs.ts'

/** GraphiQL with requests ready to run, those that its reader may. Options are put into the page unescaped. */
export function graphiqlOptions(role: Role = 'dev', now = new Date()): GraphiQLOptions {
  const fresh = randomUUID().slice(0, 8)
  const payments = role === 'dev' ? takeAPayment(fresh) : []
  return {
    title: 'FicMart payments',
    // What is live, too: by GET all variables of its tab would stand in the address, a card among them.
    method: 'POST',
    defaultEditorToolsVisibility: false,
    defaultTabs: [...payments, ...lookIntoIt(fresh), ...atTheDesk(now)].map((query) => ({ query })),
  }
}
