import { isPassing } from '../db/persist.ts'
import type { Gateway } from '../gateway.ts'
import { webhooksSent } from '../observe/metrics.ts'
import { inSpan } from '../observe/span.ts'
import { eventId } from '../payment/ids.ts'
import { createBell } from './bell.ts'
import { claimDue, recording, settleDelivery, switchRecording } from './deliveries.ts'
import type { Claimed } from './deliveries.ts'
import { createReceiver } from './receiver.ts'
import type { Receiver } from './receiver.ts'

/**
 * FicMart's back end is told of every transition: at least once, in order per payment, for three days. Each process
 * sends what is due: it claims a few with a lease, sends each, and writes what came of it; no lock and no connection to
 * the database is held while the receiver thinks. A process that dies in between leaves a lease that runs out, and the
 * event is sent again under the same id. One that fails holds up its own payment's next ones and nothing else.
 */
export function startWebhooks(
  gateway: Gateway,
  webhook: WebhookSetting,
  lookEveryMs = LOOK_EVERY_MS,
): { stop(): Promise<void> } {
  if (webhook === null || webhook === 'off') return { stop: () => Promise.resolve() }
  const receiver = createReceiver(webhook)
  const sending = startSending(gateway, receiver)
  const look = setInterval(() => void sayWhenSwitchedOff(gateway), lookEveryMs).unref()
  return {
    stop: async () => {
      clearInterval(look)
      await sending.stop()
      await receiver.close()
    },
  }
}

/** Where to, and with which secrets; null: not sent from here; off: not recorded any more either. */
export type WebhookSetting = { url: string; secrets: readonly string[] } | 'off' | null

/**
 * The first start with a receiver switches recording on, for all processes of the database. A start without one leaves
 * it on: what happens meanwhile is told later. Only a word switches it off. It may have to wait for the table, so it
 * comes before the port is open.
 */
export async function recordAsConfigured(gateway: Gateway, webhook: WebhookSetting): Promise<void> {
  const { isOn, waiting } = await recording(gateway)
  if (webhook === null) {
    if (isOn) gateway.log.warn({ waiting }, NOT_SENT_FROM_HERE)
    return
  }
  const on = webhook !== 'off'
  if (on === isOn) return
  await switchRecording(gateway, on)
  gateway.log.info(on ? 'transitions are recorded for delivery from now on' : NOT_RECORDED)
}

/** It is for all processes: one whose setting is wrong would end the others' events, and nobody would know. */
async function sayWhenSwitchedOff(gateway: Gateway): Promise<void> {
  // A database that does not answer is told of elsewhere.
  const found = await recording(gateway).catch(() => null)
  if (found?.isOn === false) gateway.log.error(SWITCHED_OFF)
}

const LOOK_EVERY_MS = 60_000
const SWITCHED_OFF =
  'webhooks were switched off by a process with WEBHOOK_URL=off: what happens is not recorded for delivery. This process has a receiver: if it was a mistake, correct that setting and restart this process, which switches them on again.'
const NOT_SENT_FROM_HERE =
  'Webhooks are on in this database, but this process has no WEBHOOK_URL: it records events and sends none. WEBHOOK_URL=off switches them off.'
const NOT_RECORDED = 'webhooks are switched off: what happens from now on is not recorded for delivery'

export function startSending(gateway: Gateway, receiver: Receiver): { stop(): Promise<void> } {
  const bell = createBell()
  const underWay = new Set<Promise<void>>()
  const stopping = new AbortController()
  gateway.changes.on('payment', bell.ring)

  const done = (async () => {
    while (!stopping.signal.aborted) {
      for (const delivery of await claimSome(gateway, IN_FLIGHT_MAX - underWay.size)) {
        const work = deliver(gateway, receiver, delivery).finally(() => {
          // Its place is free, and the payment's next one may be due.
          underWay.delete(work)
          bell.ring()
        })
        underWay.add(work)
      }
      // Half to one and a half: processes that started together do not look together.
      await bell.wait(POLL_MS * (0.5 + gateway.random()))
      if (!stopping.signal.aborted) await gateway.clock.sleep(ROUND_LEAST_MS)
    }
  })()
  return {
    stop: async () => {
      stopping.abort()
      gateway.changes.off('payment', bell.ring)
      bell.ring()
      await done
      await Promise.all(underWay)
    },
  }
}

/** So many may hang at once before others wait; a receiver that answers in 20 ms gets 1,600 a second. */
const IN_FLIGHT_MAX = 32
const POLL_MS = 1_000
/** Rings that come together are one look. */
const ROUND_LEAST_MS = 10

/** One round; resolves when all that was due has been sent once, or has failed. Never rejects. */
export async function sendDue(gateway: Gateway, receiver: Receiver): Promise<number> {
  const claimed = await claimSome(gateway, IN_FLIGHT_MAX)
  await Promise.all(claimed.map((delivery) => deliver(gateway, receiver, delivery)))
  return claimed.length
}

async function claimSome(gateway: Gateway, atMost: number): Promise<Claimed[]> {
  if (atMost <= 0) return []
  try {
    return await claimDue(gateway, atMost)
  } catch (error) {
    if (isPassing(error))
      gateway.log.warn({ err: error }, 'the database does not answer; looking for webhooks again later')
    else gateway.log.error({ err: error }, 'cannot look for webhooks that are due')
    return []
  }
}

async function deliver(gateway: Gateway, receiver: Receiver, delivery: Claimed): Promise<void> {
  const webhook = eventId(delivery.paymentId, delivery.version)
  await inSpan('webhook', { payment: `pay_${delivery.paymentId}` }, async () => {
    const outcome = await receiver.send(delivery)
    const status = await settleDelivery(gateway, delivery, outcome)
    const result = outcome.delivered ? 'delivered' : status === 'GIVEN_UP' ? 'given_up' : 'failed'
    webhooksSent.inc({ result })
    const line = { webhook, attempt: delivery.attempts, ...outcome }
    if (result === 'given_up') gateway.log.error(line, 'webhook given up after three days')
    // A receiver that is down fails thousands: one line when it begins, one when it ends.
    else if (outcome.delivered === receiver.isWell) gateway.log.debug(line, 'webhook sent')
    else if (outcome.delivered) gateway.log.info(line, 'the receiver takes webhooks again')
    else gateway.log.warn(line, 'the receiver does not take webhooks; each is sent again later')
    receiver.isWell = outcome.delivered
  }).catch((error: unknown) => {
    // Its lease runs out, and it is sent again under the same id.
    gateway.log.warn({ err: error, webhook }, 'could not record what came of a webhook; it is sent again')
  })
}
