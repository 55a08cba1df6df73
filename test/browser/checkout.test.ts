import type { Page } from 'playwright-core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startShop } from '../../examples/checkout/shop.ts'
import { startTestBank } from '../support/bank.ts'
import { findChromium, NO_CHROMIUM, openBrowser, openPage, picture } from '../support/browser.ts'
import type { Watched } from '../support/browser.ts'
import { testDatabase } from '../support/database.ts'
import { spawnGateway } from '../support/gateway.ts'
import type { GatewayProcess } from '../support/gateway-process.ts'
import { whenFileEnds } from '../support/leaving.ts'

/** The checkout page of the examples as a customer meets it: in a browser, with a token for one order. */

const executable = await findChromium()
if (executable === null) process.stderr.write(`${NO_CHROMIUM}\n`)

const GOOD = { number: '4111 1111 1111 1111', expiry: '12/30', cvv: '123' }
const EMPTY = { number: '5555555555554444', expiry: '9/2030', cvv: '789' }
const PAID = 'Thank you: your order is paid (visa ending in 1111).'
const DO_NOT_PAY_AGAIN = /Please do not pay again/

describe.skipIf(executable === null)(
  'the checkout page in Chromium',
  async () => {
    if (executable === null) return
    const [database, bank, browser] = await Promise.all([
      testDatabase(),
      startTestBank(),
      openBrowser(executable),
    ])
    const token = {
      secret: 'a secret of this test, long enough',
      issuer: 'https://login.ficmart.example',
      audience: 'payments',
    }
    let gateway: GatewayProcess | null = null
    const shop = await startShop({ port: 0, gatewayUrl: () => `${gateway?.url}/graphql`, token })
    whenFileEnds(shop.close)
    gateway = await spawnGateway({
      DATABASE_URL: database.url,
      BANK_URL: bank.url,
      CUSTOMER_JWT_SECRET: token.secret,
      CUSTOMER_JWT_ISSUER: token.issuer,
      CUSTOMER_JWT_AUDIENCE: token.audience,
      CORS_ORIGINS: shop.url,
      CUSTOMER_REQUESTS_PER_MINUTE_MAX: '1000',
      REQUEST_DEADLINE_MS: '1000',
      BANK_ATTEMPT_TIMEOUT_MS: '5000',
      BANK_QUIET_PERIOD_MS: '200',
      SWEEP_EVERY_MS: '50',
    })
    const origins = [shop.url, gateway.url]

    let customer: Watched
    let page: Page
    beforeEach(async () => {
      customer = await openPage(browser, origins)
      page = customer.page
      await page.goto(shop.url)
    })
    /** Whatever happened on it: the card went to the gateway and nowhere else, and nothing was amiss. */
    afterEach(async () => {
      await leave(customer)
    })

    const fill = async ({ number, expiry, cvv }: typeof GOOD) => {
      await page.getByLabel('Card number').fill(number)
      await page.getByLabel('Good until (MM/YY)').fill(expiry)
      await page.getByLabel('Security code').fill(cvv)
    }
    const pay = async (card = GOOD) => {
      await fill(card)
      await page.getByRole('button', { name: 'Pay' }).click()
    }
    const told = async (text: string | RegExp) =>
      await page.getByRole('status').filter({ hasText: text }).waitFor()
    const orderId = () => new URL(page.url()).pathname.split('/')[2] ?? ''
    const receipts = async () => [
      ...(await database.sql<{ state: string }[]>`
      select state, (select count(*)::int from operations o where o.payment_id = p.id) as operations
      from payments p where order_id = ${orderId()} order by id`),
    ]
    const holds = async () => (await bank.transactions('AUTHORIZATION')).length

    it('pays an order, once, and says so again after a reload', async () => {
      const before = await holds()
      await page.getByText('$49.99').waitFor()
      await picture(page, 'checkout-form')
      await pay()
      await told(PAID)
      await picture(page, 'checkout-paid')
      expect(await page.getByRole('button').count()).toBe(0)
      await page.reload()
      await told(PAID)
      expect(await receipts()).toEqual([{ state: 'AUTHORIZED', operations: 1 }])
      expect(await holds()).toBe(before + 1)
    })

    it('says what to do about a declined card, and takes another', async () => {
      await pay(EMPTY)
      await told('the card does not cover it. Nothing was charged. Please use another card.')
      await picture(page, 'checkout-declined')
      expect(await page.getByLabel('Security code').inputValue()).toBe('')
      await pay()
      await told(PAID)
      expect((await receipts()).map(({ state }) => state)).toEqual(['DECLINED', 'AUTHORIZED'])
    })

    it('points at the field that is not right', async () => {
      await pay({ ...GOOD, number: '4111 1111 1111 1112' })
      await told('Something is not right with the card details. Nothing was charged.')
      await picture(page, 'checkout-typo')
      expect(await page.locator('#number-trouble').innerText()).toBe('Please check this.')
      expect(await receipts()).toEqual([])
    })

    it('ends in paid once when the bank did it and its answer was lost', async () => {
      const before = await holds()
      bank.faults.add('drop-after-store', { endpoint: 'authorizations' })
      await pay()
      await told(PAID)
      expect(await receipts()).toEqual([{ state: 'AUTHORIZED', operations: 1 }])
      expect(await holds()).toBe(before + 1)
    })

    it("ends in paid once when the gateway's answer was lost", async () => {
      let losses = 0
      await page.route('**/graphql', async (route) => {
        const isPayment = route.request().postData()?.includes('authorizePayment') === true
        if (!isPayment || losses > 0) return await route.continue()
        losses += 1
        await route.fetch()
        await route.abort('connectionreset')
      })
      await pay()
      await told(PAID)
      expect(losses).toBe(1)
      expect(await receipts()).toEqual([{ state: 'AUTHORIZED', operations: 1 }])
      // The browser's own word for what the test did.
      customer.trouble = customer.trouble.filter((one) => !one.includes('net::ERR_CONNECTION_RESET'))
    })

    it('asks not to pay again while the outcome is unknown, also after a reload, and tells it when it comes', async () => {
      const before = await holds()
      const gate = bank.faults.hold('after-store', { endpoint: 'authorizations', probe: false })
      await pay()
      await told(DO_NOT_PAY_AGAIN)
      await picture(page, 'checkout-checking')
      expect(await page.getByRole('button').count()).toBe(0)
      await page.reload()
      await told(DO_NOT_PAY_AGAIN)
      expect(await page.getByRole('button').count()).toBe(0)
      gate.open()
      await told(PAID)
      expect(await receipts()).toEqual([{ state: 'AUTHORIZED', operations: 1 }])
      expect(await holds()).toBe(before + 1)
    })

    it('tries again by itself what the bank certainly did not do', async () => {
      bank.faults.add('chaos', { endpoint: 'authorizations', times: 4 })
      await pay()
      await told(PAID)
      expect((await receipts()).map(({ state }) => state)).toEqual(['FAILED', 'AUTHORIZED'])
    })

    it('pays once from two pages at one time', async () => {
      const before = await holds()
      const gate = bank.faults.hold('before', { endpoint: 'authorizations', probe: false })
      await pay()
      await gate.arrived
      const other = await page.context().newPage()
      await other.goto(page.url())
      await other.getByRole('status').filter({ hasText: DO_NOT_PAY_AGAIN }).waitFor()
      gate.open()
      await told(PAID)
      await other.getByRole('status').filter({ hasText: PAID }).waitFor()
      expect(await holds()).toBe(before + 1)
    })
  },
  60_000,
)

async function leave({ page, trouble, seen }: Watched): Promise<void> {
  const kept = await page.evaluate(() => [
    JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage)]),
    document.cookie,
    location.href,
  ])
  await page.context().close()
  const everywhere = [...seen, ...kept].join('\n').replaceAll(/[ -]/g, '')
  const cards = [GOOD, EMPTY].map(({ number }) => number.replaceAll(' ', ''))
  expect(cards.filter((number) => everywhere.includes(number))).toEqual([])
  expect(kept.slice(0, 2)).toEqual(['[[],[]]', ''])
  expect(trouble).toEqual([])
}
