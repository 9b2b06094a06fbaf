import { assert, describe, it } from "@effect/vitest"
import { redact } from "../../src/cli/BugReport.ts"

const SALT = new Uint8Array(16)

describe("redact", () => {
  it("replaces each address by the same word every time", () => {
    const text =
      "from 198.51.100.7:3478 and 2001:db8::7 by [2001:DB8:0::7]:443, again 198.51.100.7; relay.example.com:443"
    const hidden = redact(text, ["relay.example.com"], SALT)
    const words = hidden.match(/(ipv[46]|host)-[0-9a-f]{6}/g) ?? []
    assert.strictEqual(words.length, 5)
    assert.strictEqual(new Set(words).size, 3)
    for (const address of ["198.51", "2001:", "example"]) assert.notInclude(hidden.toLowerCase(), address)
    assert.notStrictEqual(redact(text, [], new Uint8Array(16).fill(1)), redact(text, [], SALT))
  })

  it("leaves what is no address, and what is everybody's", () => {
    const text =
      "127.0.0.1 0.0.0.0 ::1 at 2026-11-23T20:41:02.123Z, 20:41:02, version 1.2.3, node v20.20.2, 999.1.1.1, abc::def::1"
    assert.strictEqual(redact(text, [], SALT), text)
  })
})
