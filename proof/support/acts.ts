import type { Answered, Client } from '../../test/support/client.ts'

export type Act = 'rerunRecovery' | 'enterBankReference' | 'closeReview'

/** What an operator does, by the API. */
export async function actOf(by: Client, act: Act, input: object): Promise<Answered> {
  const type = `${act.charAt(0).toUpperCase()}${act.slice(1)}Input`
  const { result } = await by.query<{ result: Answered }>(
    `mutation ($input: ${type}!) { result: ${act}(input: $input) {
      __typename ... on PaymentProblem { code message retry retryAfterMs } } }`,
    { input },
  )
  return result
}
