import { assert, it } from "vitest"
import { ResourceMetrics } from "../../src/actors/mux/ResourceMetrics.ts"
import * as OpenMetrics from "../../src/services/telemetry/OpenMetrics.ts"
import { parse, sum } from "./support/OpenMetricsParser.ts"

it("counts running flows by resource, the rest together", () => {
  const metrics = new ResourceMetrics()
  const read = () => parse(OpenMetrics.render(metrics.read()))
  const meter = metrics.meterOf("wiki")
  meter.sent += 10
  metrics.onFlow("wiki", "accepted")
  metrics.onFlow("wiki", "refused")
  assert.strictEqual(sum(read(), "sallyport_resource_bytes_total", { resource: "wiki", direction: "transmit" }), 10)
  meter.sent += 5
  assert.strictEqual(sum(read(), "sallyport_resource_bytes_total", { resource: "wiki", direction: "transmit" }), 15)
  assert.strictEqual(sum(read(), "sallyport_resource_flow_opens_total", { resource: "wiki", code: "refused" }), 1)

  for (let n = 0; n < 1_000; n++) metrics.onFlow(`host-${n}`, "accepted")
  const samples = read().filter(({ name }) => name === "sallyport_resource_flow_opens_total")
  assert.isAtMost(new Set(samples.map(({ labels }) => labels["resource"])).size, 257)
  assert.strictEqual(sum(samples, "sallyport_resource_flow_opens_total", { code: "accepted" }), 1_001)
  assert.isAbove(sum(samples, "sallyport_resource_flow_opens_total", { resource: "*" }), 700)
})
