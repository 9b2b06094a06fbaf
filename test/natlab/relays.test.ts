import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Lab from "./Lab.ts"

/** Bytes a second: the file then takes nine seconds. */
const RATE = 600_000
/** Far above what a fail-over takes (see `bench/relays.mjs`): another machine may be busy. What was seen is printed. */
const STALL_MS = 3_000

/** Nothing direct is possible between two of these, so whatever arrives was relayed. */
const OPTIONS = { clientNat: "symmetric", connectorNat: "symmetric", secondRelay: true } as const

describe.skipIf(!Lab.isPossible)("two relays under flows that they carry", () => {
  it.scopedLive("flows go on by the second relay without the first", () =>
    Lab.use(OPTIONS, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* Lab.untilTrue("the download runs", () => file.bytes() >= RATE)
        assert.strictEqual((yield* lab.peer).path, "relay-udp")
        lab.kill("relay")
        const { relay } = yield* lab.untilPeer((peer) => peer.relay !== null)
        assert.strictEqual(relay, "relay-2")
        const again = yield* lab.fetch("/file") // the grant is good: the session takes new flows, too
        assert.deepStrictEqual([again.code, again.sha256], [0, Lab.FILE_SHA256])
        const { code, sha256, stallMs } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        Lab.tell("longestStallMs", stallMs, STALL_MS)
      })))
})
