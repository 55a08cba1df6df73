import { expect, it } from 'vitest'
import { connect } from '../../src/db/connection.ts'
import { cardDataIn, CARDS, leaksInFiles } from '../../proof/soak/cards.ts'
import { whenFileEnds } from '../support/leaving.ts'
import { privateServer } from '../support/private-server.ts'

/** The search for card data finds it where it is, and only there. */

const [{ number, cvv }] = CARDS

it.each([number, number.replaceAll(/\d{4}(?=\d)/g, '$& '), `"cvv":"${cvv}"`, `(1,${cvv},x)`, `cvv ${cvv}`])(
  'finds %s',
  (text) => {
    expect(cardDataIn(`before ${text} after`)).not.toBeNull()
  },
)

it.each([
  `op_019a${cvv}-${cvv}-7000-8000-000000000000`,
  `"${cvv}abcd-0000-4000-8000-000000000000"`,
  `12:00:00.${cvv}+00`,
  '400005665566555',
  number.slice(-4),
])('does not take %s for it', (text) => {
  expect(cardDataIn(text)).toBeNull()
})

it('finds in the files of a server what was never committed', async () => {
  const server = await privateServer()
  const sql = connect(server.url('postgres'), { connectionsMax: 1, statementTimeoutMs: 5_000 })
  whenFileEnds(async () => {
    await sql.end({ timeout: 1 })
    await server.stop()
  })
  await sql`create table kept (input jsonb)`
  await sql`checkpoint`
  expect(await leaksInFiles(server.folder)).toEqual([])
  for (const card of CARDS) {
    const input = sql.json({ cvv: card.cvv })
    await sql`with gone as (insert into kept values (${input}) returning *) select 1 / (count(*) - 1) from gone`.catch(
      () => {},
    )
  }
  await sql`checkpoint`
  expect(await leaksInFiles(server.folder)).toEqual([{ place: server.folder, found: 'every CVV' }])
  await sql`select ${number}::text::int`.catch(() => {})
  expect((await leaksInFiles(server.folder)).map(({ found }) => found)).toContain('a card number')
})
