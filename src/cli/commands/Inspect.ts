/**
 * Commands that look into a running sallyport: its actors, the paths to a peer, and its problems.
 */
import { Clock, Console, Effect, Schema } from "effect"
import * as HostName from "../../protocol/bytes/HostName.ts"
import * as CandidateView from "../../protocol/candidate/CandidateView.ts"
import { Findings } from "../../protocol/relay/NodeReport.ts"
import * as Doctor from "../../services/telemetry/Doctor.ts"
import { TEXT } from "../../services/telemetry/ReasonText.ts"
import { Entry, type PathEntry } from "../../services/telemetry/Recorder.ts"
import * as Asker from "../Asker.ts"
import { failure, usage } from "../CliError.ts"
import { bytes, colour, table } from "../show/Table.ts"

/** Options of every command that asks a running process. */
export type Options = { readonly config: string; readonly json: boolean }

const Recorded = Schema.Struct({ entries: Schema.Array(Entry) })

/**
 * `sallyport actors`: prints the threads and actors of the process, with restarts, load and last
 * error.
 */
export const actors = ({ config, json }: Options) =>
  Effect.gen(function*() {
    const { get } = yield* Asker.make(config)
    const threads = yield* get("/v1/actors", Doctor.Threads)
    if (json) return yield* Console.log(JSON.stringify({ threads }))
    const rows = threads.flatMap((thread) => [rowOfThread(thread)].concat(thread.actors.map(rowOfActor)))
    yield* Console.log(
      table([["THREAD", "ACTOR", "STATE", "RESTARTS", "SINCE (UTC)", "LOAD", "LAST ERROR"], ...rows])
    )
  })

const rowOfThread = ({ health, lastError, name, restarts, since, state }: Doctor.Threads[number]): Array<string> => {
  const load = health === null ? "-" : `loop ${health.loopDelayP99Ms.toFixed(1)} ms, ${bytes(health.heapUsedBytes)}`
  return [name, "", state, String(restarts), Asker.timeOf(since), load, firstLine(lastError)]
}

const rowOfActor = (actor: Doctor.Threads[number]["actors"][number]): Array<string> => {
  const { lastError, name, queues, restarts, since, state } = actor
  const waiting = queues.map(({ capacity, depth, name }) => `${name} ${depth}/${capacity}`).join(", ")
  return ["", name, state, String(restarts), Asker.timeOf(since), waiting || "-", firstLine(lastError)]
}

const firstLine = (text: string | null): string => text?.split("\n")[0] ?? "-"

/** `sallyport path`: prints the recorded path decisions of a peer. Fails if there are none. */
export const path = ({ config, json, peer }: Options & { readonly peer: string }) =>
  Effect.gen(function*() {
    const { get } = yield* Asker.make(config)
    const { entries } = yield* get("/v1/recorder", Recorded)
    const own = entries.filter((entry): entry is PathEntry =>
      entry._tag === "Path" && HostName.isSame(entry.peer, peer)
    )
    if (own.length === 0) {
      return yield* failure(`nothing is recorded of a peer ${peer}; sallyport status says which peers there are`)
    }
    if (json) return yield* Console.log(JSON.stringify({ peer, entries: own }))
    const rows = own.map(({ at, moved, path, reason, tried }) => [
      Asker.timeOf(at),
      moved ? path : `${path} (stays)`,
      tried.map(({ path, rttMs, state }) => `${path} ${rttMs === null ? state : `${rttMs.toFixed(1)} ms`}`).join(", "),
      TEXT[reason]
    ])
    yield* Console.log(table([["AT (UTC)", "PATH", "KNOWN THEN", "WHY"], ...rows]))
  })

/**
 * `sallyport doctor`. Fails if something is broken, so that scripts can test for it. `node` names a
 * node that the relay is to ask; `null` to examine the process itself.
 */
export const doctor = ({ config, json, node }: Options & { readonly node: string | null }) =>
  Effect.gen(function*() {
    const { candidates, findings, leftOut } = yield* node === null ? examined(config) : examinedBy(config, node)
    yield* Console.log(
      json
        ? JSON.stringify({ findings, candidates, leftOut })
        : [report(findings), ...addresses(candidates, leftOut)].join("\n")
    )
    const broken = findings.filter(({ severity }) => severity === "broken").length
    if (broken > 0) return yield* failure(`${broken} ${broken === 1 ? "thing is" : "things are"} broken; see above`)
  })

const examinedBy = (file: string, node: string) =>
  Effect.gen(function*() {
    const { config, post } = yield* Asker.make(file)
    if (config.role !== "relay") {
      return yield* usage(`--node is for a relay, and ${file} is the configuration of a ${config.role}; leave it out`)
    }
    const { findings } = yield* post("/v1/doctor", { node }, Schema.Struct({ findings: Findings }))
    // The relay does not receive the addresses of its nodes.
    return { findings, candidates: null, leftOut: null }
  })

const examined = (config: string) =>
  Effect.gen(function*() {
    const { get } = yield* Asker.make(config)
    const threads = yield* get("/v1/actors", Doctor.Threads)
    // The status may be missing while an actor is down, which is when somebody runs doctor.
    const status = yield* Effect.orElseSucceed(get("/v1/status", Doctor.Status), () => null)
    const { entries } = yield* get("/v1/recorder", Recorded)
    const states = entries.filter((entry) => entry._tag === "State")
    const findings = Doctor.diagnose({ status, threads, states, now: yield* Clock.currentTimeMillis })
    return { findings, candidates: status?.candidates ?? null, leftOut: status?.leftOut ?? null }
  })

/** Unoffered addresses that are listed one by one. For the rest only the number is shown. */
const MAX_LEFT_OUT_SHOWN = 4

/**
 * Lines with the addresses that are offered to peers, and those of this host that are not. Empty if
 * they are not known.
 */
const addresses = (
  candidates: ReadonlyArray<CandidateView.CandidateView> | null,
  leftOut: ReadonlyArray<CandidateView.CandidateView> | null
): ReadonlyArray<string> => {
  if (candidates === null) return []
  const offered = candidates.length === 0 ? "none" : candidates.map(CandidateView.text).join(", ")
  const shown = (leftOut ?? []).slice(0, MAX_LEFT_OUT_SHOWN).map(CandidateView.text)
  const more = (leftOut?.length ?? 0) - shown.length
  return [
    `Addresses offered to peers: ${offered}`,
    ...(shown.length === 0 ? [] : [`Not offered: ${shown.join(", ")}${more > 0 ? ` and ${more} more` : ""}`])
  ]
}

const report = (findings: ReadonlyArray<Doctor.Finding>): string => {
  if (findings.length === 0) return colour(Asker.hasColours(), 32, "Nothing is wrong.")
  return findings.map(({ remedy, severity, what }) =>
    `${
      colour(Asker.hasColours(), severity === "broken" ? 31 : 33, severity.toUpperCase())
    }  ${what}\n        do: ${remedy}`
  ).join("\n")
}
