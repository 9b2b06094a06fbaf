/** Which sessions of a node carry flows, and which are dead because another one works. */
import { assert, describe, it } from "@effect/vitest"
import { type Held, HeldSessions, isSilent } from "../../src/actors/mux/sessions/HeldSessions.ts"
import type { Target } from "../../src/protocol/flow/FlowWire.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"

const A = "a" as NodeKey
const WEB: Target = { kind: "tcp", host: "web", port: 80 }
const NOW = 60_000

interface Given {
  readonly peer?: string
  readonly upAt?: number
  readonly silentMs?: number
  readonly isUp?: boolean
  readonly isLeaving?: boolean
  readonly permits?: boolean
}

/** Adds a session. Without options it works, with peer `a`, and has been up for a minute. */
const add = (held: HeldSessions, id: string, given: Given = {}) => {
  const { isLeaving = false, isUp = true, peer: peerKey = "a", permits = true, silentMs = 0, upAt = 0 } = given
  const seen = { expected: 0 }
  const peer = { peerKey, silentMs, up: isUp, quic: { closed: null }, expectAnswer: () => void seen.expected++ }
  const session = { id, peer, isLeaving, grant: { connectorKey: peerKey }, permits: () => permits && !isLeaving }
  const it = { session, upAt, target: WEB } as unknown as Held
  held.add(id, it)
  return { it, seen }
}

describe("the sessions that a node holds", () => {
  it("give a flow one that answers and permits it", () => {
    const held = new HeldSessions()
    add(held, "silent", { silentMs: 1000 })
    add(held, "dialled", { isUp: false })
    add(held, "denied", { permits: false })
    assert.isUndefined(held.reaching(WEB))
    const { it: good, seen } = add(held, "good")
    assert.strictEqual(held.reaching({ ...WEB, port: 81 })?.id, "good")
    assert.deepStrictEqual([good.target?.port, seen.expected], [81, 1])
  })

  it("take a newer grant unless they leave or are silent", () => {
    const held = new HeldSessions()
    add(held, "silent", { silentMs: 1000 })
    add(held, "leaving", { isLeaving: true })
    add(held, "other", { peer: "b" })
    assert.isUndefined(held.withPeer(A))
    add(held, "dialled", { isUp: false })
    assert.strictEqual(held.withPeer(A)?.session.id, "dialled")
  })

  it("name each silent connector once, at most 16", () => {
    const held = new HeldSessions()
    for (let n = 0; n < 20; n++) {
      add(held, `x${n}`, { peer: `p${n}`, silentMs: 1000 })
      add(held, `y${n}`, { peer: `p${n}`, silentMs: 1000 })
    }
    add(held, "good")
    assert.deepStrictEqual(held.silentPeers().map(String), Array.from({ length: 16 }, (_, n) => `p${n}`))
  })

  it("count a silent one as dead when a newer works", () => {
    const held = new HeldSessions()
    const { it: silent } = add(held, "silent", { silentMs: 1000, upAt: 10 })
    add(held, "older", { upAt: 5 })
    add(held, "alsoSilent", { silentMs: 1000, upAt: 20 })
    add(held, "foreign", { peer: "b", upAt: 20 })
    add(held, "young", { upAt: NOW - 1999 })
    assert.isTrue(isSilent(silent.session))
    assert.isFalse(held.isSuperseded(silent, NOW))
    assert.isTrue(held.isSuperseded(silent, NOW + 1))
    assert.isFalse(held.isSuperseded(add(held, "answers", { upAt: 1 }).it, NOW + 1))
  })

  it("replace one when another connector works for its target", () => {
    const held = new HeldSessions()
    const { it: lost } = add(held, "lost", { silentMs: 1000 })
    add(held, "same")
    add(held, "denied", { peer: "b", permits: false })
    add(held, "dialled", { peer: "c", upAt: Infinity })
    assert.isFalse(held.isReplaced(lost, NOW))
    add(held, "other", { peer: "d" })
    assert.isTrue(held.isReplaced(lost, NOW))
    lost.target = null
    assert.isFalse(held.isReplaced(lost, NOW))
  })
})
