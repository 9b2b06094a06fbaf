import { assert, describe, it } from "@effect/vitest"
import { closeSync, openSync } from "node:fs"
import * as Descriptors from "../../src/services/host/Descriptors.ts"
import { Limits, LOG_AGAIN_MS } from "../../src/services/telemetry/Limits.ts"

describe("limits that were met", () => {
  it("are logged once, and later with how often since", () => {
    let now = 0
    const limits = new Limits(() => now)
    limits.met("descriptors")
    limits.met("descriptors")
    assert.deepStrictEqual(limits.takeNews(), [{ limit: "descriptors", times: 2 }])
    limits.met("descriptors")
    now = LOG_AGAIN_MS - 1
    assert.deepStrictEqual(limits.takeNews(), [])
    now = LOG_AGAIN_MS
    limits.met("links")
    assert.deepStrictEqual(limits.takeNews(), [{ limit: "descriptors", times: 1 }, { limit: "links", times: 1 }])
    assert.deepStrictEqual(limits.takeNews(), [])
    assert.deepStrictEqual(limits.read(), [
      { limit: "descriptors", times: 3, agoMs: LOG_AGAIN_MS },
      { limit: "links", times: 1, agoMs: 0 }
    ])
  })
})

describe("descriptors", () => {
  it("keep a reserve that a small limit can afford", () => {
    assert.deepStrictEqual([64, 128, 256, 1024, Infinity].map(Descriptors.reserveOf), [16, 32, 64, 64, 64])
  })

  it.skipIf(process.platform !== "linux")("are counted", () => {
    const before = Descriptors.read()
    const files = Array.from({ length: 50 }, () => openSync("/dev/null", "r"))
    const { limit, open } = Descriptors.read()
    for (const file of files) closeSync(file)
    assert.isAtLeast(open, 50)
    assert.isAtMost(Math.abs(open - before.open - 50), 20) // other threads of this process open and close files, too
    assert.isAbove(limit, open)
    assert.isFalse(Descriptors.hasRoom(limit))
  })
})
