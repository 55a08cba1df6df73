import type { Fetch } from './client.ts'

/** A scrape, as Prometheus reads it: the value of each series by its name and labels, and the text. */
export async function scrape(
  send: Fetch,
): Promise<{ text: string; value: (series: string) => number | undefined }> {
  const response = await send('http://gateway/metrics', { method: 'GET' })
  if (response.status !== 200) throw new Error(`HTTP ${response.status}`)
  const text = await response.text()
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  const values = new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]),
  )
  return { text, value: (series) => values.get(series) }
}
