import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Answer } from '../../src/bank/bank.ts'
import { OPERATION_DEFAULTS } from '../../src/config.ts'
import { decide } from '../../src/operation/decide.ts'
import type { Step } from '../../src/operation/decide.ts'
import { noEvidence, weigh } from '../../src/operation/evidence.ts'
import type { Evidence } from '../../src/operation/evidence.ts'
import type { OperationKind } from '../../src/payment/payment.ts'

/** What the bank says, in the order it says it; `quietAfter` is how many answers in the quiet period has passed. */
type Told = {
  resumed?: boolean
  quietAfter?: number
  replayable?: boolean
  draining?: boolean
  vainTries?: number
  isHistoryLost?: boolean
  /** Claimed as a probe, since the bank may know it from before receipts were lost. */
  probedFirst?: boolean
  answers: Answer[]
}

/** Plays a run: each step that decide wants gets the next answer. Returns the steps, the last being what it settles. */
function play(kind: OperationKind, told: Told): { steps: Step[]; asked: string[] } {
  const { resumed = false, quietAfter = Infinity, replayable = true, draining = false, vainTries = 0 } = told
  const { isHistoryLost = false, probedFirst = false } = told
  const own = { ambiguous: resumed, isHistoryLost, wasSent: !probedFirst, canSend: !resumed }
  let evidence: Omit<Evidence, 'asked' | 'last'> = { ...noEvidence(kind), ...own }
  let step: Step =
    resumed || probedFirst ? { do: 'PROBE', afterMs: 0 } : { do: 'SEND', afterMs: 0, confirm: false }
  const steps: Step[] = []
  const asked: string[] = []
  for (const [index, answer] of told.answers.entries()) {
    if (step.do === 'SETTLE') break
    asked.push(step.do)
    const quiet: boolean = !evidence.ambiguous || index >= quietAfter
    const claim = { ambiguous: evidence.ambiguous, quiet, replayable, maySend: !draining, vainTries }
    const weighed: Evidence = weigh(evidence, claim, step.do, answer)
    step = decide(weighed, OPERATION_DEFAULTS, () => 0.5)
    steps.push(step)
    evidence = weighed
  }
  return { steps, asked }
}

const conclusionOf = (kind: OperationKind, told: Told) => {
  const last = play(kind, told).steps.at(-1)
  return last?.do === 'SETTLE' ? last.conclusion : last
}

const done: Answer = {
  is: 'done',
  replayed: false,
  fact: { bankId: 'auth_1', bankAt: '2026-11-23T10:00:00Z', expiresAt: null },
}
const chaos: Answer = { is: 'notDone', reason: 'chaos' }
const lost: Answer = { is: 'ambiguous', reason: 'reset' }
const notStored: Answer = { is: 'notStored' }
const used: Answer = { is: 'alreadyUsed', by: null }
const noCard: Answer = { is: 'doubtful', about: 'card' }
const noParent: Answer = { is: 'doubtful', about: 'parent' }
const expired: Answer = { is: 'holdExpired' }
const misused: Answer = { is: 'misused', reason: '404' }
const broke: Answer = { is: 'declined', code: 'INSUFFICIENT_FUNDS' }
const odd: Answer = { is: 'mismatch', reason: 'another amount', evidence: { amount: 1 } }

const IN_REVIEW = { is: 'LEAVE', review: { reason: expect.any(String) } }
const times = (count: number, answer: Answer) => Array.from({ length: count }, () => answer)
const FOLLOW_UPS = ['CAPTURE', 'VOID', 'REFUND', 'EXPIRE', 'RELEASE'] as const

describe('what was certainly not carried out', () => {
  it('is sent again, at most three times, and then settled as not carried out', () => {
    const { asked, steps } = play('AUTHORIZE', { answers: times(9, chaos) })
    expect(asked).toEqual(['SEND', 'SEND', 'SEND', 'SEND'])
    expect(steps.at(-1)).toMatchObject({
      conclusion: { is: 'VERDICT', code: 'BANK_UNAVAILABLE', to: 'FAILED', orphan: false },
    })
  })
  it.each(FOLLOW_UPS)('frees the payment after a %s', (kind) => {
    expect(conclusionOf(kind, { answers: times(9, chaos) })).toMatchObject({
      is: 'VERDICT',
      code: 'BANK_UNAVAILABLE',
      to: null,
    })
  })
  it('waits longer before each re-send', () => {
    const waits = play('CAPTURE', { answers: times(4, chaos) }).steps.map((s) =>
      'afterMs' in s ? s.afterMs : null,
    )
    expect(waits).toEqual([200, 400, 800, null])
  })
  it('is not sent again while the gateway shuts down', () => {
    expect(play('AUTHORIZE', { draining: true, answers: times(9, chaos) }).asked).toEqual(['SEND'])
  })
})

