/** The link that carries packets, and its replacement by one over HTTP/3. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Scope, TestClock } from "effect"
import * as PacketLink from "../../src/actors/mux/PacketLink.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import type { NodeState } from "../../src/services/identity/NodeState.ts"
import type { Link } from "../../src/session/Link.ts"
import * as LinkClient from "../../src/transport/link/LinkClient.ts"
import { MemoryLink } from "./support/MemoryLink.ts"
import { someTurns } from "./support/Turns.ts"

const NODE = { relay: { host: "127.0.0.1", httpsPort: 1, tls: {} }, identity: {} } as unknown as NodeState

/** The relay's first message on a link. */
const FIRST = RelayWire.encode({ _tag: "Ping", echo: new Uint8Array(8) })

const setup = Effect.gen(function*() {
  const world = { http3: true, links: new Array<{ readonly carrier: string; readonly end: MemoryLink }>(), frames: 0 }
  const connect: LinkClient.LinkOpener["Type"]["connect"] = ({ http3Only }) =>
    Effect.acquireRelease(
      Effect.suspend(() => {
        if (http3Only && !world.http3) return new LinkClient.LinkError({ reason: "timed_out", message: "no answer" })
        const carrier = http3Only ? "webtransport-h3" : "websocket"
        const [end, relay] = MemoryLink.pair()
        world.links.push({ carrier, end })
        void relay.write(FIRST)
        const link = Object.assign(end, { carrier }) as unknown as Link
        return Effect.succeed({ link, welcome: new Uint8Array(), localHost: "127.0.0.1" })
      }),
      ({ link }) => Effect.sync(() => link.close("closed"))
    )
  const scope = yield* Effect.scope
  const made = yield* PacketLink.make({
    node: NODE,
    stateDir: "/nowhere",
    carrier: "auto",
    proxy: null,
    ca: null,
    onFrame: () => void world.frames++
  }).pipe(Effect.provideService(LinkClient.LinkOpener, { connect }), Scope.extend(scope))
  /** Carriers of the links that are open. */
  const open = () => world.links.filter(({ end }) => end.end === null).map(({ carrier }) => carrier)
  return { link: made, open, world }
})

describe("a link by TCP", () => {
  it.scoped("ends when HTTP/3 works, which the next one uses", () =>
    Effect.gen(function*() {
      const { link, open, world } = yield* setup
      assert.strictEqual(yield* link.open(true), "relay-tcp")
      const ended = yield* Effect.fork(link.ended)
      yield* link.replaceByHttp3
      yield* Fiber.join(ended)
      assert.deepStrictEqual(open(), ["webtransport-h3"])
      assert.isNull(link.leg())
      yield* someTurns
      assert.strictEqual(world.frames, 1, "the relay's first message is for the next binding")
      assert.strictEqual(yield* link.open(true), "relay-h3")
      yield* someTurns
      assert.strictEqual(world.frames, 2)
      assert.strictEqual(world.links.length, 2)
      yield* TestClock.adjust(Duration.minutes(1))
      assert.deepStrictEqual(open(), ["webtransport-h3"])
    }))

  it.scoped("stays while HTTP/3 does not work", () =>
    Effect.gen(function*() {
      const { link, open, world } = yield* setup
      yield* link.open(true)
      world.http3 = false
      assert.isTrue(Exit.isFailure(yield* Effect.exit(link.replaceByHttp3)))
      assert.deepStrictEqual([open(), link.leg()?.kind], [["websocket"], "relay-tcp"])
    }))

  it.scoped("leaves no HTTP/3 link behind that nobody wants", () =>
    Effect.gen(function*() {
      const { link, open } = yield* setup
      yield* link.open(true)
      yield* link.replaceByHttp3
      yield* TestClock.adjust(Duration.seconds(10))
      assert.deepStrictEqual(open(), [])
      yield* link.open(true)
      yield* link.replaceByHttp3
      yield* link.close
      assert.deepStrictEqual(open(), [])
      assert.isTrue(Exit.isFailure(yield* Effect.exit(link.replaceByHttp3)))
    }))

  it.scoped("opens by TCP if the HTTP/3 link ended meanwhile", () =>
    Effect.gen(function*() {
      const { link, open, world } = yield* setup
      yield* link.open(true)
      yield* link.replaceByHttp3
      world.links.at(-1)?.end.destroy("lost")
      yield* Effect.promise(() => world.links.at(-1)!.end.closed)
      assert.strictEqual(yield* link.open(true), "relay-tcp")
      assert.deepStrictEqual(open(), ["websocket"])
    }))
})
