/** Which nodes the hub lets in, and what a connected node hears. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Option, Stream } from "effect"
import * as Board from "../../src/actors/hub/Board.ts"
import * as NodeLinks from "../../src/actors/hub/NodeLinks.ts"
import type { NodeRole } from "../../src/protocol/trust/Documents.ts"
import { TokenUsed } from "../../src/services/directory/Directory.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import type { Peer } from "../../src/transport/link/LinkServer.ts"
import { MemoryLink } from "./support/MemoryLink.ts"
import * as VirtualHub from "./support/VirtualHub.ts"

const NODE = VirtualHub.newKey().publicKey
const RELAY = { host: "192.0.2.1", httpsPort: 443, udpPort: 3478 }

const setup = Effect.gen(function*() {
  const board = Board.make()
  const world = { role: "client" as NodeRole | null, tokenIsUsed: false }
  const seen = { enrolled: new Array<unknown>(), bridged: 0 }
  const ended = yield* Deferred.make<void>()
  const make = (browsers: boolean) =>
    NodeLinks.make({
      board,
      authority: Authority.make(VirtualHub.newKey()),
      directory: {
        enrol: ({ onlyAs, onlyNamed }) =>
          world.tokenIsUsed
            ? Effect.fail(new TokenUsed({ message: "used" }))
            : Effect.sync(() => void seen.enrolled.push([onlyAs, onlyNamed]) as never),
        findNode: (key) =>
          Effect.sync(() =>
            world.role === null
              ? Option.none()
              : Option.some({ key, name: "laptop", shown: "Laptop", role: world.role, network: null } as never)
          ),
        latestAuditId: Effect.succeed(7),
        relays: Effect.succeed([])
      },
      removed: { eventsFor: () => Effect.succeed([{ _tag: "Revoked", node: RELAY.host as never }]) },
      relay: RELAY,
      browsers,
      bridge: () => Effect.sync(() => void seen.bridged++),
      serve: () => Deferred.await(ended),
      onConnected: () => Effect.void
    })
  return { board, ended, links: make(true), make, seen, world }
})
const peer = (claims: Partial<Peer> = {}) =>
  ({ nodeKey: NODE, purpose: "signal", remote: "192.0.2.7", ...claims }) as Peer

describe("a link to the hub", () => {
  it.effect("is refused to a node that is not enrolled", () =>
    Effect.gen(function*() {
      const { links, world } = yield* setup
      world.role = null
      const code = (of: Peer) =>
        Effect.match(links.authenticate(of), { onFailure: (refused) => refused.code, onSuccess: () => "let in" })
      assert.strictEqual(yield* code(peer()), "unknown_node")
      world.tokenIsUsed = true
      const enrol = { tokenId: "t", secret: "s" } as never
      assert.strictEqual(yield* code(peer({ enrol })), "TokenUsed")
    }))

  it.effect("is refused to a browser that cannot check it", () =>
    Effect.gen(function*() {
      const { links, make, seen, world } = yield* setup
      const browser = peer({ purpose: "browser", enrol: { tokenId: "t", secret: "s", role: "connector" } })
      const code = (of: typeof links) =>
        Effect.match(of.authenticate(browser), { onFailure: (refused) => refused.code, onSuccess: () => "let in" })
      assert.strictEqual(yield* code(make(false)), "no_browser")
      assert.deepStrictEqual(seen.enrolled, [])
      yield* links.authenticate(browser)
      assert.deepStrictEqual(seen.enrolled, [["client", null]])
      world.role = "connector"
      assert.strictEqual(yield* code(links), "no_browser")
    }))

  it.scoped("puts the node on the board until it ends", () =>
    Effect.gen(function*() {
      const { board, ended, links } = yield* setup
      const [link] = MemoryLink.pair()
      assert.strictEqual(yield* Stream.runCount(links.watch(NODE)), 0)
      yield* Effect.forkScoped(links.onLink(link, peer({ purpose: "browser" })))
      yield* Effect.yieldNow()
      assert.isTrue(board.links.get(NODE)?.isBrowser)
      const first = yield* Stream.runCollect(Stream.take(links.watch(NODE), 2))
      assert.deepStrictEqual([...first].map(({ _tag }) => _tag), ["Snapshot", "Revoked"])
      yield* Deferred.succeed(ended, undefined)
      yield* Effect.yieldNow()
      assert.isFalse(board.links.has(NODE))
    }))

  it.scoped("for packets goes to the forwarder", () =>
    Effect.gen(function*() {
      const { board, links, seen } = yield* setup
      const [link] = MemoryLink.pair()
      yield* links.onLink(link, peer({ purpose: "relay" }))
      assert.strictEqual(seen.bridged, 1)
      assert.strictEqual(board.links.size, 0)
    }))
})
