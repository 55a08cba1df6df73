/** A client of server-sent events, as a browser or a back end reads them. */
export type Stream<Data> = {
  status: number
  /** The next event's data; null when the stream has ended, however. Heartbeats are counted, not given. */
  next: () => Promise<{ data?: Data | null; errors?: { message: string; extensions?: object }[] } | null>
  heartbeats: () => number
  /** `complete`: the server said that nothing more will come. `broken`: the connection ended in the middle. */
  ending: () => 'complete' | 'broken' | null
  close: () => void
}

export async function subscribe<Data>(
  url: string,
  query: string,
  variables: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Promise<Stream<Data>> {
  const closing = new AbortController()
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream', ...headers },
    body: JSON.stringify({ query, variables }),
    signal: closing.signal,
  })
  let heartbeats = 0
  let ending: 'complete' | 'broken' | null = null
  const events = read()
  async function* read() {
    let buffered = ''
    const decoder = new TextDecoder()
    for await (const chunk of untilItBreaks(response.body)) {
      buffered += decoder.decode(chunk, { stream: true })
      for (let end = buffered.indexOf('\n\n'); end >= 0; end = buffered.indexOf('\n\n')) {
        const block = buffered.slice(0, end)
        buffered = buffered.slice(end + 2)
        if (block === ':') heartbeats += 1
        if (block.startsWith('event: complete')) ending = 'complete'
        const [, text] = /^event: next\ndata: (.*)$/s.exec(block) ?? []
        if (text !== undefined) yield JSON.parse(text) as { data?: Data }
      }
    }
  }
  async function* untilItBreaks(body: Response['body']): AsyncGenerator<Uint8Array> {
    try {
      yield* body ?? []
    } catch (error) {
      if (closing.signal.aborted) throw error
    }
    ending ??= 'broken'
  }
  const next: Stream<Data>['next'] = async () => (await events.next()).value ?? null
  return {
    status: response.status,
    next,
    heartbeats: () => heartbeats,
    ending: () => ending,
    close: () => closing.abort(),
  }
}