describe('an authorize that may have been carried out', () => {
  it('is probed and never sent again', () => {
    const { asked, steps } = play('AUTHORIZE', { answers: [lost, ...times(20, notStored)] })
    expect(asked).toEqual(['SEND', ...Array.from({ length: 6 }, () => 'PROBE')])
    expect(steps.at(-1)).toMatchObject({ conclusion: { is: 'LEAVE' } })
  })
  it('is a fact as soon as a probe is answered with the stored answer', () => {
    expect(conclusionOf('AUTHORIZE', { answers: [lost, chaos, done] })).toMatchObject({
      is: 'FACT',
      bankId: 'auth_1',
    })
  })
  it('has failed, with a possible orphan hold, after three negatives past the quiet period', () => {
    const told = { resumed: true, quietAfter: 0, answers: [notStored, notStored, notStored] }
    expect(conclusionOf('AUTHORIZE', told)).toMatchObject({ is: 'VERDICT', to: 'FAILED', orphan: true })
  })
  it('keeps a second between the probes that must agree', () => {
    const { steps } = play('AUTHORIZE', { resumed: true, quietAfter: 0, answers: [notStored, notStored] })
    expect(steps).toEqual([
      { do: 'PROBE', afterMs: 1000 },
      { do: 'PROBE', afterMs: 1000 },
    ])
  })
  it('does not count negatives of before the quiet period', () => {
    const told = { resumed: true, quietAfter: 2, answers: [notStored, notStored, notStored, notStored] }
    expect(conclusionOf('AUTHORIZE', told)).toMatchObject({ do: 'PROBE' })
  })
  it('does not take a chaos 500 to a probe for an answer', () => {
    const told = { resumed: true, quietAfter: 0, answers: [notStored, notStored, chaos, lost, expired] }
    expect(conclusionOf('AUTHORIZE', told)).toMatchObject({ do: 'PROBE' })
  })
  it('has failed, with a possible orphan hold, when the bank has forgotten or stays silent until then', () => {
    for (const said of [notStored, lost, chaos]) {
      const told = { resumed: true, quietAfter: 0, replayable: false, answers: [said] }
      expect(conclusionOf('AUTHORIZE', told)).toMatchObject({ is: 'VERDICT', to: 'FAILED', orphan: true })
    }
  })
})

