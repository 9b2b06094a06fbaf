import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as Lab from "./Lab.ts"

/** Bytes a second: the file then takes nine seconds, in which its networks change. */
const RATE = 600_000
/** Far above what a move takes (see `bench/roam.mjs`): another machine may be busy. What was seen is printed. */
const STALL_MS = 3_000
const PULLED_MS = 3_000
/** The relay's new process is up; nodes sign in again with a back-off that has grown meanwhile. */
const REBOUND_MS = 6_000

const isDirect = ({ path }: { readonly path: string }) => path === "direct"

/** A download under way by a direct path, through what `change` does, to its last byte. */
const download = <E>(
  change: (lab: Lab.Lab, file: Lab.Held) => Effect.Effect<void, E>,
  { mostMs = STALL_MS, options = {} }: { readonly mostMs?: number; readonly options?: Lab.Options } = {}
) =>
  Lab.use(options, (lab) =>
    Effect.gen(function*() {
      const file = yield* lab.hold(RATE)
      yield* lab.untilPeer(isDirect)
      yield* change(lab, file)
      const { code, sha256, stallMs } = yield* file.finish
      assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
      Lab.tell("longestStallMs", stallMs, mostMs)
    }))

describe.skipIf(!Lab.isPossible)("flows that do not notice a move", () => {
  it.scopedLive("the client moves to another network and back", () =>
    download((lab, file) =>
      Effect.gen(function*() {
        yield* lab.net("roam", "client", "client2")
        yield* file.more
        yield* lab.untilPeer(isDirect)
        yield* lab.net("roam", "client", "client")
        yield* file.more
        yield* lab.untilPeer(isDirect)
      })
    ))

  it.scopedLive("the connector moves, then both do at once", () =>
    download((lab, file) =>
      Effect.gen(function*() {
        yield* lab.net("roam", "connector", "client2")
        yield* file.more
        yield* lab.untilPeer(isDirect)
        yield* Effect.all([lab.net("roam", "client", "client2"), lab.net("roam", "connector", "connector")], {
          concurrency: 2
        })
        yield* file.more
      })
    ))

  it.scopedLive("the client's NAT forgets its mappings, then changes its address", () =>
    download((lab, file) =>
      Effect.gen(function*() {
        yield* lab.net("rebind", "client")
        yield* file.more
        yield* Effect.sleep("1 second") // a while without trouble, so that the next one is one of its own
        yield* lab.net("rebind", "client", "newip")
        yield* file.more
      })
    ))

  it.scopedLive("the client's lease changes, then its link is down", () =>
    download((lab, file) =>
      Effect.gen(function*() {
        yield* lab.net("readdr", "client", "11")
        yield* file.more
        yield* lab.net("link", "client", "off")
        yield* Effect.sleep(PULLED_MS)
        yield* lab.net("link", "client", "on")
        yield* file.more
      }), { mostMs: PULLED_MS + STALL_MS }))

  it.scopedLive("the client's network changes from IPv4 to IPv6 and back", () =>
    download((lab, file) =>
      Effect.gen(function*() {
        for (const family of ["6", "4"]) {
          yield* lab.net("family", "client", family)
          yield* file.more
          yield* lab.untilPeer(isDirect)
        }
      }), { options: { v6: true, before: [["family", "client", "4"]] } }))

  it.scopedLive("both sides bind again soon after the relay restarts", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* lab.untilPeer(isDirect)
        yield* lab.net("blackhole", "sites", "on")
        yield* lab.untilPeer(({ path }) => path === "relay-udp")
        yield* lab.stop("relay")
        yield* lab.start("relay")
        const [took] = yield* Effect.timed(file.more)
        Lab.tell("flowsAgainAfterMs", Duration.toMillis(took), REBOUND_MS)
        const { code, sha256 } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
      })))
})
