/** The table in `docs/reload.md` says what `Reload` does. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import * as Reload from "../../src/services/config/Reload.ts"

const ROLES = ["relay", "forwarder", "connector", "client"] as const
const TEXT = { live: "at once", restart: "restart", enrolment: "enrolment" } as const

/** Cells of a row, without the spaces that the formatter adds. */
const cells = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim())

describe("docs/reload.md", () => {
  it("lists when each key of each role takes effect", () => {
    const lines = readFileSync("docs/reload.md", "utf8").split("\n").filter((line) => line.startsWith("| `"))
    const written = Object.fromEntries(lines.map(cells).map(([key = "", ...rest]) => [key, rest]))
    const keys = new Set(ROLES.flatMap((role) => Reload.keysOf(role).map(([key]) => key)))
    const expected = Object.fromEntries(
      [...keys].map((key) => [
        `\`${key}\``,
        ROLES.map((role) => {
          const when = Reload.keysOf(role).find(([name]) => name === key)?.[1]
          return when === undefined ? "-" : TEXT[when]
        })
      ])
    )
    assert.deepStrictEqual(written, expected)
    assert.strictEqual(lines.length, keys.size, "each key once")
  })
})
