import { describe, expect, it } from "vitest"
import { Invitations, type Invite, INVITE_LIFE_MS, MAX_INVITES } from "../../src/actors/signaling/Invitations.ts"

const SIGNED = { payload: new Uint8Array(1), signature: new Uint8Array(64) }
const invite = (n: number): Invite => ({
  _tag: "Invite",
  session: n.toString(16).padStart(32, "0"),
  grant: SIGNED,
  ticket: SIGNED
})

describe("invitations", () => {
  it("wait for a starting data plane until they are answered", () => {
    const invitations = new Invitations()
    for (const n of [1, 2, 3]) invitations.add(invite(n), n)
    expect(invitations.waiting(10)).toEqual([invite(1), invite(2), invite(3)])
    invitations.answered(invite(2).session)
    expect(invitations.waiting(10)).toEqual([invite(1), invite(3)])
  })

  it("are forgotten once the relay has asked another connector", () => {
    const invitations = new Invitations()
    invitations.add(invite(1), 0)
    invitations.add(invite(2), 1)
    expect(invitations.waiting(INVITE_LIFE_MS)).toEqual([invite(2)])
    expect(invitations.waiting(INVITE_LIFE_MS + 1)).toEqual([])
  })

  it("are bounded, and the oldest goes first", () => {
    const invitations = new Invitations()
    for (let n = 0; n < MAX_INVITES; n++) invitations.add(invite(n), n)
    invitations.add(invite(0), MAX_INVITES)
    invitations.add(invite(MAX_INVITES), MAX_INVITES + 1)
    const sessions = invitations.waiting(MAX_INVITES + 1).map(({ session }) => session)
    expect(sessions).toHaveLength(MAX_INVITES)
    expect(sessions).toContain(invite(0).session)
    expect(sessions).not.toContain(invite(1).session)
  })
})
