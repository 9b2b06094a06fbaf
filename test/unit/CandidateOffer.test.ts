import { describe, expect, it } from "vitest"
import { CandidateOffer } from "../../src/protocol/candidate/CandidateOffer.ts"

/** When it is sent again until `ms`, with nobody answering. */
const sends = (offer: CandidateOffer, ms: number, isSeeking: boolean) => {
  const at: Array<number> = []
  for (let due = offer.dueAt(isSeeking); due <= ms; due = offer.dueAt(isSeeking)) {
    offer.onSentAgain(due)
    at.push(due)
  }
  return at
}

describe("an offer of candidates", () => {
  it("is sent again until it is acknowledged", () => {
    const offer = new CandidateOffer(7)
    offer.renew()
    offer.onSent(0)
    expect(sends(offer, 20_000, true)).toEqual([200, 600, 1_400, 3_000, 6_200, 11_200, 16_200])
    offer.onAcked(7)
    expect(offer.isOpen, "an older list was acknowledged").toBe(true)
    offer.onAcked(8)
    expect(offer.dueAt(true)).toBe(Infinity)
  })

  it("is given up for the time that none is sought", () => {
    const offer = new CandidateOffer(0)
    offer.onSent(0)
    expect(sends(offer, 60_000, false)).toEqual([200, 600, 1_400, 3_000, 6_200])
    expect(offer.dueAt(true)).toBe(11_200)
  })
})
