import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { HANG_MS } from "../support/Hang.ts"
import * as Lab from "./Lab.ts"

/** Bytes a second: the file then takes twenty seconds: long enough for what is done to its path meanwhile. */
const RATE = 250_000
/** A flow may stand still this long while its session finds another path, on a machine that has much else to do. */
const STALL_MS = 3_000
const CURL_TIMED_OUT = 28

const isDirect = ({ path }: { readonly path: string }) => path === "direct"

describe.skipIf(!Lab.isPossible)("flows that live through trouble", () => {
  it.scopedLive("a download goes on relayed without its direct path", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* lab.untilPeer(isDirect)
        yield* lab.net("blackhole", "sites", "on")
        const relayed = yield* lab.untilPeer(({ path }) => path === "relay-udp")
        assert.include(["path_blackholed", "peer_request"], relayed.reason, "whichever side noticed first")
        const { code, sha256, stallMs } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        Lab.tell("longestStallMs", stallMs, STALL_MS)
        assert.isFalse(isDirect(yield* lab.peer), "the direct path was gone all the while")
      })))

  it.scopedLive("removing the client ends its flow and refuses its return", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        const drip = yield* lab.begin("/drip")
        yield* lab.untilPeer(isDirect)
        yield* Lab.untilTrue("drops come", () => drip.bytes() >= 100)
        yield* lab.admin("node", "remove", "laptop")
        const { code } = yield* drip.done
        assert.notInclude([0, CURL_TIMED_OUT], code)
        const again = yield* lab.fetch("/")
        assert.notInclude([0, CURL_TIMED_OUT], again.code)
        assert.strictEqual(String(again.body), "")
      })))

  it.scopedLive("a direct flow survives a relay restart", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* lab.untilPeer(isDirect)
        yield* lab.stop("relay")
        const without = yield* lab.fetch("/")
        assert.strictEqual(without.code, 0, "a new flow of a live session needs no relay")
        yield* lab.start("relay")
        const { code, sha256, stallMs } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        Lab.tell("longestStallMs", stallMs, STALL_MS)
        // Another process has no session: this needs the relay, and the connector to be signed in again.
        yield* lab.stop("client")
        yield* lab.start("client")
        const fresh = lab.fetch("/").pipe(Effect.filterOrFail(({ code }) => code === 0, ({ code }) => `curl: ${code}`))
        yield* fresh.pipe(Effect.retry(Schedule.spaced("200 millis")), Effect.timeout(HANG_MS))
        yield* lab.untilPeer(isDirect)
      })))

  it.scopedLive("a flow moves to a direct path without its relay", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* lab.untilPeer(isDirect)
        yield* lab.net("blackhole", "sites", "on")
        yield* lab.untilPeer(({ path }) => path === "relay-udp")
        yield* Effect.all([lab.stop("relay"), lab.net("blackhole", "sites", "off")], { concurrency: 2 })
        yield* lab.untilPeer(isDirect)
        const { code, sha256 } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
      })))
})
