import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Lab from "./Lab.ts"

const RATE = 300_000

describe.skipIf(!Lab.isPossible)("port guessing between real NATs", () => {
  for (
    const [what, flow, options] of [
      ["the client", "during a flow", { clientNat: "symmetric", connectorNat: "port-restricted" }],
      ["the connector", "after a short one", { clientNat: "port-restricted", connectorNat: "symmetric" }]
    ] as const
  ) {
    it.scopedLive(`symmetric before ${what}, port-restricted before the other: direct ${flow}`, () =>
      Lab.use(options, (lab) =>
        Effect.gen(function*() {
          const isShort = what === "the connector"
          const first = yield* lab.begin(isShort ? "/" : `/file?rate=${RATE}`)
          if (isShort) yield* first.done
          yield* lab.untilPeer(({ path }) => path === "direct")
          const { code, sha256 } = yield* first.done
          assert.deepStrictEqual([code, isShort || sha256 === Lab.FILE_SHA256], [0, true])
          const before = yield* lab.relayBytes
          const again = yield* lab.fetch("/file")
          assert.strictEqual(again.sha256, Lab.FILE_SHA256)
          assert.isBelow((yield* lab.relayBytes) - before, Lab.FILE_BYTES / 20, "the file did not cross the relay")
        })))
  }
})
