/** What three processes say of themselves, as others read it: an OTLP collector, and the reference parser of OpenMetrics. */
import { spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { TEXT } from "../../src/services/telemetry/ReasonText.ts"
import { keysIn } from "../e2e/support/Secrets.ts"
import { Collector, draw, type Span } from "./support/Collector.ts"
import { have, resource, type Role, ROOT, sallyport, World } from "./support/Programs.ts"

const ROLES: ReadonlyArray<Role> = ["relay", "connector", "client"]
/** Where the package is installed to; another python may be first in PATH. */
const PYTHON = { program: "/usr/bin/python3", apt: "python3 python3-prometheus-client" }
/** The OpenTelemetry project's own definitions, where `.ci/run` puts them. */
const OTLP_PROTO = join(ROOT, "node_modules/.cache/opentelemetry-proto")
const OTLP_ENV = { ...process.env, PYTHONPATH: OTLP_PROTO }
const PROMTOOL = { program: "promtool", apt: "prometheus" }
const RULE_TESTS = "test/fixtures/telemetry/alerts.test.yaml"
/** Fails on whatever is not OpenMetrics, and prints the names of the families. */
const PARSE = `
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
print("\\n".join(family.name for family in parse(sys.stdin.read())))
`
const haveProto = have(PYTHON) &&
  spawnSync(PYTHON.program, ["-c", "import opentelemetry.proto.trace.v1.trace_pb2"], { env: OTLP_ENV }).status === 0
if (!haveProto) {
  process.stderr.write(
    `NOT RUN: OTLP read by the official definitions. Install: python3 -m pip install --target ${OTLP_PROTO} opentelemetry-proto==1.45.0\n`
  )
}
const havePython = have(PYTHON) && spawnSync(PYTHON.program, ["-c", "import prometheus_client"]).status === 0

let world: World
let collector: Collector
let server: net.Server
let port: number

const echoed = async (socket: net.Socket, text: string): Promise<void> => {
  socket.write(text)
  let back = ""
  while (back.length < text.length) back += String((await once(socket, "data"))[0])
  assert.strictEqual(back, text)
}

beforeAll(async () => {
  collector = await Collector.start()
  server = net.createServer((socket) => socket.on("error", () => undefined).pipe(socket)).listen(0, "127.0.0.1")
  await once(server, "listening")
  port = (server.address() as net.AddressInfo).port
  world = await World.start({ resources: [resource("echo", port)], telemetry: { otlp: collector.url } })
  const socket = await world.dial("echo", port)
  await echoed(socket, "before")
  await world.direct()
  await echoed(socket, "after")
  socket.end()
  await once(socket, "close")
})
afterEach(({ task }) => {
  if (task.result?.state === "fail") world.tell()
})
afterAll(async () => {
  await world?.stop()
  collector?.stop()
  server?.close()
})

/** Grafana's variables, as it fills them in. */
const filledIn = (expression: string): string =>
  expression.replaceAll("$__rate_interval", "5m").replaceAll(/\$(job|instance)/g, ".*")

describe.skipIf(!have(PROMTOOL))("the dashboard and the alert rules", () => {
  it("ask in a language that Prometheus understands", () => {
    const { panels } = JSON.parse(readFileSync(join(ROOT, "config/telemetry/dashboard.json"), "utf8")) as {
      readonly panels: ReadonlyArray<{ readonly targets?: ReadonlyArray<{ readonly expr: string }> }>
    }
    const expressions = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => filledIn(expr)))
    assert.isAbove(expressions.length, 20)
    const rules = expressions.map((expr, at) => ({ record: `dashboard_${at}`, expr }))
    const dir = mkdtempSync(join(tmpdir(), "sallyport-rules-"))
    const file = join(dir, "rules.yaml")
    writeFileSync(file, JSON.stringify({ groups: [{ name: "dashboard", rules }] }))
    const { status, stderr, stdout } = spawnSync(PROMTOOL.program, ["check", "rules", file], { encoding: "utf8" })
    rmSync(dir, { recursive: true })
    assert.strictEqual(status, 0, `${stdout}${stderr}`)
  })

  it("are valid for Prometheus and fire only when they should", () => {
    for (const args of [["check", "rules", "config/telemetry/alerts.yaml"], ["test", "rules", RULE_TESTS]]) {
      const { status, stderr, stdout } = spawnSync(PROMTOOL.program, args, { cwd: ROOT, encoding: "utf8" })
      assert.strictEqual(status, 0, `${stdout}${stderr}`)
    }
  })
})

