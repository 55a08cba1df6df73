import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
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
import { temporaryFolder } from '../support/temporary.ts'

/** The runbook and the alerts speak of numbers, queries and places that exist. */

const [database, bank] = await Promise.all([testDatabase(), startTestBank()])
const { client, fetch } = startTestGateway({ databaseUrl: database.url, bankUrl: bank.url })
const doc = (name: string) => readFile(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
const [runbook, alertsFile] = await Promise.all([doc('operations.md'), doc('alerts.yml')])

const promtool = spawnSync('promtool', ['--version']).status === 0 ? 'promtool' : null
if (promtool === null)
  process.stderr.write(
    'SKIPPED: there is no promtool (apt-get install prometheus): the alerts were not read by Prometheus itself.\n',
  )

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
  annotations: { summary: string; runbook_url: string }
}
function rules(): Rule[] {
  const { groups } = parseYaml(alertsFile, { strict: true }) as { groups: { rules: Rule[] }[] }
  return groups.flatMap((group) => group.rules)
}

/** The selectors of an expression, and what is no PromQL in it. */
function read(expr: string): { selectors: string[]; mistakes: string[] } {
  const [selectors, mistakes]: [string[], string[]] = [[], []]
  parser.parse(expr).iterate({
    enter: ({ type, name, from, to }) => {
      if (type.isError) mistakes.push(expr.slice(0, from))
      if (name === 'VectorSelector') selectors.push(expr.slice(from, to))
    },
  })
  return { selectors, mistakes }
}
/** Those of Prometheus itself, and of a process: they are there once main.ts watches it (traces.test.ts). */
const isOfOthers = (name: string) => name === 'up' || /^(nodejs|process)_/.test(name)
const nameIn = (selector: string) => selector.replace(/\{.*/s, '')

/** Of a gateway that has done nothing yet. */
const SERIES = text
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [, name = '', labels = ''] = /^(\w+)(?:\{(.*)\})? /.exec(line) ?? []
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(
      ([, label = '', is = '']) => [label, is] as const,
    )
    return { name, labels: new Map(pairs) }
  })
function isThere(selector: string): boolean {
  const matchers = [...selector.matchAll(/(\w+)(=~|!=|=)"([^"]*)"/g)].map(
    ([, label = '', how = '', is = '']) =>
      (labels: ReadonlyMap<string, string>) => {
        const value = labels.get(label) ?? ''
        return how === '=~' ? new RegExp(`^(?:${is})$`).test(value) : (value === is) === (how === '=')
      },
  )
  return SERIES.some(
    ({ name, labels }) => name === nameIn(selector) && matchers.every((fits) => fits(labels)),
  )
}

describe('the alerts', () => {
  it.each(rules().map((rule) => [rule.alert, rule] as const))(
    '%s asks for numbers that exist',
    async (_, rule) => {
      const { selectors, mistakes } = read(rule.expr)
      expect(mistakes).toEqual([])
      expect(selectors.length).toBeGreaterThan(0)
      for (const selector of selectors.filter((one) => !isOfOthers(nameIn(one)))) {
        expect([selector, isKnown(nameIn(selector))]).toEqual([selector, true])
        // Before it happens: what appears with its first count has not grown.
        expect([selector, isThere(selector)]).toEqual([selector, true])
      }
      expect(rule).toMatchObject({
        labels: { severity: expect.stringMatching(/^(page|ticket)$/) as string },
        annotations: {
          summary: expect.any(String) as string,
          runbook_url: expect.stringMatching(/^docs\/operations\.md#/) as string,
        },
      })
      if (rule.for !== undefined) expect(rule.for).toMatch(/^\d+[mh]$/)
    },
  )

  it('are each of another name', () => {
    const names = rules().map(({ alert }) => alert)
    expect(new Set(names).size).toBe(names.length)
  })

  it.skipIf(promtool === null)('are rules that Prometheus takes', () => {
    const { stdout, stderr, status } = spawnSync(
      promtool ?? '',
      ['check', 'rules', fileURLToPath(new URL('../../docs/alerts.yml', import.meta.url))],
      { encoding: 'utf8' },
    )
    expect({ said: stdout + stderr, status }).toEqual({
      said: expect.stringContaining(`SUCCESS: ${rules().length} rules found`) as string,
      status: 0,
    })
  })
})

describe('the dashboard', async () => {
  type Panel = {
    id: number
    type: string
    title: string
    targets?: { expr: string; datasource: { uid: string } }[]
  }
  const { panels, templating } = JSON.parse(await doc('dashboard.json')) as {
    panels: Panel[]
    templating: { list: { name: string; type: string }[] }
  }
  const shown = panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const))

  it.each(shown)('%s asks for numbers that exist: %s', (_, expr) => {
    const { selectors, mistakes } = read(expr.replaceAll('$__rate_interval', '5m'))
    expect(mistakes).toEqual([])
    expect(selectors.length).toBeGreaterThan(0)
    for (const selector of selectors.filter((one) => !isOfOthers(nameIn(one))))
      expect([selector, isKnown(nameIn(selector))]).toEqual([selector, true])
  })

  it('shows every number of ours', () => {
    const names = new Set(
      shown.flatMap(([, expr]) =>
        read(expr.replaceAll('$__rate_interval', '5m')).selectors.map((one) =>
          nameIn(one).replace(/_(bucket|sum|count)$/, ''),
        ),
      ),
    )
    expect(OURS.filter((name) => !names.has(name))).toEqual([])
  })

  it('is whole: each panel has an id of its own and something to show, from whichever Prometheus is chosen', () => {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
    expect(templating.list).toMatchObject([{ name: 'datasource', type: 'datasource' }])
    for (const { type, title, targets = [] } of panels) {
      expect([title, targets.length > 0]).toEqual([title, type !== 'row'])
      for (const { datasource } of targets) expect(datasource.uid).toBe('${datasource}')
    }
  })

  it('is what the compose file gives to Grafana, and the alerts to Prometheus', async () => {
    const compose = parseYaml(await readFile(new URL('../../docker-compose.yml', import.meta.url), 'utf8'), {
      strict: true,
    }) as {
      services: Record<string, { profiles?: string[]; volumes?: string[]; configs?: { source: string }[] }>
      configs: Record<string, { content: string }>
    }
    const { prometheus, grafana } = compose.services
    expect(prometheus).toMatchObject({ profiles: ['observe'] })
    expect(grafana).toMatchObject({ profiles: ['observe'] })
    const files = [...(prometheus?.volumes ?? []), ...(grafana?.volumes ?? [])].filter((one) =>
      one.startsWith('.'),
    )
    expect(files.map((one) => one.split(':')[0])).toEqual(['./docs/alerts.yml', './docs/dashboard.json'])
    if (promtool !== null) {
      const folder = await temporaryFolder('prometheus-')
      await writeFile(join(folder, 'alerts.yml'), alertsFile)
      await writeFile(join(folder, 'prometheus.yml'), compose.configs['prometheus']?.content ?? '')
      const { stdout, stderr, status } = spawnSync(
        promtool,
        ['check', 'config', join(folder, 'prometheus.yml')],
        {
          encoding: 'utf8',
        },
      )
      expect([stdout + stderr, status]).toEqual([expect.stringContaining('SUCCESS'), 0])
    }
    for (const { source } of [...(prometheus?.configs ?? []), ...(grafana?.configs ?? [])])
      expect(parseYaml(compose.configs[source]?.content ?? '', { strict: true })).toEqual(expect.any(Object))
  })
})
