import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8")
/** Pairs of a test's file and a title in it. */
const CITED = read("docs/field-cases.md").split("\n").flatMap((row) => {
  const [, file, titles = ""] = /\| `(\S+)`: (.+?) *\|$/.exec(row) ?? []
  return file === undefined ? [] : titles.split("; ").map((title) => [file, title] as const)
})

describe("docs/field-cases.md", () => {
  it.each(CITED)("cites a test that exists, %s: %s", (file, title) => {
    assert.include(read(`test/${file}.test.ts`), `"${title}`)
  })

  it("cites a test in each row", () => {
    assert.isAtLeast(CITED.length, 30)
  })
})
