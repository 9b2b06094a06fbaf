import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Platform from "../../src/transport/quic/engine/Platform.ts"

describe("the platform", () => {
  it.effect("is named where the QUIC library has no build", () =>
    Effect.gen(function*() {
      const none = () => Promise.reject(new Error("Failed requiring possible native bindings"))
      const mac = yield* Effect.flip(Platform.check({ platform: "darwin", arch: "arm64", glibc: null }, none))
      assert.strictEqual(mac._tag, "UnsupportedPlatform")
      assert.match(mac.message, /no build for darwin on arm64; .*Linux on x64 with glibc/)
      const alpine = yield* Effect.flip(Platform.check({ platform: "linux", arch: "x64", glibc: null }, none))
      assert.match(alpine.message, /linux on x64 without glibc/)
    }))

  it.effect("is accepted if there is a build for it", () =>
    Effect.gen(function*() {
      yield* Platform.check(
        { platform: "linux", arch: "x64", glibc: "2.36" },
        () => Promise.reject(new Error("unasked"))
      )
      yield* Platform.check({ platform: "darwin", arch: "arm64", glibc: null }, () => Promise.resolve({}))
    }))
})
