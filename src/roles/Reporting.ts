/**
 * Reports a node's state to its relay and answers the relay's doctor questions, if the operator
 * consents. Without consent nothing here runs.
 */
import { Clock, Effect, Queue, Schedule, Schema, Stream } from "effect"
import pkg from "../../package.json" with { type: "json" }
import { Signaling } from "../actors/signaling/SignalingRpcs.ts"
import * as HostName from "../protocol/bytes/HostName.ts"
import * as NodeReport from "../protocol/relay/NodeReport.ts"
import * as Doctor from "../services/telemetry/Doctor.ts"
import type { Family } from "../services/telemetry/Metrics.ts"
import { Recorder } from "../services/telemetry/Recorder.ts"
import * as Redact from "../services/telemetry/Redact.ts"
import type { Peer, Running } from "./Running.ts"

/** Time between reports if nothing changes. */
const EVERY = "30 seconds"
/**
 * Pause before and after each report. The first lets a change settle; together they limit reports
 * to one in two seconds.
 */
const SETTLED = "1 second"

/** Starts reporting. It stops when the scope closes. */
export const start = Effect.fnUntraced(
  function*({ decisions, status, supervisor }: Pick<Running, "decisions" | "status" | "supervisor">) {
    const signaling = supervisor.ref(Signaling)
    const recorder = new Recorder()
    const due = yield* Queue.sliding<void>(1)
    const nudge = Effect.asVoid(Queue.offer(due, undefined))

    const report = Effect.gen(function*() {
      const { peers } = yield* status
      const text = encodeReport(reportOf(peers, recorder, yield* supervisor.metrics, yield* Clock.currentTimeMillis))
      yield* signaling.ask((client) => client.Report({ text }), { deadline: "10 seconds" })
    })
    const examine = Effect.fnUntraced(function*(question: string) {
      const text = yield* findings({ recorder, status, supervisor })
      yield* signaling.ask((client) => client.Findings({ question, text }))
    })

    /** Last refusal that was logged as a warning; the same one is not logged again. */
    let told = ""
    const reporting = Effect.gen(function*() {
      yield* Queue.take(due)
      yield* Effect.sleep(SETTLED)
      yield* Queue.takeAll(due)
      yield* Effect.catchAll(report, (error) => {
        const news = error._tag === "ReportRefused" && error.message !== told
        told = error.message
        return news
          ? Effect.logWarning(`the relay does not accept this node's reports: ${error.message}`)
          : Effect.logDebug("not reported to the relay", error.message)
      })
      yield* Effect.sleep(SETTLED)
    })
    const onWanted = Stream.runForEach(
      signaling.subscribe((client) => client.Wanted()),
      (wanted) =>
        wanted._tag === "ReportWanted"
          ? nudge
          : Effect.catchAll(
            examine(wanted.question),
            ({ message }) => Effect.logDebug("a question from the relay could not be answered", message)
          )
    )
    const onDecided = Stream.runForEach(
      decisions,
      (decided) => Effect.zipRight(Effect.sync(() => recorder.onDecision(decided)), nudge)
    )
    const onState = Stream.runForEach(supervisor.events, (event) => Effect.sync(() => recorder.onState(event)))
    const ticks = Effect.repeat(nudge, Schedule.spaced(EVERY))
    for (const part of [Effect.forever(reporting), onWanted, onDecided, onState, ticks]) {
      // The parts ignore errors: a stream fails only when the supervisor gives its actor up, and
      // the supervisor reports that itself.
      yield* Effect.forkScoped(Effect.ignore(part))
    }
  }
)

const encodeReport = Schema.encodeSync(NodeReport.ReportText)
const encodeFindings = Schema.encodeSync(NodeReport.FindingsText)

const reportOf = (
  peers: ReadonlyArray<Peer>,
  recorder: Recorder,
  families: ReadonlyArray<Family>,
  now: number
): NodeReport.NodeReport => {
  const moves = new Map<string, number>()
  for (const entry of recorder.entries()) {
    if (entry._tag === "Path" && (entry.moved || !moves.has(entry.peer))) moves.set(entry.peer, entry.at)
  }
  // If there are two sessions with one peer, the newer one counts.
  const known = [...new Map(peers.map((peer) => [peer.name, peer])).values()]
  return {
    version: pkg.version,
    runtime: process.version,
    platform: `${process.platform}-${process.arch}`,
    peersInAll: known.length,
    peers: known.slice(0, NodeReport.MAX_PEERS).map(({ name, path, reason, rttMs }) => {
      const since = moves.get(name)
      return {
        name: HostName.normalize(name) ?? name,
        path,
        // The rest of the text may name the relay's address.
        reason: reason.split(" ")[0] ?? "",
        rttMs: rttMs === null ? null : Math.round(rttMs * 10) / 10,
        pathAgeSeconds: since === undefined ? null : Math.max(0, Math.floor((now - since) / 1000))
      }
    }),
    flows: flowsOf(families)
  }
}

const flowsOf = (families: ReadonlyArray<Family>): Record<string, number> => {
  const opens = families.find(({ name }) => name === "sallyport_flow_opens")
  if (opens === undefined || opens._tag === "Histogram") return {}
  return Object.fromEntries(opens.points.map(({ labels, value }) => [labels["code"] ?? "unknown", value]))
}

const findings = Effect.fnUntraced(
  function*(
    { recorder, status, supervisor }: Pick<Running, "status" | "supervisor"> & { readonly recorder: Recorder }
  ) {
    const known = yield* Effect.orElseSucceed(Effect.flatMap(status, Schema.decodeUnknown(Doctor.Status)), () => null)
    const facts = {
      status: known,
      threads: yield* supervisor.status,
      states: recorder.entries().filter((entry) => entry._tag === "State"),
      now: yield* Clock.currentTimeMillis
    }
    const found = Doctor.diagnose(facts).slice(0, NodeReport.MAX_FINDINGS)
    return encodeFindings(
      found.map(({ code, remedy, severity, what }) => ({ severity, code, what: clean(what), remedy: clean(remedy) }))
    )
  }
)

/**
 * Makes a text acceptable for the relay: an error's text may hold addresses and control characters,
 * and may be too long.
 */
export const clean = (text: string): string =>
  Redact.addresses(text, (family) => `(${family})`).replaceAll(/\p{Cc}/gu, " ").slice(0, NodeReport.MAX_TEXT_CHARS)
