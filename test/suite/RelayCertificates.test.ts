/** Links while the relay renews its certificate, for several lives of a certificate in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, TestClock, TestServices } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { LIFETIMES } from "../../src/protocol/trust/Lifetimes.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as RelayTls from "../../src/services/identity/RelayTls.ts"
import type { Link } from "../../src/session/Link.ts"
import { someTurns } from "../unit/support/Turns.ts"
import * as Kit from "./RelayLinkKit.ts"

const LIVES = 4
/** A life is passed in so many steps. */
const STEPS = 4
/** What is left of a certificate at least. */
const LEAST_LEFT_MS = 1000 * (LIFETIMES.certificateRenewBefore - LIFETIMES.certificateCheck)

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-certificates-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const prove = (link: Link, word: string) =>
  Effect.promise(async () => {
    await link.write(Buffer.from(word))
    assert.strictEqual(String(await Kit.readBytes(link, word.length)), word)
  })

/** The present certificate, once it is far from its end. Its renewal makes keys and writes files, which takes turns. */
const renewed = (service: RelayTls.RelayTls["Type"]) =>
  Effect.gen(function*() {
    while (true) {
      const current = yield* service.current
      if (current.notAfter - (yield* Clock.currentTimeMillis) > LEAST_LEFT_MS) return current
      yield* someTurns
    }
  })

describe.each(Kit.CARRIERS)("over %s", (carrier) => {
  it.scoped("links are made with each certificate in turn", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.parse("2026-03-01T12:00:00Z"))
      const stateDir = yield* folder
      const { privateKey, publicKey: pin } = yield* Keys.loadOrCreate(join(stateDir, RelayTls.TLS_KEY_FILE))
      const context = yield* Layer.build(RelayTls.layer({ stateDir, host: "relay.example.com", tls: null }))
      const service = yield* Effect.provide(RelayTls.RelayTls, context)
      const leaf = yield* service.current
      // The server's own timers are short, and would pass a million times here.
      const server = yield* TestServices.provideLive(
        Kit.serve({ authority: { privateKey, pin }, leaf, changes: service.changes })
      )
      const { link: lasting } = yield* Kit.connect(server, carrier)
      const shown = new Set<string>()
      for (let step = 1; step <= LIVES * STEPS; step++) {
        yield* TestClock.adjust(`${LIFETIMES.certificate / STEPS} seconds`)
        const { sha256 } = yield* renewed(service)
        const { link } = yield* Kit.connect(server, carrier)
        assert.strictEqual(hex(link.serverCertSha256), hex(sha256), `step ${step}`)
        yield* prove(link, `new ${step}`)
        yield* prove(lasting, `lasting ${step}`)
        shown.add(hex(sha256))
      }
      assert.isAtLeast(shown.size, LIVES)
      assert.strictEqual(hex(lasting.serverCertSha256), hex(leaf.sha256))
    }))
})
