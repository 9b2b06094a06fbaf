import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const ROOT = fileURLToPath(new URL("../../", import.meta.url))
const read = (path: string): string => readFileSync(ROOT + path, "utf8")

/** Every name that is counted anywhere, as it is exposed. */
const exposed = new Set(
  readdirSync(`${ROOT}src`, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) =>
      Array.from(
        read(`src/${file}`).matchAll(/Metrics\.(counter|gauge|histogram)\(\s*\{\s*name: "(\w+)"/g),
        ([, kind, name]) =>
          kind === "counter"
            ? [`${name}_total`]
            : kind === "gauge"
            ? [`${name}`]
            : ["_bucket", "_count", "_sum"].map((suffix) => `${name}${suffix}`)
      ).flat()
    )
)

const used = (text: string): ReadonlyArray<string> => [
  ...new Set(text.match(/\b(?:sallyport|process)_[a-z_]+\b(?=[^"]*[{[( =])/g))
]

describe("the dashboard and the alert rules", () => {
  it.each(["config/telemetry/alerts.yaml", "config/telemetry/dashboard.json"])("%s asks for what there is", (file) => {
    const names = used(read(file).replaceAll("\\\"", "'"))
    assert.isAbove(names.length, 5)
    assert.deepStrictEqual(names.filter((name) => !exposed.has(name)), [])
  })

  it("show each metric somewhere", () => {
    const all = read("config/telemetry/alerts.yaml") + read("config/telemetry/dashboard.json")
    const nameOf = (exposed: string) => exposed.replace(/_(bucket|count|sum)$/, "")
    const shown = new Set([...exposed].filter((name) => all.includes(name)).map(nameOf))
    const forgotten = [...exposed].map(nameOf).filter((name) => !shown.has(name) && !NOT_SHOWN.has(name))
    assert.deepStrictEqual(forgotten, [])
  })

  it("have panels that do not lie over one another", () => {
    type Panel = { readonly id: number; readonly gridPos: Readonly<Record<"x" | "y" | "w" | "h", number>> }
    const { panels } = JSON.parse(read("config/telemetry/dashboard.json")) as { readonly panels: ReadonlyArray<Panel> }
    assert.strictEqual(new Set(panels.map(({ id }) => id)).size, panels.length)
    for (const [at, { gridPos: a }] of panels.entries()) {
      assert.isAtMost(a.x + a.w, 24)
      for (const { gridPos: b } of panels.slice(at + 1)) {
        assert.isFalse(a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h)
      }
    }
  })
})

/** For those who look for them: a picture would say nothing. */
const NOT_SHOWN = new Set([
  "sallyport_path_packets_total",
  "sallyport_relay_bindings_total",
  "sallyport_relay_answers_total",
  "sallyport_thread_heap_bytes",
  "process_start_time_seconds"
])
