import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { childOf } from "../programs/support/Children.ts"
import * as Lab from "./Lab.ts"

/** Bytes a second: the file then takes twenty-one seconds. */
const RATE = 250_000
/** Far above what a move takes: the machine may be busy. What was seen is printed. */
const STALL_MS = 6_000

const relayedBy = (lab: Lab.Lab, path: string) => lab.untilPeer((peer) => peer.path === path)

describe.skipIf(!Lab.isPossible)("HTTP/3, where only web traffic leaves the client's network", () => {
  it.scopedLive("keeps flows when its process at the relay is killed", () =>
    Lab.use({ clientNat: "web443", relay: { http3: true } }, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* relayedBy(lab, "relay-h3")
        process.kill(childOf(lab.pid("relay"), "thread.worker"), "SIGKILL")
        const { code, sha256, stallMs } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        Lab.tell("longestStallMs", stallMs, STALL_MS)
        yield* Lab.untilTrue("the relay says it", () =>
          lab.log("relay").some((line) => line.includes("http3") && line.includes("SIGKILL")))
      })))

  it.scopedLive("keeps flows while its hanging process is replaced, and returns", () =>
    Lab.use({ clientNat: "web443", relay: { http3: true } }, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* relayedBy(lab, "relay-h3")
        const before = childOf(lab.pid("relay"), "thread.worker")
        const seen = lab.log("client").length
        process.kill(before, "SIGSTOP") // as a library that never returns would be
        // Told by the log: HTTP/3 may be back before a question for the path is answered.
        yield* Lab.untilTrue("the client is bound by TLS", () =>
          lab.log("client").slice(seen).some((line) => line.includes(`"relay leg"`) && line.includes(`"relay-tcp"`)))
        const { code, sha256, stallMs } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        Lab.tell("longestStallMs", stallMs, STALL_MS)
        yield* Lab.untilTrue("the process is another one", () => {
          try {
            return childOf(lab.pid("relay"), "thread.worker") !== before
          } catch {
            return false // it has ended, and the next is not there yet
          }
        })
        yield* relayedBy(lab, "relay-h3") // from TCP back to HTTP/3
      })))
})