describe("telemetry of three processes", () => {
  it.skipIf(!havePython)("has metrics that the reference parser of OpenMetrics takes", async () => {
    for (const role of ROLES) {
      const text = String(await world.ask(role, "/metrics"))
      const parsed = spawnSync(PYTHON.program, ["-c", PARSE], { input: text, encoding: "utf8" })
      assert.strictEqual(parsed.status, 0, `${parsed.stderr}\n${text}`)
      assert.include(parsed.stdout, role === "relay" ? "sallyport_relay_forwarded_bytes" : "sallyport_path_bytes")
    }
  })

  it("records which path reached a peer, and why, without addresses", async () => {
    const ask = (role: Role, ...args: ReadonlyArray<string>) =>
      sallyport([...args, "--config", world.file(role), "--json"], { cwd: world.dir })
    const path = await ask("client", "path", "office")
    assert.strictEqual(path.code, 0, path.err)
    const { entries } = JSON.parse(String(path.out)) as { readonly entries: ReadonlyArray<Record<string, unknown>> }
    const first = entries.find(({ moved }) => moved === true)
    assert.match(String(first?.["path"]), /^direct[46]-/)
    const reason = String(first?.["reason"])
    assert.include(Object.keys(TEXT), reason)
    assert.isNotEmpty(first?.["tried"])
    const text = await sallyport(["path", "office", "--config", world.file("client")], { cwd: world.dir })
    assert.include(String(text.out), TEXT[reason as keyof typeof TEXT])
    const nobody = await ask("client", "path", "nobody")
    assert.deepStrictEqual([nobody.code, String(nobody.out)], [1, ""])
    const actors = await ask("connector", "actors")
    assert.match(String(actors.out), /"name":"streamMux","state":"up"/)
    const doctor = await ask("relay", "doctor")
    assert.deepStrictEqual([doctor.code, doctor.err], [0, ""])
    const recorded = JSON.stringify(await Promise.all(ROLES.map((role) => world.ask(role, "/v1/recorder"))))
    const keys = ROLES.flatMap((role) => keysIn(join(world.dir, "state", role)))
    for (const secret of [...keys, "sp1_", "127.0.0.1", "::1"]) assert.notInclude(recorded, secret)
  })

  it("exports what a scrape shows, also at its stop", async () => {
    const scraped = String(await world.ask("client", "/metrics"))
    const taken = Number(/^sallyport_flow_opens_total\{code="accepted"\} (\d+)$/m.exec(scraped)?.[1])
    assert.isAtLeast(taken, 1, scraped)
    await world.program("client").stop()
    const own = collector.points.filter(({ service }) => service === "sallyport-client")
    const last = Math.max(...own.map(({ endMs }) => endMs))
    const points = own.filter(({ endMs }) => endMs === last)
    const opened = points.filter(({ name }) => name === "sallyport_flow_opens").map(({ value }) => value)
    assert.deepStrictEqual(opened, [taken])
    const families = [...scraped.matchAll(/^# TYPE (\S+)/gm)].map(([, name = ""]) => name)
    const exported = new Set(points.map(({ name }) => name))
    assert.isAbove(exported.size, 15)
    assert.includeMembers(families, [...exported])
    assert.deepStrictEqual(points.find(({ name }) => name === "sallyport_path_bytes")?.unit, "By")
    assert.isTrue(points.every(({ endMs, startMs }) => startMs < endMs && startMs > Date.now() - 600_000))
  })

  it("has one trace for a flow with its path changes", async () => {
    const keys = ROLES.flatMap((role) => keysIn(join(world.dir, "state", role)))
    for (const role of ["connector", "relay"] as const) await world.program(role).stop()

    const flow = collector.spans.find(({ name, traceId }) =>
      name === "flow" && collector.spans.some((span) => span.traceId === traceId && span.name === "SignalingHub.dial")
    )
    assert.isDefined(flow)
    const trace = collector.spans.filter(({ traceId }) => traceId === flow.traceId)
    const tree = `\n${draw(trace)}`
    process.stdout.write(`${tree}\n`)
    const find = (name: string): Span => {
      const found = trace.find((span) => span.name === name)
      assert.isDefined(found, `${name} is missing:${tree}`)
      return found
    }
    const ancestors = (span: Span | undefined): ReadonlyArray<string> =>
      span === undefined
        ? []
        : [span.name, ...ancestors(trace.find(({ spanId }) => spanId === span.parentSpanId))]

    assert.deepStrictEqual(ancestors(find("SignalingHub.dial")), [
      "SignalingHub.dial",
      "signaling.Dial",
      "RpcClient.Dial",
      "signaling.Dial",
      "ask.signaling.Dial",
      "StreamMux.dial",
      "flow.session",
      "flow"
    ])
    assert.strictEqual(ancestors(find("StreamMux.onInvite")).at(-1), "flow")
    assert.include(ancestors(find("StreamMux.onInvite")), "SignalingHub.dial")
    assert.deepStrictEqual(ancestors(find("flow.dial")), ["flow.dial", "flow.serve", "flow"])
    for (const phase of ["flow.session", "flow.open"]) assert.strictEqual(find(phase).parentSpanId, flow.spanId)
    for (const phase of ["flow.first_byte", "flow.transfer"]) {
      const both = trace.filter(({ name }) => name === phase)
      assert.deepStrictEqual(both.map(({ service }) => service).toSorted(), ["sallyport-client", "sallyport-connector"])
    }
    assert.deepStrictEqual(
      new Set(trace.map(({ service, thread }) => `${service}/${thread}`)),
      new Set([
        "sallyport-client/data",
        "sallyport-client/control",
        "sallyport-relay/control",
        "sallyport-connector/data",
        "sallyport-connector/control"
      ])
    )
    const own = trace.find(({ name, parentSpanId }) => name === "flow.transfer" && parentSpanId === flow.spanId)
    assert.isDefined(own)
    assert.isAtLeast(flow.endMs, own.endMs) // the connector's may end later

    const flows = new Set(collector.spans.filter(({ name }) => name.startsWith("flow")).map(({ spanId }) => spanId))
    const moves = collector.spans.filter(({ name }) => name === "path.switch")
    for (const { attributes, links } of moves) {
      assert.isNotEmpty(links)
      assert.isTrue(links.every(({ spanId }) => flows.has(spanId)))
      assert.containsAllKeys(attributes, ["sallyport.path", "sallyport.path.reason"])
    }
    assert.includeMembers(moves.map(({ service }) => service), ["sallyport-client"])

    const said = collector.bodies.join("\n")
    for (const secret of [...keys, "sp1_"]) assert.notInclude(said, secret)
    for (const key of ["server.address", "host", "relay", "remote"]) assert.notInclude(said, `"key":"${key}"`)
  })

  it("traces nothing but flows", async () => {
    const begun = collector.spans.filter(({ parentSpanId }) => parentSpanId === undefined).map(({ name }) => name)
    assert.sameMembers([...new Set(begun)], ["flow", "path.switch"])
  })

  it.skipIf(!haveProto)("matches OpenTelemetry's own definitions field by field", () => {
    const input = JSON.stringify(collector.requests)
    const read = spawnSync(PYTHON.program, [join(import.meta.dirname, "support/otlp.py")], {
      input,
      env: OTLP_ENV,
      encoding: "utf8"
    })
    assert.strictEqual(read.status, 0, read.stderr)
    const { logs, points, services, spans } = JSON.parse(read.stdout) as Record<string, number | Array<string>>
    process.stdout.write(`read by opentelemetry-proto: ${read.stdout}`)
    assert.deepStrictEqual(services, ["sallyport-client", "sallyport-connector", "sallyport-relay"])
    assert.strictEqual(spans, collector.spans.length)
    assert.strictEqual(points, collector.points.length)
    assert.isAbove(Number(logs), 0)
  })
})
