/** What the hub does about changes of the directory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Board from "../../src/actors/hub/Board.ts"
import * as DirectoryChanges from "../../src/actors/hub/DirectoryChanges.ts"
import type { SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { AuditEntry } from "../../src/services/directory/Directory.ts"
import { DirectoryError } from "../../src/services/directory/DirectoryStore.ts"
import * as HubBoard from "./support/HubBoard.ts"
import * as VirtualHub from "./support/VirtualHub.ts"

const NODE = VirtualHub.newKey().publicKey
const RELAY = VirtualHub.newKey().publicKey
const POINT = { name: "relay", addresses: ["192.0.2.2"], port: 3478 } as const

const setup = Effect.gen(function*() {
  const board = Board.make()
  const log = new Array<AuditEntry>()
  const seen = { revoked: new Array<string>(), turn: new Array<string>(), regrants: 0, placed: 0 }
  const world = { readable: true }
  const changes = yield* DirectoryChanges.make({
    board,
    directory: {
      latestAuditId: Effect.sync(() => log.length),
      changesSince: (id) => Effect.sync(() => log.slice(id)),
      relays: Effect.succeed([POINT]),
      placeRelay: () => Effect.sync(() => seen.placed++ === 0)
    },
    removed: {
      revoke: (node) => Effect.sync(() => void seen.revoked.push(node)),
      revokeTurn: (name) => Effect.sync(() => void seen.turn.push(name))
    },
    signed: {
      replaceGrants: Effect.suspend(() =>
        world.readable
          ? Effect.sync(() => void seen.regrants++)
          : Effect.fail(new DirectoryError({ reason: "busy", message: "it is locked" }))
      )
    }
  })
  const add = (entry: Partial<AuditEntry>) =>
    void log.push({ id: log.length + 1, at: 0, detail: {}, nodeKey: null, nodeName: null, ...entry } as AuditEntry)
  return { add, board, changes, seen, world }
})

describe("a change of the directory", () => {
  it.scoped("revokes each removed node once", () =>
    Effect.gen(function*() {
      const { add, board, changes, seen } = yield* setup
      const { heard } = yield* HubBoard.connect(board, NODE, "client")
      add({ kind: "node_removed", nodeKey: NODE, nodeName: "laptop" })
      yield* changes.poll
      yield* changes.poll
      assert.deepStrictEqual([seen.revoked, seen.turn], [[NODE], ["laptop"]])
      assert.deepStrictEqual(yield* heard, [])
    }))

  it.scoped("replaces grants, also after the directory was unreadable", () =>
    Effect.gen(function*() {
      const { add, changes, seen, world } = yield* setup
      add({ kind: "policy_replaced" })
      world.readable = false
      yield* changes.poll
      yield* changes.poll
      assert.strictEqual(seen.regrants, 0)
      world.readable = true
      yield* changes.poll
      yield* changes.poll
      assert.strictEqual(seen.regrants, 1)
    }))

  it.scoped("tells every node of another relay's place", () =>
    Effect.gen(function*() {
      const { add, board, changes } = yield* setup
      const { heard } = yield* HubBoard.connect(board, NODE, "client")
      add({ kind: "relay_placed" })
      yield* changes.poll
      add({ kind: "node_removed", detail: { role: "relay" } })
      yield* changes.poll
      const change: SignalingEvent = { _tag: "RelaysChanged", relays: [POINT] }
      assert.deepStrictEqual(yield* heard, [change, change])
    }))

  it.scoped("lists a relay only under its own name", () =>
    Effect.gen(function*() {
      const { board, changes, seen } = yield* setup
      assert.strictEqual((yield* Effect.flip(changes.placeRelay(RELAY, POINT)))._tag, "NoRelay")
      const { heard } = yield* HubBoard.connect(board, RELAY, "relay")
      const other = { ...POINT, name: "other" }
      assert.strictEqual((yield* Effect.flip(changes.placeRelay(RELAY, other)))._tag, "NoRelay")
      yield* changes.placeRelay(RELAY, POINT)
      assert.strictEqual(seen.placed, 1)
      assert.strictEqual((yield* heard).length, 1)
    }))
})
