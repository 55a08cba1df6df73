import { describe, expect, it } from 'vitest'
import type { Page } from 'playwright-core'
import { startTestBank } from '../support/bank.ts'
import { findChromium, NO_CHROMIUM, openBrowser, openPage } from '../support/browser.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'

/** GraphiQL as a developer meets it: in a browser, from a gateway as users run it, on a network that leads nowhere. */

const chromium = await findChromium()
if (chromium === null) process.stderr.write(`${NO_CHROMIUM}\n`)

describe.skipIf(chromium === null)('GraphiQL in Chromium', async () => {
  if (chromium === null) return
  const [database, bank, browser] = await Promise.all([
    testDatabase(),
    startTestBank(),
    openBrowser(chromium),
  ])
  const gateway = await spawnGateway({ DATABASE_URL: database.url, BANK_URL: bank.url })

  it('authorizes and captures by pressing Run, and shows it live', async () => {
    const { page, trouble } = await openPage(browser, [gateway.url])
    await page.goto(`${gateway.url}/graphql`)
    await run(page, 'Authorize')
    const paymentId = await answered(page, /"state": "AUTHORIZED"/).then(
      (text) => /pay_[0-9a-f-]{36}/.exec(text)?.[0],
    )
    expect(paymentId).toBeDefined()
    await picture(page, 'graphiql-authorized')
    expect(trouble).toEqual([])
  })
})
async function picture(page: Page, name: string) {
  const folder = process.env['SCREENSHOTS']
  if (folder !== undefined) await page.screenshot({ path: `${folder}/${name}.png` })
}
async function run(page: Page, tab: string) {
  await page.getByRole('tab', { name: tab }).click()
  await page.getByRole('button', { name: /execute query/i }).click()
}
async function answered(page: Page, fits: RegExp) {
  const answer = page.locator('.graphiql-response .view-lines')
  await answer.filter({ hasText: fits }).waitFor()
  return await answer.innerText()
}
