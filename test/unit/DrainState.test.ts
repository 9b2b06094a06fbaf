/** The drain of a connector's sessions. */
import { assert, describe, it } from "@effect/vitest"
import { DrainState } from "../../src/actors/mux/sessions/DrainState.ts"
import { DRAINING } from "../../src/actors/mux/StreamMuxRpcs.ts"

/** A session with some flows, and what it was asked. */
const session = (flows: number) => {
  const asked: Array<string> = []
  return {
    asked,
    flows,
    goAway: (reason: string) => void asked.push(reason),
    stay: () => void asked.push("stay")
  }
}

describe("a drain", () => {
  it("asks each session once and counts what is open", () => {
    const drain = new DrainState(false)
    const sessions = [session(2), session(3)] as const
    assert.deepStrictEqual(drain.set(true, sessions), { sessions: 2, flows: 5 })
    drain.set(true, sessions)
    assert.isTrue(drain.isOn)
    assert.deepStrictEqual(sessions.map(({ asked }) => asked), [[DRAINING], [DRAINING]])
  })

  it("asks a session that comes up meanwhile", () => {
    const drain = new DrainState(true)
    const late = session(0)
    drain.onUp(late)
    assert.deepStrictEqual(late.asked, [DRAINING])
  })

  it("ends: sessions may come and stay again", () => {
    const drain = new DrainState(true)
    const open = session(1)
    drain.set(false, [open])
    drain.onUp(open)
    assert.isFalse(drain.isOn)
    assert.deepStrictEqual(open.asked, ["stay"])
  })
})
