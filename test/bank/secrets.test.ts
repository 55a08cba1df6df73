import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { CARD, REQUESTS, clientOf, done, httpBank, plain, refusal, rawBank } from './scripted-bank.ts'

/** The card leaves for the bank and for nowhere else, also when the bank repeats it and when everything fails. */

const shown = (...values: unknown[]) =>
  inspect(values, { depth: null, showHidden: true, getters: true, maxStringLength: null }) +
  JSON.stringify(values)
const SECRET = new RegExp(`${CARD.number}|\\b${CARD.cvv}\\b`)

const echo = `${CARD.number} ${CARD.cvv}`
test.each([
  ['a refusal that repeats it', refusal(400, 'invalid_card', echo)],
  ['a code that repeats it', refusal(400, echo, echo)],
  ['a decode error that repeats it', plain(`cannot decode ${echo}`)],
  ['a 500 that repeats it', { status: 500, type: 'text/html', body: echo }],
  ['a 200 that repeats it', { body: JSON.stringify({ card: CARD }) }],
  ['a 200 with another amount that repeats it', done('authorizations', { amount: 1, card: CARD })],
  ['a redirect that repeats it', { status: 301, headers: { location: `/${CARD.number}/${CARD.cvv}` } }],
])('%s', async (_what, scripted) => {
  const { url } = await httpBank((request, response) => {
    request.resume()
    const isHealth = request.url === '/health'
    response.writeHead(isHealth ? 200 : (scripted.status ?? 200), {
      'content-type': scripted.type ?? 'application/json',
      ...scripted.headers,
    })
    response.end(isHealth ? '{"status":"healthy"}' : scripted.body)
  })
  const { bank, logged } = clientOf(url)
  const said = [
    await bank.send('op_1', REQUESTS.authorizations),
    await bank.probe('op_1', REQUESTS.authorizations),
    await bank.look('authorizations', 'auth_1'),
  ]
  expect(shown(said, logged, bank)).not.toMatch(SECRET)
})

test('a connection that breaks', async () => {
  const { url, requests } = await rawBank((socket) => socket.resetAndDestroy())
  const { bank, logged } = clientOf(url)
  const said = await bank.send('op_1', REQUESTS.authorizations)
  expect(shown(said, logged, bank, REQUESTS.authorizations)).not.toMatch(SECRET)
  expect(requests[0]).toContain(CARD.number)
})