describe.each(FOLLOW_UPS)('a %s that may have been carried out', (kind) => {
  it('is probed, then sent again', () => {
    const { asked, steps } = play(kind, { answers: [lost, notStored, done] })
    expect(asked).toEqual(['SEND', 'PROBE', 'SEND'])
    expect(steps.at(-1)).toMatchObject({ conclusion: { is: 'FACT' } })
  })
  it('is probed again when the probe itself failed', () => {
    expect(play(kind, { answers: [lost, chaos, lost, notStored] }).asked).toEqual([
      'SEND',
      'PROBE',
      'PROBE',
      'PROBE',
    ])
  })
  it('stays unresolved when the attempts run out', () => {
    const answers = [lost, notStored, lost, notStored, lost, notStored, lost, notStored]
    expect(conclusionOf(kind, { answers })).toMatchObject({ is: 'LEAVE' })
  })
  it('is not taken for refused when a later attempt was certainly not carried out', () => {
    expect(conclusionOf(kind, { answers: [lost, notStored, ...times(9, chaos)] })).toMatchObject({
      is: 'LEAVE',
    })
  })
  it('"already used" is our own attempt once probes past the quiet period find no stored answer', () => {
    const answers = [notStored, used, notStored, notStored]
    expect(conclusionOf(kind, { resumed: true, quietAfter: 0, answers })).toMatchObject({
      is: 'FACT',
      bankId: null,
    })
  })
  it('"already used" concludes nothing before', () => {
    expect(conclusionOf(kind, { answers: [lost, notStored, used, ...times(9, notStored)] })).toMatchObject({
      is: 'LEAVE',
    })
  })
  it('the stored answer gives the id', () => {
    expect(conclusionOf(kind, { answers: [lost, notStored, used, done] })).toMatchObject({
      is: 'FACT',
      bankId: 'auth_1',
    })
  })
  it('what the bank says that another operation did was not done by it', () => {
    const other = {
      CAPTURE: 'VOID',
      VOID: 'CAPTURE',
      EXPIRE: 'CAPTURE',
      RELEASE: 'CAPTURE',
      REFUND: 'VOID',
    } as const
    const by = { is: 'alreadyUsed', by: other[kind] } as const
    const answers = [notStored, by, notStored, notStored]
    expect(conclusionOf(kind, { resumed: true, quietAfter: 0, answers })).toMatchObject(IN_REVIEW)
  })
  it('nor, while receipts are lost, what it says that somebody did', () => {
    const answers = [notStored, used, notStored, notStored]
    const told = { resumed: true, quietAfter: 0, isHistoryLost: true, answers }
    expect(conclusionOf(kind, told)).toMatchObject(IN_REVIEW)
  })
  it('a refusal after it goes to review', () => {
    for (const no of [expired, misused]) {
      const answers = [notStored, no, notStored, notStored]
      expect(conclusionOf(kind, { resumed: true, quietAfter: 0, answers })).toMatchObject(IN_REVIEW)
    }
  })
})

describe('an authorize that is claimed while receipts are lost', () => {
  const probedFirst = true
  it('is what the bank gives back, and is not sent', () => {
    const { asked, steps } = play('AUTHORIZE', { probedFirst, answers: [chaos, done] })
    expect(asked).toEqual(['PROBE', 'PROBE'])
    expect(steps.at(-1)).toMatchObject({ conclusion: { is: 'FACT', bankId: 'auth_1' } })
  })
  it('is sent when the bank does not know it', () => {
    const { asked, steps } = play('AUTHORIZE', { probedFirst, answers: [notStored, done] })
    expect(asked).toEqual(['PROBE', 'SEND'])
    expect(steps.at(-1)).toMatchObject({ conclusion: { is: 'FACT' } })
  })
  it('is never sent by who has no card, nor again once it may have been carried out', () => {
    const lone = { probedFirst, resumed: true, quietAfter: 0, answers: times(3, notStored) }
    expect(play('AUTHORIZE', lone).asked).toEqual(['PROBE', 'PROBE', 'PROBE'])
    const { asked } = play('AUTHORIZE', { probedFirst, answers: [notStored, lost, ...times(9, notStored)] })
    expect(asked.slice(2)).not.toContain('SEND')
  })
})

