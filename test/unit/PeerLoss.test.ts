import { assert, describe, it } from "@effect/vitest"
import * as PeerLoss from "../../src/protocol/path/PeerLoss.ts"

const TICK_MS = 1_000

/** Plays one tick a second. `presence` answers each question; `null` stands for a relay that cannot be asked. */
const play = (options: {
  readonly seconds: number
  readonly heardAt?: (second: number) => boolean
  readonly canHear?: boolean
  readonly isReplaced?: boolean
  readonly presence: (second: number) => PeerLoss.Presence | null
}) => {
  let state = PeerLoss.start
  let silentSince = 0
  const asked: Array<number> = []
  for (let second = 0; second <= options.seconds; second++) {
    const now = second * TICK_MS
    if (options.heardAt?.(second) === true) silentSince = now
    const [step, next] = PeerLoss.onTick(state, now, now - silentSince, {
      canHear: options.canHear ?? true,
      isReplaced: options.isReplaced ?? false
    })
    state = next
    if (step !== "wait" && step !== "ask") return { step, second, asked }
    if (step !== "ask") continue
    asked.push(second)
    const answer = options.presence(second)
    if (answer !== null) state = PeerLoss.onPresence(state, now, answer)
  }
  return { step: "alive" as const, second: options.seconds, asked }
}

describe("a session whose peer stopped answering", () => {
  it("ends within eight seconds if the peer left the relay", () => {
    const { second, step } = play({ seconds: 600, presence: () => "absent" })
    assert.strictEqual(step, "absent")
    assert.isAtMost(second, 8)
  })

  it("lives if the peer returns in time and answers", () => {
    const { step } = play({
      seconds: 600,
      heardAt: (second) => second === 6 || second > 9,
      presence: (second) => (second < 5 ? "absent" : "connected")
    })
    assert.strictEqual(step, "alive")
  })

  it("ends after thirty seconds if the peer stays silent", () => {
    const { second, step } = play({ seconds: 600, presence: () => "connected" })
    assert.strictEqual(step, "forgotten")
    assert.strictEqual(second, PeerLoss.CONNECTED_SILENT_MS / TICK_MS)
  })

  it("ends after six seconds if another connector serves instead", () => {
    for (const presence of ["connected", "unknown", null] as const) {
      const { second, step } = play({ seconds: 600, isReplaced: true, presence: () => presence })
      assert.strictEqual(step, "replaced")
      assert.strictEqual(second, PeerLoss.REPLACED_SILENT_MS / TICK_MS)
    }
  })

  it("lives while this host has no relay path", () => {
    assert.strictEqual(play({ seconds: 600, canHear: false, presence: () => "connected" }).step, "alive")
  })

  it("lives while the relay is unreachable or just started", () => {
    assert.strictEqual(play({ seconds: 600, presence: () => null }).step, "alive")
    assert.strictEqual(play({ seconds: 600, presence: () => "unknown" }).step, "alive")
  })

  it("counts absence again when answers differ", () => {
    const { step } = play({ seconds: 29, presence: (second) => (second % 4 === 3 ? "absent" : "connected") })
    assert.strictEqual(step, "alive")
  })

  it("asks every two seconds, but not while the peer answers", () => {
    assert.deepStrictEqual(play({ seconds: 9, presence: () => "unknown" }).asked, [3, 5, 7, 9])
    assert.deepStrictEqual(play({ seconds: 60, heardAt: () => true, presence: () => "absent" }).asked, [])
  })
})
