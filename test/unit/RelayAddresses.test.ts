import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as RelayAddresses from "../../src/services/network/RelayAddresses.ts"
import * as Kit from "../suite/RelayLinkKit.ts"

/** RFC 6761: no resolver finds it. */
const DEAD = "relay.invalid"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "sallyport-addresses-"))),
  (dir) => Effect.sync(() => rmSync(dir, { recursive: true, force: true }))
)

describe("a relay's name", () => {
  it.scopedLive("is remembered, and its last addresses serve without DNS", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      assert.isNull(yield* RelayAddresses.ask(dir, DEAD))
      const found = yield* RelayAddresses.ask(dir, "localhost")
      assert.include(found ?? [], "127.0.0.1")
      assert.deepStrictEqual(yield* RelayAddresses.known(dir, "localhost"), found ?? [])
      const file = join(dir, RelayAddresses.FILE)
      writeFileSync(file, readFileSync(file, "utf8").replace("localhost", DEAD))
      assert.isNull(yield* RelayAddresses.ask(dir, DEAD))
      assert.deepStrictEqual(yield* RelayAddresses.known(dir, DEAD), found ?? [])
      assert.deepStrictEqual(yield* RelayAddresses.known(dir, "other.invalid"), [])
      writeFileSync(file, "{\"version\":1")
      assert.deepStrictEqual(yield* RelayAddresses.known(dir, DEAD), [])
    }))

  it("leads a link to the last address without DNS", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const lost = yield* Effect.flip(Kit.connect(server, "websocket", { host: DEAD }))
      assert.strictEqual(lost.reason, "unreachable")
      const { link } = yield* Kit.connect(server, "websocket", { host: DEAD, lastAddresses: ["127.0.0.1"] })
      assert.strictEqual(link.carrier, "websocket")
      const impostor = { ...server, authority: Kit.makeAuthority() }
      const wrong = yield* Effect.flip(
        Kit.connect(impostor, "websocket", { host: DEAD, lastAddresses: ["127.0.0.1"] })
      )
      assert.strictEqual(wrong.reason, "tls_pin_mismatch")
    })))
})
