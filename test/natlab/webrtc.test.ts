import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { childOf } from "../programs/support/Children.ts"
import * as Lab from "./Lab.ts"

/** Bytes a second: the file then takes twenty-one seconds. */
const RATE = 250_000
/** Far above what a move takes: another machine may be busy. What was seen is printed. */
const STALL_MS = 3_000

const said = (lab: Lab.Lab, role: Lab.Role, words: string): ReadonlyArray<string> =>
  lab.log(role).filter((line) => line.includes(words))

describe.skipIf(!Lab.isPossible)("WebRTC between nodes whose own probes are dropped", () => {
  it.scopedLive("carries a flow without the relay, and survives its process", () =>
    Lab.use({
      clientNat: "port-restricted",
      connectorNat: "port-restricted",
      relayOnly: true,
      nodes: { webrtc: "auto" }
    }, (lab) =>
      Effect.gen(function*() {
        yield* lab.net("blackhole", "probes", "on") // ICE is not framed so
        yield* Effect.all([lab.start("connector"), lab.start("client")], { concurrency: 2 })
        const file = yield* lab.hold(RATE)
        yield* Lab.untilTrue("ICE gets through", () => said(lab, "client", "WebRTC connection open").length > 0)
        process.stderr.write(`${said(lab, "client", "WebRTC connection open")[0]}\n`)
        yield* Effect.sleep("1 second") // and the path is proved
        yield* lab.net("blackhole", "relay", "on")
        const peer = yield* lab.untilPeer(({ path }) => path === "webrtc")
        yield* file.more
        assert.include(["path_blackholed", "peer_request"], peer.reason) // whichever side sees it first
        yield* lab.net("blackhole", "relay", "off")
        yield* Effect.sleep("2 seconds") // the relay answers again
        process.kill(childOf(lab.pid("client"), "thread.worker"), "SIGKILL")
        yield* lab.untilPeer(({ path }) => path === "relay-udp")
        const { code, sha256, stallMs } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        Lab.tell("longestStallMs", stallMs, STALL_MS)
      })))

  it.scopedLive("uses TURN instead of TCP if UDP is blocked", () =>
    Lab.use(
      {
        clientNat: "symmetric",
        connectorNat: "symmetric",
        relayOnly: true,
        nodes: { webrtc: "auto" },
        relay: { turn: { udp: `${Lab.RELAY}:3480`, publicAddress: Lab.RELAY } }
      },
      (lab) =>
        Effect.gen(function*() {
          yield* lab.exec("relay", "nft", "add table inet shut")
          yield* lab.exec("relay", "nft", "add chain inet shut in { type filter hook input priority 0; }")
          yield* lab.exec("relay", "nft", "add rule inet shut in udp dport 3478 drop")
          yield* Effect.all([lab.start("connector"), lab.start("client")], { concurrency: 2 })
          const file = yield* lab.hold(RATE)
          const { reason } = yield* lab.untilPeer(({ path }) => path === "webrtc")
          assert.strictEqual(reason, "webrtc_faster")
          assert.include(said(lab, "client", "WebRTC connection open")[0], "\"local\":\"relay\"")
          const { code, sha256 } = yield* file.finish
          assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        })
    ))
})
