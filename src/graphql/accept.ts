import type { Plugin } from 'graphql-yoga'
import { ApiError } from './errors.ts'

/**
 * Yoga looks at the header Accept when all has been carried out, and answers 406, empty, where it cannot serve it: a
 * payment was charged, and nobody was told. So it is looked at here before, as Yoga will read it.
 */
export const onlyWhatCanBeAnswered: Plugin = {
  onRequestParse({ request }) {
    if (!accepts(request, ANSWERS)) throw new ApiError('NOT_ACCEPTABLE', ASK_FOR)
  },
}

const ASK_FOR =
  'Ask for application/graphql-response+json or application/json in the header Accept; for a subscription for text/event-stream. Nothing was done.'

const ANSWERS = [
  'application/graphql-response+json',
  'application/json',
  'text/event-stream',
  'multipart/mixed',
]
export const STREAMS = ['text/event-stream']

export function accepts(request: Request, types: readonly string[]): boolean {
  const asked = (request.headers.get('accept') || '*/*').replaceAll(/\s/g, '').toLowerCase().split(',')
  return asked.some((range) => {
    const [wanted = '', ...parameters] = range.split(';')
    const charset = parameters.find((one) => one.includes('charset='))
    if (charset !== undefined && charset !== 'charset=utf-8') return false
    const [type, subtype] = wanted.split('/')
    return types.some((one) => {
      const [ours, oursSub] = one.split('/')
      return (type === '*' || type === ours) && (subtype === '*' || subtype === oursSub)
    })
  })
}
