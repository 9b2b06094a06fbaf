/** What is wrong with a running sallyport and what to do about it, from what it says of itself. Computes only. */
import { Schema } from "effect"
import { Reason } from "../protocol/PathRef.ts"
import type { StateEntry } from "../services/telemetry/Recorder.ts"
import { REMEDY, TEXT } from "./ReasonText.ts"

export interface Finding {
  /** `broken`: something does not work. `poor`: it works, and could be better. */
  readonly severity: "broken" | "poor"
  readonly what: string
  readonly remedy: string
}

const Queue = Schema.Struct({ name: Schema.String, capacity: Schema.Number, depth: Schema.Number })
const Actor = Schema.Struct({
  name: Schema.String,
  state: Schema.String,
  incarnation: Schema.Number,
  restarts: Schema.Number,
  since: Schema.Number,
  lastError: Schema.NullOr(Schema.String),
  queues: Schema.Array(Queue)
})
const Health = Schema.Struct({
  loopDelayP99Ms: Schema.Number,
  loopUtilization: Schema.Number,
  heapUsedBytes: Schema.Number
})
/** As `/v1/actors` answers. */
export const Threads = Schema.Array(
  Schema.Struct({
    ...Actor.omit("queues").fields,
    health: Schema.NullOr(Health),
    actors: Schema.Array(Actor)
  })
)
export type Threads = typeof Threads.Type

/** As `/v1/status` answers, as far as it matters here. A relay has neither `signaling` nor `leg`, and has `nodes`. */
export const Status = Schema.Struct({
  peers: Schema.Array(
    Schema.Struct({ name: Schema.String, path: Schema.NullOr(Schema.String), reason: Schema.String })
  ),
  signaling: Schema.optional(
    Schema.NullOr(Schema.Struct({ state: Schema.String, relay: Schema.String, problem: Schema.String }))
  ),
  leg: Schema.optional(Schema.NullOr(Schema.Struct({ kind: Schema.NullOr(Schema.String), reason: Schema.String }))),
  nodes: Schema.optional(Schema.Array(Schema.Unknown))
})
export type Status = typeof Status.Type

/** More restarts of one actor than this within `RECENT_MS` are no accident. */
const MANY_RESTARTS = 3
const RECENT_MS = 10 * 60_000
/** What waits this long in a loop is felt by people. */
const SLOW_LOOP_MS = 100
const FULL = 0.8

export interface Facts {
  readonly status: Status
  readonly threads: Threads
  readonly states: ReadonlyArray<StateEntry>
  /** Epoch ms. */
  readonly now: number
}

/** The worst first. */
export const diagnose = (facts: Facts): ReadonlyArray<Finding> =>
  [...ofRelayLink(facts.status), ...ofActors(facts), ...ofThreads(facts.threads), ...ofPeers(facts.status)].toSorted(
    (left, right) => Number(right.severity === "broken") - Number(left.severity === "broken")
  )

const broken = (what: string, remedy: string): Finding => ({ severity: "broken", what, remedy })
const poor = (what: string, remedy: string): Finding => ({ severity: "poor", what, remedy })

const ofRelayLink = ({ leg, nodes, signaling }: Status): ReadonlyArray<Finding> => {
  const found: Array<Finding> = []
  if (signaling && signaling.state !== "up") {
    found.push(
      broken(
        `the relay ${signaling.relay} is not connected: ${signaling.problem}`,
        signaling.state === "refused"
          ? "enrol this node anew: sallyport token create on the relay, then token in this configuration and an empty stateDir"
          : "see that the relay runs and that this machine reaches its HTTPS port"
      )
    )
  }
  if (leg && leg.kind === null) {
    found.push(
      broken(`packets cannot be relayed: ${leg.reason}`, "see that this machine reaches the relay's UDP or HTTPS port")
    )
  } else if (leg && leg.kind !== "relay-udp") {
    found.push(poor(`relayed packets travel by TLS, which is slow: ${leg.reason}`, REMEDY.udp_blocked ?? ""))
  }
  if (nodes?.length === 0) {
    found.push(poor("no node is connected", "start one, with a token from sallyport token create"))
  }
  return found
}

const ofActors = ({ now, states, threads }: Facts): ReadonlyArray<Finding> =>
  threads.flatMap(({ actors }) => actors).flatMap(({ lastError, name, queues, state }) => {
    const recent = states.filter((entry) =>
      entry.kind === "actor" && entry.name === name && entry.state === "restarting" && now - entry.at < RECENT_MS
    )
    const why = (recent.at(-1)?.message ?? lastError ?? "").split("\n")[0] ?? ""
    if (state !== "up") {
      return [
        broken(`actor ${name} is ${state}: ${why}`, "see the log for its error; restart the process if it stays so")
      ]
    }
    if (recent.length > MANY_RESTARTS) {
      const times = `${recent.length} times in the last 10 minutes`
      return [
        broken(`actor ${name} broke down ${times}: ${why}`, "mend what its error names, or report it with the log")
      ]
    }
    return queues.filter(({ capacity, depth }) => depth > capacity * FULL).map(({ name: queue }) =>
      poor(
        `actor ${name} does not keep up: its queue ${queue} is nearly full`,
        "this machine is too busy, or too small"
      )
    )
  })

const ofThreads = (threads: Threads): ReadonlyArray<Finding> =>
  threads.filter(({ health }) => health !== null && health.loopDelayP99Ms > SLOW_LOOP_MS).map(({ health, name }) =>
    poor(
      `thread ${name} is late by ${Math.round(health?.loopDelayP99Ms ?? 0)} ms and more`,
      "this machine is too busy: stop what else runs here, or move sallyport"
    )
  )

const ofPeers = ({ peers }: Status): ReadonlyArray<Finding> =>
  peers.flatMap(({ name, path, reason }) => {
    const [code = ""] = reason.split(" ")
    if (path === "direct" || !Schema.is(Reason)(code)) return []
    const remedy = REMEDY[code]
    if (remedy === undefined) return []
    const found = `${name} is reached by ${path ?? "nothing"}: ${TEXT[code]}`
    return [code === "nothing_answers" ? broken(found, remedy) : poor(found, remedy)]
  })
