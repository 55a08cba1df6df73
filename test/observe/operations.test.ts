import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { parser } from '@prometheus-io/lezer-promql'
import { parse as parseGraphql, validate } from 'graphql'
import { describe, expect, it } from 'vitest'
import { parse as parseYaml } from 'yaml'
import { schema } from '../../src/graphql/schema.ts'
import { leastUuidAt } from '../../src/payment/ids.ts'
import { startTestBank } from '../support/bank.ts'
import { captured } from '../support/client.ts'
import { testDatabase } from '../support/database.ts'
import { startTestGateway } from '../support/gateway.ts'
import { scrape } from '../support/metrics.ts'

/** The runbook and the alerts speak of numbers, queries and places that exist. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client, fetch } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const doc = (name: string) => readFile(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
const [runbook, alertsFile] = await Promise.all([doc('operations.md'), doc('alerts.yml')])

/** Of ours, as Prometheus sees them. */
const { text } = await scrape(fetch)
const NAMES = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name))
const OURS = [...NAMES].filter((name) => name.startsWith('gateway_'))
const isKnown = (name: string) => NAMES.has(name) || NAMES.has(name.replace(/_(bucket|sum|count)$/, ''))

describe('the runbook', () => {
  const queries = [...runbook.matchAll(/^( *)```graphql\n([\s\S]*?)^ *```$/gm)].map(
    ([, , query = '']) => query,
  )

  it('has queries that the schema knows', () => {
    expect(queries.length).toBeGreaterThan(8)
    for (const query of queries) expect([query, validate(schema, parseGraphql(query))]).toEqual([query, []])
  })

  it('has queries that answer, once ids are put in', async () => {
    const [orderId, customerId] = [randomUUID(), randomUUID()]
    const payment = await captured(client, { orderId, customerId })
    for (const query of queries) {
      const filled = query
        .replaceAll('pay_...', payment.id)
        .replaceAll('rec_...', `rec_${payment.id.slice(4)}`)
        .replaceAll('evt_...', `evt_${payment.id.slice(4)}_1`)
        .replaceAll('cap_...', payment.captureId ?? '')
        .replaceAll('rec_...', `rec_${leastUuidAt(0)}`)
        .replaceAll('order-...', orderId)
        .replaceAll('customer-...', customerId)
      expect(filled).not.toContain('...'.concat('"'))
      expect([query, (await client.post(filled)).errors]).toEqual([query, undefined])
    }
  })

  it('tells of every number, and of no other', () => {
    const told = new Set([...runbook.matchAll(/\bgateway_\w+/g)].map(([name]) => name))
    expect(OURS.filter((name) => !told.has(name))).toEqual([])
    expect([...told].filter((name) => !isKnown(name))).toEqual([])
  })

  it('has the places that it and the alerts point to', () => {
    const anchors = new Set(
      [...runbook.matchAll(/^##+ (.*)$/gm)].map(([, title = '']) =>
        title
          .toLowerCase()
          .replaceAll(/[^a-z0-9 -]/g, '')
          .replaceAll(' ', '-'),
      ),
    )
    const pointed = [...(runbook + alertsFile).matchAll(/(?:\(|operations\.md)#([\w-]+)/g)].map(
      ([, anchor]) => anchor,
    )
    expect(pointed.length).toBeGreaterThan(20)
    expect(pointed.filter((anchor) => !anchors.has(anchor ?? ''))).toEqual([])
  })

  it('speaks of every alert', () => {
    for (const { alert } of rules()) expect(runbook).toContain(`\`${alert}\``)
  })
})

type Rule = {
  alert: string
  expr: string
  for?: string
  labels: { severity: string }
  annotations: { summary: string; runbook: string }
}
function rules(): Rule[] {
  const { groups } = parseYaml(alertsFile, { strict: true }) as { groups: { rules: Rule[] }[] }
  return groups.flatMap((group) => group.rules)
}

describe('the alerts', () => {
  it.each(rules().map((rule) => [rule.alert, rule] as const))(
    '%s asks for numbers that exist',
    async (_, rule) => {
      const mistakes: string[] = []
      const names: string[] = []
      parser.parse(rule.expr).iterate({
        enter: ({ type, name, from, to }) => {
          if (type.isError) mistakes.push(rule.expr.slice(0, from))
          // `up` and the selector of `job` are Prometheus's own.
          if (name === 'VectorSelector') names.push(rule.expr.slice(from, to).replace(/\{.*/s, ''))
        },
      })
      expect(mistakes).toEqual([])
      expect(names.length).toBeGreaterThan(0)
      for (const name of names.filter((name) => name !== 'up' && !name.startsWith('nodejs_'))) {
        expect([name, isKnown(name)]).toEqual([name, true])
      }
      expect(rule).toMatchObject({
        labels: { severity: expect.stringMatching(/^(page|ticket)$/) as string },
        annotations: {
          summary: expect.any(String) as string,
          runbook: expect.stringMatching(/^docs\//) as string,
        },
      })
      if (rule.for !== undefined) expect(rule.for).toMatch(/^\d+[mh]$/)
    },
  )

  it('are each of another name', () => {
    const names = rules().map(({ alert }) => alert)
    expect(new Set(names).size).toBe(names.length)
  })
})
