import { expect, it } from 'vitest'
import { startTestBank } from './support/bank.ts'
const bank = await startTestBank()
it('smoke', async () => {
  const post = (path: string, key: string, body: unknown) =>
    fetch(`${bank.url}/api/v1/${path}`, {
      method: 'POST',
      headers: { 'idempotency-key': key },
      body: body === '' ? '' : JSON.stringify(body),
    }).then(async (r) => [r.status, r.headers.get('x-idempotent-replayed'), await r.text()])
  console.log(
    await post('authorizations', 'k', {
      card_number: '4111111111111111',
      cvv: '123',
      expiry_month: 12,
      expiry_year: 2030,
      amount: 100,
    }),
    await post('authorizations', 'k', ''),
    await post('authorizations', 'k2', ''),
  )
  console.log(await bank.transactions(), await bank.account(), bank.received)
  expect(1).toBe(1)
})
