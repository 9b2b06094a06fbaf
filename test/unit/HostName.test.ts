import { assert, describe, it } from "vitest"
import * as HostName from "../../src/protocol/bytes/HostName.ts"

describe("a name", () => {
  it.each<[string, string]>([
    ["office-1", "office-1"],
    ["johns-macbook-pro.local", "johns-macbook-pro.local"],
    ["Johns-MacBook-Pro.local.", "johns-macbook-pro.local"],
    ["db_1", "db_1"],
    ["_dmarc.web.corp", "_dmarc.web.corp"],
    ["web.corp", "web.corp"],
    ["42", "42"],
    ["a-", "a-"],
    ["bücher.example", "xn--bcher-kva.example"],
    ["BÜCHER.example.", "xn--bcher-kva.example"],
    ["例え。テスト", "xn--r8jz45g.xn--zckzah"],
    ["x".repeat(63), "x".repeat(63)],
    [`${"x".repeat(63)}.`.repeat(3) + "x".repeat(61), `${"x".repeat(63)}.`.repeat(3) + "x".repeat(61)]
  ])("%s is compared as %s", (text, normal) => {
    assert.strictEqual(HostName.normalize(text), normal)
    assert.strictEqual(HostName.normalize(normal), normal)
  })

  it("is shown as written if that means the same", () => {
    assert.strictEqual(HostName.shown("db_1", "DB_1"), "DB_1")
    assert.strictEqual(HostName.shown("xn--bcher-kva.example", "Bücher.example."), "Bücher.example.")
    for (const written of ["db_2", "", "DB_1\u001b[2J", "\u202edb_1", null, undefined]) {
      assert.strictEqual(HostName.shown("db_1", written), "db_1")
    }
    assert.isTrue(HostName.isSame("Bücher.example", "xn--bcher-kva.example."))
    assert.isFalse(HostName.isSame("a b", "A b"))
  })

  it.each([
    "",
    ".",
    "..",
    "a..b",
    ".a",
    "a..",
    "-a",
    "a.-b",
    "No Name",
    "a/b",
    "*",
    "*.corp",
    "10.0.0.5",
    "10.0.0.500",
    "web.42",
    "::1",
    "a:1",
    "ü@b",
    "ü/b",
    "ü b",
    "ü:80",
    "ü%2e",
    "x".repeat(64),
    `${"x".repeat(63)}.`.repeat(4)
  ])("%s is none", (text) => assert.isNull(HostName.normalize(text)))
})
