import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Sockets from "../../src/actors/mux/Sockets.ts"
import { PacketRouter } from "../../src/transport/plane/PacketRouter.ts"
import * as UdpPort from "../../src/transport/udp/UdpPort.ts"

const other = UdpPort.openScoped({
  host: "0.0.0.0",
  port: 0,
  family: 4,
  segment: 1200,
  onMessage: () => {},
  onError: () => {}
})

describe("a node's UDP sockets", () => {
  it.scopedLive("use another port until the configured one is free", () =>
    Effect.gen(function*() {
      const taken = yield* other
      const { port } = taken.address()
      const router = new PacketRouter(() => {})
      const sockets = yield* Sockets.make({ router, port, segment: 1200 })
      const before = sockets.ports()
      assert.isNumber(before.v4)
      assert.notStrictEqual(before.v4, port)
      assert.deepInclude(before.missed[0], { family: 4, port, code: "EADDRINUSE" })
      assert.isFalse(yield* sockets.takeConfigured)
      assert.strictEqual(sockets.ports().v4, before.v4)
      const used = router.v4
      taken.close()
      yield* Effect.sleep("1 millis") // the descriptor is closed in the next turn
      assert.isTrue(yield* sockets.takeConfigured)
      assert.deepStrictEqual([sockets.ports().v4, sockets.ports().missed], [port, []])
      assert.notStrictEqual(router.v4, used)
      assert.isFalse(yield* sockets.takeConfigured)
    }))
})
