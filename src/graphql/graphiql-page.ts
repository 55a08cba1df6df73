import type { FetchAPI } from 'graphql-yoga'
import type { Who, WhoAsks } from '../access/who.ts'
import type { Page } from './beside.ts'
import { MAY_HOLD_CARD } from './card-in-document.ts'
import { graphiqlOptions } from './graphiql.ts'

/**
 * GraphiQL, for `dev` and operators. A browser asks them for a name (any) and a password (their API key), and sends both
 * by itself with what they run: no key is typed into the page, which would keep it. What a browser sends by itself other
 * sites may make it send; they cannot send JSON, and nothing else is read (see server.ts).
 */
export function graphiqlPage(whoAsks: WhoAsks): Page {
  return (request, fetchAPI) => {
    const isPage = request.method === 'GET' && (request.headers.get('accept') ?? '').includes('text/html')
    return isPage ? answer(request, whoAsks, fetchAPI) : null
  }
}

async function answer(request: Request, whoAsks: WhoAsks, { Response }: FetchAPI): Promise<Response> {
  const who = await whoAsks(request)
  if ('role' in who && (who.role === 'ops' || who.role === 'dev'))
    return new Response(await page(who), { headers: HTML })
  const status = 'refused' in who && who.refused === 'UNAVAILABLE' ? 503 : 401
  return new Response(FOR_OPERATORS, { status, headers: { ...PLAIN, ...ASK_FOR_KEY } })
}

async function page({ role }: Who): Promise<string> {
  // 9 MB: not before somebody looks.
  const { renderGraphiQL } = await import('@graphql-yoga/render-graphiql')
  const html = renderGraphiQL(graphiqlOptions(role)).replace('<head>', () => `<head>${FORGETFUL}${MINDFUL}`)
  return `${html}\n${STYLE}\n`
}

/**
 * It keeps what stands in its tabs in the browser's storage, for good: not what may hold a card, nor what stood there
 * when the first of its digits were typed.
 */
const FORGETFUL = `<script>
  {
    const keep = Storage.prototype.setItem
    Storage.prototype.setItem = function (key, text) {
      if (${String(MAY_HOLD_CARD)}.test(text)) this.removeItem(key)
      else keep.call(this, key, text)
    }
  }
</script>`

/**
 * The payment that was authorized last in this window is the one that is captured, voided or refunded there: in the
 * document that does so `pay_...` is sent as its id. Nowhere else: what an operator decides they say by themselves.
 */
const MINDFUL = `<script>
  {
    const send = globalThis.fetch
    const PLACE = 'pay_...'
    let authorized = PLACE
    const remember = ({ data }) => {
      for (const answer of Object.values(data ?? {}))
        if (answer?.__typename === 'AuthorizePaymentSuccess') authorized = (answer.currentPayment ?? answer.payment)?.id ?? authorized
    }
    globalThis.fetch = async (to, init) => {
      const { body } = init ?? {}
      const text = typeof body === 'string' ? body : ''
      const isDone = /(capture|void|refund)Payment[(]/.test(text)
      const filled = isDone ? text.replaceAll(PLACE, authorized) : text
      const response = await send(to, filled === text ? init : { ...init, body: filled })
      if (text.includes('authorizePayment(')) response.clone().json().then(remember, () => {})
      return response
    }
  }
</script>`

/**
 * Its default tabs keep the offset that they were animated from, hidden until they have the focus: under the mouse that
 * presses one it leaps 750 pixels aside, and the click goes to nothing (seen in Chromium 156). Its title breaks where
 * there are many of them.
 */
const STYLE =
  '<style>.graphiql-tab { transform: none !important } .graphiql-logo { white-space: nowrap }</style>'

const FOR_OPERATORS = 'GraphiQL is for operators: any name, and their API key as the password.\n'
const PLAIN = { 'content-type': 'text/plain; charset=utf-8' }
const ASK_FOR_KEY = {
  'www-authenticate': 'Basic realm="FicMart payment gateway, operators", charset="UTF-8"',
}
/** The browser itself sees to it that the page loads nothing from elsewhere, and sends nothing there. */
const HTML = {
  'content-type': 'text/html; charset=utf-8',
  'cache-control': 'no-store',
  'content-security-policy':
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
