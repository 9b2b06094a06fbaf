/** What the data plane does with the prober's orders. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as PathOrders from "../../src/actors/mux/PathOrders.ts"
import type { PathRef } from "../../src/protocol/path/PathRef.ts"
import { RELAY } from "../../src/protocol/path/PathRef.ts"

const DIRECT = { kind: "direct" } as PathRef
const LIST = [{ host: "192.0.2.1", port: 1 }] as never

/** A data plane with the session `a`, and all that its orders caused. */
const setup = () => {
  const state = { isDirect: true }
  const seen: Array<unknown> = []
  const peer = {
    select: (path: PathRef, isForced: boolean) => void seen.push(["select", path.kind, isForced]),
    sealed: () => new Uint8Array(1),
    sendOnAllPaths: (message: unknown) => void seen.push(message)
  }
  const forward = { Forward: ({ session }: { readonly session: string }) => Effect.sync(() => void seen.push(session)) }
  const orders = PathOrders.make({
    sessions: {
      get: (id: string) => id === "a" ? { peer } : undefined,
      onSelected: (_: string, reason: string) => void seen.push(reason),
      onKept: () => undefined
    } as never,
    signaling: { ask: (call: (client: typeof forward) => unknown) => call(forward) } as never,
    publish: (event) => void seen.push(event),
    isDirect: () => state.isDirect,
    socketsRead: Effect.sync(() => void seen.push("read"))
  })
  return { orders, seen, state }
}

describe("the prober's orders", () => {
  it.effect("move a session, and record the reason first", () =>
    Effect.gen(function*() {
      const { orders, seen } = setup()
      yield* orders.SelectPath({ session: "a", path: DIRECT, reason: "direct_proved" })
      yield* orders.SelectPath({ session: "a", path: RELAY, reason: "path_blackholed" })
      assert.deepStrictEqual(seen, [
        "direct_proved",
        ["select", "direct", false],
        "path_blackholed",
        ["select", "relay", true]
      ])
    }))

  it.effect("move no session to a direct path with relays only", () =>
    Effect.gen(function*() {
      const { orders, seen, state } = setup()
      state.isDirect = false
      yield* orders.SelectPath({ session: "a", path: DIRECT, reason: "direct_proved" })
      assert.deepStrictEqual(seen, [])
    }))

  it.effect("offer addresses by paths and signaling", () =>
    Effect.gen(function*() {
      const { orders, seen, state } = setup()
      yield* orders.SendCandidates({ session: "a", seq: 1, list: LIST })
      yield* Effect.yieldNow()
      state.isDirect = false
      yield* orders.SendCandidates({ session: "a", seq: 2, list: LIST })
      yield* Effect.yieldNow()
      const offers = seen.filter((it) => it !== "a") as ReadonlyArray<{ readonly list: ReadonlyArray<unknown> }>
      assert.deepStrictEqual(offers.map(({ list }) => list.length), [1, 0])
      assert.lengthOf(seen, 4)
    }))

  it.effect("do nothing for a session that has ended", () =>
    Effect.gen(function*() {
      const { orders, seen } = setup()
      yield* orders.SelectPath({ session: "b", path: RELAY, reason: "path_blackholed" })
      yield* orders.RequestSwitch({ session: "b", reason: "path_failed" })
      assert.deepStrictEqual(seen, [])
    }))

  it.effect("answer when the sockets have been read", () =>
    Effect.gen(function*() {
      const { orders, seen } = setup()
      yield* orders.AskRead({ session: "a" })
      assert.deepStrictEqual(seen, ["read", { _tag: "SocketsRead", session: "a" }])
    }))
})
