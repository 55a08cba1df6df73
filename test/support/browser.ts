import { access } from 'node:fs/promises'
import { chromium } from 'playwright-core'
import type { Browser, Page } from 'playwright-core'
import { whenFileEnds } from './leaving.ts'

/** Chromium as it is installed, at CHROMIUM or where systems put it; null when there is none. */
export async function findChromium(): Promise<string | null> {
  const places = [
    process.env['CHROMIUM'] ?? '',
    '/usr/bin/chromium',
    '/usr/bin/chromium-browser',
    '/usr/bin/google-chrome',
  ]
  for (const place of places.filter((path) => path !== '')) {
    if (
      await access(place).then(
        () => true,
        () => false,
      )
    )
      return place
  }
  return null
}

export const NO_CHROMIUM =
  'SKIPPED: no Chromium is installed (apt-get install chromium, or set CHROMIUM to its path): GraphiQL and the checkout page were not tried in a browser.'

export async function openBrowser(executablePath: string): Promise<Browser> {
  const browser = await chromium.launch({ executablePath, args: ALONE })
  whenFileEnds(() => browser.close())
  return browser
}

/** Nothing of its own goes over the network. */
const ALONE = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** Pages of megabytes on busy machines. */
const PATIENCE_MS = 60_000

export type Watched = {
  page: Page
  /** What must stay empty: requests to elsewhere than `origins`, what the console was told of, what was thrown. */
  trouble: string[]
  /** Every URL that was asked for, and everything that was said on the console. */
  seen: string[]
}

/** A page in a context of its own, watched from its first request on. */
export async function openPage(browser: Browser, origins: readonly string[]): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width: 1600, height: 1000 } })
  context.setDefaultTimeout(PATIENCE_MS)
  const page = await context.newPage()
  const trouble: string[] = []
  const seen: string[] = []
  context.on('request', (request) => {
    const url = request.url()
    seen.push(url)
    const { protocol, origin } = new URL(url)
    if (protocol.startsWith('http') && !origins.includes(origin)) trouble.push(`request to ${url}`)
  })
  context.on('console', (message) => {
    seen.push(message.text())
    if (message.type() === 'error' || message.type() === 'warning') {
      trouble.push(`${message.type()} ${message.text()} (${message.location().url.slice(0, 200)})`)
    }
  })
  context.on('weberror', (error) => trouble.push(`thrown ${String(error.error())}`))
  return { page, trouble, seen }
}

/** To be looked at by people: kept where SCREENSHOTS says, else not made. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env['SCREENSHOTS']
  if (folder !== undefined) await page.screenshot({ path: `${folder}/${name}.png` })
}