describe('definite answers', () => {
  it('a decline is final', () => {
    expect(conclusionOf('AUTHORIZE', { answers: [chaos, broke] })).toMatchObject({
      is: 'VERDICT',
      code: 'INSUFFICIENT_FUNDS',
      to: 'DECLINED',
    })
  })
  it('an unknown card is confirmed once, a second later, by a healthy bank', () => {
    const { steps } = play('AUTHORIZE', { answers: [noCard, noCard] })
    expect(steps[0]).toMatchObject({ do: 'SEND', confirm: true })
    expect(steps[0]?.do === 'SEND' && steps[0].afterMs).toBeGreaterThanOrEqual(1000)
    expect(steps[1]).toMatchObject({ conclusion: { is: 'VERDICT', code: 'CARD_INVALID', to: 'DECLINED' } })
  })
  it('an unknown card that the bank knows the second time is no decline', () => {
    expect(conclusionOf('AUTHORIZE', { answers: [noCard, done] })).toMatchObject({ is: 'FACT' })
  })
  it('an authorization that the bank has lost goes to review', () => {
    expect(conclusionOf('CAPTURE', { answers: [noParent, noParent] })).toMatchObject({
      is: 'VERDICT',
      code: 'BANK_REFERENCE_MISSING',
      review: { reason: expect.any(String) },
    })
  })
  it('a capture after expiry is refused', () => {
    expect(conclusionOf('CAPTURE', { answers: [expired] })).toMatchObject({
      is: 'VERDICT',
      code: 'AUTHORIZATION_EXPIRED',
    })
  })
  it('a void that is told "expired" is looked at', () => {
    expect(conclusionOf('VOID', { answers: [expired] })).toMatchObject({ is: 'VERDICT', review: {} })
  })
  it('a capture that is declined is looked at', () => {
    expect(conclusionOf('CAPTURE', { answers: [broke] })).toMatchObject({ is: 'VERDICT', review: {} })
  })
  it('"already used" without an ambiguous attempt of ours is a conflict', () => {
    expect(conclusionOf('VOID', { answers: [used, notStored, notStored] })).toMatchObject(IN_REVIEW)
  })
  it.each(['EXPIRE', 'RELEASE'] as const)('%s of a hold that is not found is tried ten times', (kind) => {
    const answers = times(3, noParent)
    expect(conclusionOf(kind, { answers, vainTries: 9 })).toEqual({
      is: 'VERDICT',
      code: 'BANK_REFERENCE_MISSING',
      to: null,
      orphan: false,
    })
    expect(conclusionOf(kind, { answers, vainTries: 10 })).toMatchObject(IN_REVIEW)
  })
  it('an answer that does not fit the request becomes no state', () => {
    expect(conclusionOf('CAPTURE', { answers: [odd] })).toMatchObject({
      is: 'LEAVE',
      review: { evidence: { amount: 1 } },
    })
  })
  it('a request that the bank finds malformed is not sent again', () => {
    expect(play('CAPTURE', { answers: times(5, misused) }).asked).toEqual(['SEND'])
    expect(conclusionOf('AUTHORIZE', { answers: [misused] })).toEqual({
      is: 'VERDICT',
      code: 'BANK_UNAVAILABLE',
      to: 'FAILED',
      orphan: false,
    })
  })
})

describe('whatever the bank answers', () => {
  const answer = fc.constantFrom(
    done,
    chaos,
    lost,
    notStored,
    used,
    noCard,
    noParent,
    expired,
    misused,
    broke,
    odd,
  )
  const run = fc.record({
    resumed: fc.boolean(),
    quietAfter: fc.nat(12),
    replayable: fc.boolean(),
    answers: fc.array(answer, { minLength: 40, maxLength: 40 }),
  })

  it('an authorize is never sent after an ambiguous attempt, and not by whoever took it over', () => {
    fc.assert(
      fc.property(run, (told) => {
        const { asked } = play('AUTHORIZE', told)
        const firstLost = told.resumed
          ? 0
          : told.answers.findIndex((a, i) => a.is === 'ambiguous' && asked[i] === 'SEND') + 1
        if (told.resumed || firstLost > 0) expect(asked.slice(firstLost)).not.toContain('SEND')
      }),
    )
  })
  it('no verdict is passed over an ambiguous attempt, but on an authorize that three quiet probes did not find, or that is forgotten', () => {
    fc.assert(
      fc.property(fc.constantFrom<OperationKind>('AUTHORIZE', ...FOLLOW_UPS), run, (kind, told) => {
        const { asked, steps } = play(kind, told)
        const last = steps.at(-1)
        if (last?.do !== 'SETTLE' || last.conclusion.is !== 'VERDICT') return
        const wasLost =
          told.resumed || asked.some((what, i) => what === 'SEND' && told.answers[i]?.is === 'ambiguous')
        if (!wasLost) return
        expect(kind).toBe('AUTHORIZE')
        const proper = asked.filter(
          (what, i) => what === 'PROBE' && told.answers[i]?.is === 'notStored' && i >= told.quietAfter,
        )
        if (told.replayable) expect(proper.length).toBeGreaterThanOrEqual(3)
        else expect(last.conclusion.orphan).toBe(true)
      }),
    )
  })
  it('every run ends, after at most 4 sends with 6 probes each', () => {
    fc.assert(
      fc.property(fc.constantFrom<OperationKind>('AUTHORIZE', ...FOLLOW_UPS), run, (kind, told) => {
        const { asked, steps } = play(kind, told)
        expect(steps.at(-1)?.do).toBe('SETTLE')
        expect(asked.length).toBeLessThanOrEqual(4 * 7 + 6)
      }),
    )
  })
})
