import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Lab from "./Lab.ts"

/** One attempt takes 15 s at most, on a machine that has much else to do; of 414 attempts one fails by chance. */
const GUESSED_WITHIN = "20 seconds"
const RATE = 300_000

describe.skipIf(!Lab.isPossible)("port guessing between real NATs", () => {
  for (
    const [what, options] of [
      ["the client", { clientNat: "symmetric", connectorNat: "port-restricted" }],
      ["the connector", { clientNat: "port-restricted", connectorNat: "symmetric" }]
    ] as const
  ) {
    it.scopedLive(`symmetric (fully random ports) before ${what}, port-restricted before the other: becomes direct`, () =>
      Lab.use(options, (lab) =>
        Effect.gen(function*() {
          const file = yield* lab.begin(`/file?rate=${RATE}`)
          yield* lab.untilPeer(({ path }) => path === "direct", GUESSED_WITHIN)
          const { code, sha256 } = yield* file.done
          assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
          const before = yield* lab.relayBytes
          const again = yield* lab.fetch("/file")
          assert.strictEqual(again.sha256, Lab.FILE_SHA256)
          assert.isBelow((yield* lab.relayBytes) - before, Lab.FILE_BYTES / 20, "the file did not cross the relay")
        })))
  }
})
