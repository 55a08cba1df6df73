import { errors } from 'playwright-core'
import type { Page, Request } from 'playwright-core'
import { describe, expect, it } from 'vitest'
import { startTestBank } from '../support/bank.ts'
import { findChromium, NO_CHROMIUM, openBrowser, openPage, picture } from '../support/browser.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'

/** GraphiQL as a developer meets it: in a browser, from a gateway as users run it, on a network that leads nowhere. */

const executable = await findChromium()
if (executable === null) process.stderr.write(`${NO_CHROMIUM}\n`)

describe.skipIf(executable === null)('GraphiQL in Chromium', async () => {
  if (executable === null) return
  const [database, bank, browser] = await Promise.all([
    testDatabase(),
    startTestBank(),
    openBrowser(executable),
  ])
  const gateway = await spawnGateway({ DATABASE_URL: database.url, BANK_URL: bank.url })
  const open = async () => {
    const watched = await openPage(browser, [gateway.url])
    await watched.page.goto(`${gateway.url}/graphql`)
    return watched
  }

  it(
    'takes a payment by pressing Run, and shows what happens to it as it happens',
    async () => {
      const [desk, watching] = await Promise.all([open(), open()])

      await run(desk.page, 'Authorize')
      const authorized = await answer(desk.page, /"state":\s"AUTHORIZED"/)
      const [id = ''] = /pay_[0-9a-f-]{36}/.exec(authorized) ?? []
      await picture(desk.page, 'graphiql-authorized')

      await run(watching.page, 'Live')
      expect(await answer(watching.page, /"version":\s2/)).toContain(id)

      await show(desk.page, 'Capture')
      await choose(desk.page, 'Capture')
      expect(await answer(desk.page, /"state":\s"CAPTURED"/)).toContain(id)
      await picture(desk.page, 'graphiql-captured')

      expect(await answer(watching.page, /"state":\s"CAPTURED"/)).toContain(id)
      await picture(watching.page, 'graphiql-live')
      const kept = await desk.page.evaluate('JSON.stringify(localStorage)')
      expect(kept).toContain('graphiql')
      expect(kept).not.toMatch(/4111|cvv/)
      expect([...desk.trouble, ...watching.trouble]).toEqual([])
      expect(await bank.transactions()).toMatchObject([{ type: 'AUTHORIZATION' }, { type: 'CAPTURE' }])
    },
    TEST_MS,
  )

  it(
    'has its tabs in sight in a window of 1,280 pixels, each whole',
    async () => {
      const { page } = await open()
      await page.setViewportSize({ width: 1_280, height: 800 })
      await tab(page, 'Webhooks').waitFor()
      await picture(page, 'graphiql-1280')
      const logo = (await page.locator('.graphiql-logo').boundingBox())?.x ?? 0
      expect(logo).toBeGreaterThan(0)
      const tabs = await page.locator('.graphiql-tab').all()
      expect(tabs.length).toBeGreaterThan(5)
      for (const one of [...tabs, page.locator('.graphiql-tab-add')]) {
        const { x = -1, width = 0 } = (await one.boundingBox()) ?? {}
        expect(x).toBeGreaterThan(0)
        expect(x + width).toBeLessThanOrEqual(logo)
      }
      for (const name of await page.locator('.graphiql-tab-button').all()) {
        const [shown, whole] = await name.evaluate((element) => [element.clientWidth, element.scrollWidth])
        expect([await name.innerText(), whole]).toEqual([await name.innerText(), shown])
      }
    },
    TEST_MS,
  )

  it(
    'does nothing with a payment that nobody has authorized there, nor with one that was put in',
    async () => {
      const { page } = await open()
      await show(page, 'Capture')
      await choose(page, 'Void')
      expect(await answer(page, /"InvalidInput"/)).toContain('paymentId')
    },
    TEST_MS,
  )

  it(
    'keeps nothing of a card that is typed, however slowly',
    async () => {
      const { page } = await open()
      const kept = async () => String(await page.evaluate('JSON.stringify(localStorage)'))
      await page.locator('.graphiql-query-editor .view-lines').first().waitFor()
      await page.locator('.graphiql-tab-add').click()
      await page.getByRole('button', { name: 'Variables' }).first().click()
      await page.locator('.graphiql-editor-tool .monaco-editor').first().click()
      await page.keyboard.type('{"card":{"number":"4242 4242 424')
      await expect.poll(kept, { timeout: TEST_MS }).toContain('4242 4242 424')
      await page.keyboard.type('2 4242"')
      await expect.poll(kept, { timeout: TEST_MS }).not.toContain('4242')
    },
    TEST_MS,
  )
})

/** The page has 9 MB, and machines are busy. */
const TEST_MS = 120_000

const tab = (page: Page, name: string) => page.locator('.graphiql-tab-button', { hasText: name })

async function show(page: Page, name: string): Promise<void> {
  await tab(page, name).click()
  const document = new RegExp(`(query|mutation|subscription)\\s${name}\\b`)
  await page.locator('.graphiql-query-editor .view-lines').filter({ hasText: document }).waitFor()
}

async function press(page: Page): Promise<void> {
  await page.getByRole('button', { name: /^Execute query/ }).click()
}

/**
 * For some 100 ms after a tab was chosen GraphiQL still has the operation's name of the one before: who presses then
 * sends nothing, reads "Cannot infer operation", and presses again.
 */
async function run(page: Page, name: string): Promise<void> {
  await show(page, name)
  for (;;) {
    const sent = page
      .waitForRequest((request) => asksFor(request, name), { timeout: SENT_WITHIN_MS })
      .catch((error: unknown) => {
        if (error instanceof errors.TimeoutError) return null
        throw error
      })
    await press(page)
    if ((await sent) !== null) return
  }
}

/** Of several operations in a tab it asks which, or, too soon, says the same as above. */
async function choose(page: Page, name: string): Promise<void> {
  const item = page.getByRole('menuitem', { name })
  for (;;) {
    await press(page)
    const asks = await item.waitFor({ timeout: SENT_WITHIN_MS }).then(
      () => true,
      (error: unknown) => {
        if (error instanceof errors.TimeoutError) return false
        throw error
      },
    )
    if (asks) return await item.click()
  }
}

const SENT_WITHIN_MS = 5_000

function asksFor(request: Request, name: string): boolean {
  return new RegExp(`"operationName":"${name}\\b`).test(request.postData() ?? '')
}

/** What stands on the right, once it fits. */
async function answer(page: Page, fits: RegExp): Promise<string> {
  const lines = page.locator('.graphiql-response .view-lines').filter({ hasText: fits })
  return await lines.innerText()
}
