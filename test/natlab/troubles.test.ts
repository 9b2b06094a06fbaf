/** Troubles that were made on purpose: what `doctor`, `status` and `path` say of them, and whether it is the cause. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { join } from "node:path"
import type * as Doctor from "../../src/services/telemetry/Doctor.ts"
import type { Traces } from "../../src/services/telemetry/Traces.ts"
import { childOf } from "../programs/support/Children.ts"
import * as Lab from "./Lab.ts"
import * as LabPage from "./LabPage.ts"

/** The relay as nodes know it, and how long each datagram takes to get there. */
const FAR_PORT = 3490
const FAR_MS = 80
const nodes = { admin: LabPage.ADMIN }
const BUSY = "thread_late"
/** More than doctor takes for an accident. */
const DEATHS = 5

interface Said {
  readonly findings: ReadonlyArray<Doctor.Finding>
  /** Of the last entry, as `path` tells it. */
  readonly reason: string
  readonly path: string
}

/** Its exit code says whether something is broken. That the machine of the lab is busy is no trouble that was made here. */
const doctor = (lab: Lab.Lab) =>
  lab.client("doctor", "--json").pipe(
    Effect.catchAll(({ out = "" }) => Effect.succeed(out)),
    Effect.map((text) => (JSON.parse(text) as Pick<Said, "findings">).findings.filter(({ code }) => code !== BUSY))
  )
const said = (lab: Lab.Lab): Effect.Effect<Said, Lab.LabFailed> =>
  Effect.gen(function*() {
    const findings = yield* doctor(lab)
    const { entries } = JSON.parse(yield* lab.client("path", "office", "--json")) as {
      readonly entries: ReadonlyArray<Said>
    }
    const last = entries.at(-1)
    return { findings, path: last?.path ?? "", reason: last?.reason ?? "" }
  })
/** Whether the inspector shows all of these within some seconds, and what the trace of the last flow says of its path. */
const seen = (lab: Lab.Lab, ...texts: ReadonlyArray<string | RegExp>) =>
  Effect.gen(function*() {
    const page = yield* LabPage.open(lab)
    for (const text of texts) yield* Effect.promise(() => page.getByText(text).first().waitFor())
    const { traces: [trace] } = JSON.parse(yield* lab.client("trace", "--last", "1", "--json")) as Traces
    const { "sallyport.path": path, "sallyport.path.reason": reason } = trace?.spans[0]?.attributes ?? {}
    return { path, reason, spans: trace?.spans ?? [] }
  })
const what = ({ findings }: Said) => findings.map(({ what }) => what)

describe.skipIf(!LabPage.isPossible)("troubles between real NATs", () => {
  it.scopedLive("doctor reports blocked UDP for the leg and the peer", () =>
    Lab.use({ clientNat: "udp-blocked", nodes }, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ reason }) => reason.includes("udp_blocked"))
        const told = yield* said(lab)
        assert.isTrue(what(told).some((text) => text.includes("lets no UDP through")))
        assert.isTrue(told.findings.every(({ remedy }) => remedy.startsWith("allow outgoing UDP")))
        assert.deepStrictEqual([told.path, told.reason], ["relay", "udp_blocked"])
        yield* lab.fetch("/")
        const { path, reason } = yield* seen(lab, /^udp blocked \(/, "by relay-tcp: udp blocked")
        assert.deepStrictEqual([path, reason], ["relay-tcp", "udp_blocked"])
      })))

  it.scopedLive("doctor names both symmetric NATs and a remedy for one", () =>
    Lab.use({ clientNat: "symmetric", connectorNat: "symmetric", nodes }, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ reason }) => reason === "symmetric_both")
        const told = yield* said(lab)
        assert.deepStrictEqual(what(told).map((text) => /both NATs use a different port/.test(text)), [true])
        assert.deepStrictEqual([told.path, told.reason], ["relay", "symmetric_both"])
        yield* lab.fetch("/")
        const { path, reason } = yield* seen(lab, "symmetric both", "by relay-udp: symmetric both")
        assert.deepStrictEqual([path, reason], ["relay-udp", "symmetric_both"])
      })))

  it.scopedLive("doctor reports a relay that is far away", () =>
    Lab.use({
      relayOnly: true,
      nodes: { ...nodes, path: "relay" },
      relay: { advertise: { host: Lab.RELAY, udp: FAR_PORT } }
    }, (lab) =>
      Effect.gen(function*() {
        const far = join(Lab.LAB_DIR, "far.mjs")
        const run = lab.exec("relay", process.execPath, far, Lab.RELAY, String(FAR_PORT), "3478", String(FAR_MS))
        yield* Effect.forkScoped(run)
        yield* Effect.all([lab.start("connector"), lab.start("client")], { concurrency: 2 })
        yield* lab.fetch("/")
        const { path } = yield* lab.untilPeer(({ rttMs }) => (rttMs ?? 0) > 4 * FAR_MS)
        assert.strictEqual(path, "relay-udp")
        const [found, ...others] = yield* doctor(lab)
        assert.deepStrictEqual([found?.code, others], ["relay_far", []])
        assert.match(found?.what ?? "", /^a round trip to office through the relay takes 3\d\d ms/)
        const trace = yield* seen(lab, "relay only", "by relay-udp: relay only", /^3\d\d\.\d ms$/)
        assert.deepStrictEqual([trace.path, trace.reason], ["relay-udp", "relay_only"])
        const opening = trace.spans.find(({ name }) => name === "flow.open")
        assert.isAtLeast(opening?.durationMs ?? 0, 4 * FAR_MS) // one round trip is the most of it
      })))

  it.scopedLive("doctor names the thread of an actor that keeps dying", () =>
    Lab.use({ nodes: { ...nodes, webrtc: "auto" } }, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        const flow = yield* lab.begin("/file?rate=500000")
        for (let time = 0; time < DEATHS; time++) {
          const child = yield* Effect.retry(
            Effect.try(() => childOf(lab.pid("client"), "thread.worker")),
            { times: 100, schedule: Schedule.spaced("100 millis") }
          )
          yield* Effect.sync(() => process.kill(child, "SIGKILL"))
          yield* Effect.sleep("300 millis")
        }
        const found = yield* doctor(lab)
        process.stderr.write(`${JSON.stringify(found)}\n`)
        assert.strictEqual(found[0]?.code, "crash_loop")
        assert.match(found[0]?.what ?? "", /thread webRtc with webRtc failed \d times .*SIGKILL/)
        const restarted = "thread webRtc: restarting, the process ended with SIGKILL"
        const trace = yield* seen(lab, restarted, "5 restarts", "the process ended with SIGKILL", "office")
        assert.isTrue(trace.spans.every(({ status }) => status !== "error"))
        const { code, sha256 } = yield* flow.done
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
      })))

  it.scopedLive("doctor and trace name a resource that refuses connections", () =>
    Lab.use({ nodes }, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ path }) => path === "direct")
        yield* lab.stop("resource")
        const { code } = yield* lab.fetch("/")
        assert.notStrictEqual(code, 0)
        const [found, ...others] = (yield* said(lab)).findings
        assert.deepStrictEqual([found?.code, others], ["flow_refused", []])
        assert.match(found?.what ?? "", /:8080 with .*: refused, the resource's host refused the connection/)
        const trace = yield* seen(lab, "flow :8080 refused", /^by direct: direct/)
        assert.strictEqual(trace.path, "direct")
        assert.strictEqual(trace.spans[0]?.attributes["error.type"], "refused")
      })))
})
