import { assert, describe, it } from "@effect/vitest"
import * as Metrics from "../../src/services/telemetry/Metrics.ts"
import * as OpenMetrics from "../../src/services/telemetry/OpenMetrics.ts"
import { parse } from "./support/OpenMetricsParser.ts"

const bytes = (values: Readonly<Record<string, number>>) =>
  Metrics.counter(
    { name: "s_path_bytes", unit: "bytes", help: "Bytes." },
    Object.entries(values).map(([path, value]) => ({ labels: { path }, value }))
  )
const up = (value: number) => Metrics.gauge({ name: "s_up", help: "Up." }, [{ labels: {}, value }])
const waits = (...values: ReadonlyArray<number>) => {
  const of = new Metrics.Distribution([0.1, 1])
  for (const value of values) of.observe(value)
  return Metrics.histogram({ name: "s_wait_seconds", unit: "seconds", help: "Waits." }, [{ labels: { a: "x" }, of }])
}

describe("metrics", () => {
  it("sum over threads by name and labels, in any order", () => {
    const both = (labels: Metrics.Labels) => Metrics.gauge({ name: "s_both", help: "" }, [{ labels, value: 1 }])
    const merged = Metrics.merge([
      [bytes({ direct: 1, relay: 2 }), up(1), waits(0.05, 5), both({ a: "1", b: "2" })],
      [bytes({ direct: 10 }), up(1), waits(0.1, 0.5), both({ b: "2", a: "1" })]
    ])
    assert.deepStrictEqual(merged, [
      bytes({ direct: 11, relay: 2 }),
      up(2),
      waits(0.05, 5, 0.1, 0.5),
      Metrics.gauge({ name: "s_both", help: "" }, [{ labels: { a: "1", b: "2" }, value: 2 }])
    ])
  })

  it("keep an ended source's counters", () => {
    assert.deepStrictEqual(Metrics.lasting([bytes({ direct: 1 }), up(1), waits(1)]), [bytes({ direct: 1 }), waits(1)])
  })

  it("do not mix families that have one name and differ", () => {
    const other = Metrics.gauge({ name: "s_path_bytes", help: "" }, [{ labels: {}, value: 5 }])
    assert.deepStrictEqual(Metrics.merge([[bytes({ direct: 1 })], [other]]), [bytes({ direct: 1 })])
  })

  it("count a value in the first bucket that holds it", () => {
    const of = new Metrics.Distribution([0.1, 1])
    for (const value of [0, 0.1, 0.100001, 1, 1.5]) of.observe(value)
    assert.deepStrictEqual(of.point({}).counts, [2, 2, 1])
  })
})

describe("their text", () => {
  const strange = Metrics.gauge({ name: "s_strange", help: "A \"quoted\" help,\nof two lines \\ more." }, [
    { labels: { peer: "a\\b\"c\nd", none: "" }, value: -0.5 },
    { labels: { peer: "ü" }, value: Infinity }
  ])

  it("is OpenMetrics to the letter", () => {
    assert.strictEqual(
      OpenMetrics.render([bytes({ direct: 3 }), waits(0.05, 5)]),
      [
        "# TYPE s_path_bytes counter",
        "# UNIT s_path_bytes bytes",
        "# HELP s_path_bytes Bytes.",
        "s_path_bytes_total{path=\"direct\"} 3",
        "# TYPE s_wait_seconds histogram",
        "# UNIT s_wait_seconds seconds",
        "# HELP s_wait_seconds Waits.",
        "s_wait_seconds_bucket{a=\"x\",le=\"0.1\"} 1",
        "s_wait_seconds_bucket{a=\"x\",le=\"1.0\"} 1",
        "s_wait_seconds_bucket{a=\"x\",le=\"+Inf\"} 2",
        "s_wait_seconds_count{a=\"x\"} 2",
        "s_wait_seconds_sum{a=\"x\"} 5.05",
        "# EOF",
        ""
      ].join("\n")
    )
  })

  it("is read by a strict parser, strange values included", () => {
    const samples = parse(OpenMetrics.render([bytes({}), strange, waits(2)]))
    assert.deepStrictEqual(samples.filter(({ name }) => name === "s_strange"), [
      { name: "s_strange", labels: { peer: "a\\b\"c\nd", none: "" }, value: -0.5 },
      { name: "s_strange", labels: { peer: "ü" }, value: Infinity }
    ])
  })

  it("is refused by that parser when it is wrong", () => {
    const good = OpenMetrics.render([bytes({ direct: 1 }), waits(2)])
    const spoilt = [
      good.replace("# EOF\n", ""),
      good.replace("_total", ""),
      good.replace("# UNIT s_path_bytes bytes", "# UNIT s_path_bytes seconds"),
      good.replace("le=\"+Inf\"} 1", "le=\"+Inf\"} 0"),
      good.replace("} 1\n", "} one\n"),
      good.replace("path=\"direct\"", "path=\"dir\"ect\""),
      good.replace("# EOF", "s_path_bytes_total{path=\"relay\"} 1\n# EOF")
    ]
    for (const text of spoilt) assert.throws(() => parse(text), undefined, undefined, text)
  })
})
