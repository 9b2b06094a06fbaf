/**
 * Diagnoses a running sallyport from its own status: what is wrong and what to do about it. It only
 * computes.
 */
import { Schema } from "effect"
import { CandidateView } from "../../protocol/candidate/CandidateView.ts"
import * as PathKind from "../../protocol/path/PathKind.ts"
import { Reason } from "../../protocol/path/PathRef.ts"
import type { Findings } from "../../protocol/relay/NodeReport.ts"
import { clockSetText, skewText, TELL_SKEW_MS } from "../../protocol/trust/DirectoryTime.ts"
import * as Outage from "../../protocol/trust/Outage.ts"
import * as Limits from "./Limits.ts"
import { REMEDY, TEXT } from "./ReasonText.ts"
import type { StateEntry } from "./Recorder.ts"

/** One problem and its remedy. */
export type Finding = Findings[number]

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
  heapUsedBytes: Schema.Number,
  limits: Schema.optional(Schema.Array(Limits.Met))
})
/** The answer of `/v1/actors`. */
export const Threads = Schema.Array(
  Schema.Struct({
    ...Actor.omit("queues").fields,
    health: Schema.NullOr(Health),
    actors: Schema.Array(Actor)
  })
)
export type Threads = typeof Threads.Type

/**
 * The part of the answer of `/v1/status` that the diagnosis uses. A relay has neither `signaling`
 * nor `leg`, but has `nodes`.
 */
export const Status = Schema.Struct({
  peers: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      path: Schema.NullOr(Schema.String),
      reason: Schema.String,
      rttMs: Schema.optional(Schema.NullOr(Schema.Number))
    })
  ),
  signaling: Schema.optional(
    Schema.NullOr(
      Schema.Struct({
        state: Schema.String,
        relay: Schema.String,
        problem: Schema.String,
        reason: Schema.optional(Schema.NullOr(Schema.String)),
        proxy: Schema.optional(Schema.NullOr(Schema.String)),
        keepaliveMs: Schema.optional(Schema.NullOr(Schema.Number)),
        clockAheadMs: Schema.optional(Schema.NullOr(Schema.Number))
      })
    )
  ),
  /**
   * When the home relay was last reached, in ms since the epoch, and when the first session ends
   * because of that, in epoch seconds. `null` if it is reached, and without sessions.
   */
  outage: Schema.optional(
    Schema.NullOr(Schema.Struct({ since: Schema.Number, endsAt: Schema.Number }))
  ),
  leg: Schema.optional(
    Schema.NullOr(
      Schema.Struct({
        kind: Schema.NullOr(Schema.String),
        cause: Schema.optional(Schema.String),
        reason: Schema.String
      })
    )
  ),
  /** UDP ports that a node's configuration names but that the node did not get. */
  missedPorts: Schema.optional(
    Schema.Array(Schema.Struct({ family: Schema.Number, port: Schema.Number, code: Schema.String }))
  ),
  /** The latest UDP send that a firewall on this machine forbade. `null` if none was. */
  udpForbidden: Schema.optional(Schema.NullOr(Schema.Struct({ code: Schema.String, agoMs: Schema.Number }))),
  nodes: Schema.optional(Schema.Array(Schema.Unknown)),
  /** Open flows of a connector that takes no new ones. `null` if it takes them. */
  draining: Schema.optional(Schema.NullOr(Schema.Struct({ flows: Schema.Number }))),
  /** Whether the process has been asked to end. */
  stopping: Schema.optional(Schema.Boolean),
  /** Addresses that are offered to peers. `null` while they are not known. */
  candidates: Schema.optional(Schema.NullOr(Schema.Array(CandidateView))),
  /** This host's addresses that are not offered to peers. `null` while they are not known. */
  leftOut: Schema.optional(Schema.NullOr(Schema.Array(CandidateView))),
  /**
   * Open files and sockets of the process. `limit` is `null` if there is none. The last `reserve`
   * of them are kept for the process itself.
   */
  descriptors: Schema.optional(
    Schema.NullOr(
      Schema.Struct({ open: Schema.Number, limit: Schema.NullOr(Schema.Number), reserve: Schema.Number })
    )
  ),
  /** Keys of the configuration that were changed and take effect only after a restart. */
  restartNeeded: Schema.optional(Schema.Array(Schema.String)),
  /** Why the last reload of the configuration failed. */
  reloadProblem: Schema.optional(Schema.NullOr(Schema.String)),
  /** Why the state directory cannot be written now. */
  stateTrouble: Schema.optional(Schema.NullOr(Schema.Struct({ code: Schema.String, message: Schema.String }))),
  /** Why a relay with the directory could not write it the last time. */
  directoryProblem: Schema.optional(Schema.NullOr(Schema.String)),
  /** How long its last write took, if that was long. */
  slowWriteMs: Schema.optional(Schema.NullOr(Schema.Number)),
  /**
   * How far the machine's clock is ahead of the directory's time, on the relay that holds the
   * directory.
   */
  clockAheadMs: Schema.optional(Schema.Number),
  /** State of the link to the directory, on a relay that has joined another one. */
  directory: Schema.optional(
    Schema.NullOr(Schema.Struct({ clockAheadMs: Schema.optional(Schema.NullOr(Schema.Number)) }))
  ),
  /** The addresses at which a relay serves UDP. */
  addresses: Schema.optional(
    Schema.Struct({
      all: Schema.Boolean,
      serving: Schema.Array(Schema.String),
      skipped: Schema.Array(Schema.Struct({ host: Schema.String, code: Schema.String })),
      unseen: Schema.Boolean
    })
  ),
  /** Flows that could not be opened in the last 10 minutes, newest first. */
  refusals: Schema.optional(
    Schema.Array(
      Schema.Struct({
        host: Schema.String,
        port: Schema.Number,
        forward: Schema.optional(Schema.NullOr(Schema.String)),
        peer: Schema.NullOr(Schema.String),
        code: Schema.String,
        why: Schema.String,
        count: Schema.Number
      })
    )
  )
})
export type Status = typeof Status.Type

/** Most restarts of one actor within `RECENT_MS` that may still be an accident. */
const MANY_RESTARTS = 3
/** How long a breakdown or a limit counts as recent, in milliseconds. */
const RECENT_MS = 10 * 60_000
/**
 * Event loop delay from which a thread counts as slow, in milliseconds. People notice such a delay.
 */
const SLOW_LOOP_MS = 100
/** Share of a queue's capacity above which it counts as full. */
const FULL = 0.8
/**
 * Round trip from which a relay counts as far away or busy, in milliseconds. Half around the world
 * and back takes 200 ms.
 */
const FAR_MS = 250
/** Most refused flows that are reported one by one. A port scan would otherwise fill the screen. */
const MAX_REFUSALS = 5

/** Input of a diagnosis. */
export interface Facts {
  /** Answer of `/v1/status`. `null` if it could not be read. */
  readonly status: Status | null
  readonly threads: Threads
  readonly states: ReadonlyArray<StateEntry>
  /** Present time, in epoch milliseconds. */
  readonly now: number
}

const NOTHING: Status = { peers: [] }

/** Returns all findings. Broken parts come before warnings. */
export const diagnose = (facts: Facts): ReadonlyArray<Finding> =>
  [
    ...ofStateDir(facts.status ?? NOTHING),
    ...ofLocalFirewall(facts.status ?? NOTHING),
    ...ofRelayLink(facts.status ?? NOTHING),
    ...ofAddresses(facts.status ?? NOTHING),
    ...ofMissedPorts(facts.status ?? NOTHING),
    ...ofThreadDeaths(facts),
    ...ofActors(facts),
    ...ofThreads(facts.threads),
    ...ofClock(facts.status ?? NOTHING),
    ...ofLimits(facts.threads),
    ...ofConfig(facts.status ?? NOTHING),
    ...ofDrain(facts.status ?? NOTHING),
    ...ofDescriptors(facts.status ?? NOTHING),
    ...ofPeers(facts.status ?? NOTHING),
    ...ofCandidates(facts.status ?? NOTHING),
    ...ofRefusals(facts.status ?? NOTHING),
    ...ofSlowRelays(facts.status ?? NOTHING)
  ].toSorted((left, right) => Number(right.severity === "broken") - Number(left.severity === "broken"))

const broken = (code: string, what: string, remedy: string): Finding => ({ severity: "broken", code, what, remedy })
const poor = (code: string, what: string, remedy: string): Finding => ({ severity: "poor", code, what, remedy })

/**
 * Remedy for a relay leg that does not use UDP, by its cause, if the cause says more than "the
 * network drops UDP".
 */
const LEG_REMEDY: Readonly<Record<string, string>> = {
  name:
    "check that a name server of this machine answers and knows the relay's name; sallyport asks DNS again every 30 s",
  udp_too_small:
    "raise the MTU of all links, tunnels and VPNs on the way to the relay to 1280 bytes or more (ip link shows it), " +
    "or let gateways fragment; sallyport tries again by itself",
  no_udp: "to relay faster, set listen.udp and advertise.udp at the relay"
}

/**
 * Code and remedy for a relay that is not connected, by the reason, if that says more than the mere
 * failure.
 */
const UNREACHED: Readonly<Record<string, readonly [code: string, remedy: string]>> = {
  proxy_refused: [
    "proxy_refuses",
    "allow this machine to reach the relay's HTTPS port through the proxy, or correct the key proxy"
  ],
  proxy_login: ["proxy_login", "correct the user and the password in the proxy's URL"],
  proxy_unusable: ["proxy_unusable", "correct the proxy's URL, or write proxy: none"],
  tls_intercepted: [
    "relay_intercepted",
    "sign in to this network in a browser, or have the relay exempted from TLS inspection; the node then connects by itself"
  ]
}

/**
 * Longest gap between two attempts to reach the relay by UDP, twice. An older refusal is history.
 */
const FORBIDDEN_MS = 60_000

/**
 * Whether a firewall on this machine refuses UDP. It counts only if packets are relayed without UDP
 * or a peer is not reached directly: single destinations may well be forbidden.
 */
const isForbidden = ({ leg, peers, udpForbidden = null }: Status): boolean =>
  udpForbidden !== null && udpForbidden.agoMs < FORBIDDEN_MS &&
  (!isOverUdp(leg) || peers.some(({ path }) => !PathKind.isDirect(path)))

const isOverUdp = (leg: Status["leg"]): boolean => PathKind.find(leg?.kind)?.carriedBy === "udp"

const ofLocalFirewall = (status: Status): ReadonlyArray<Finding> => {
  const { leg, udpForbidden } = status
  if (!isForbidden(status)) return []
  const instead = isOverUdp(leg) || !leg ? "" : `; meanwhile packets go by ${leg.kind ?? "nothing"}`
  return [
    (leg?.kind === null ? broken : poor)(
      "local_firewall",
      `this machine's own firewall refuses the UDP packets that sallyport sends (${
        udpForbidden?.code ?? ""
      })${instead}`,
      "allow outgoing UDP to the relay's UDP port, and to any port for direct paths (nft list ruleset or iptables -S OUTPUT " +
        "shows the rule); sallyport tries again by itself"
    )
  ]
}

const ofRelayLink = (status: Status): ReadonlyArray<Finding> => {
  const { leg, nodes, outage, signaling } = status
  const found: Array<Finding> = []
  if (signaling && signaling.state !== "up") {
    const [code, remedy] = UNREACHED[signaling.reason ?? ""] ?? []
    const by = signaling.proxy === null || signaling.proxy === undefined ? "" : ` by the proxy ${signaling.proxy}`
    found.push(
      broken(
        signaling.state === "refused" ? "relay_refuses" : code ?? "relay_unreachable",
        `the relay ${signaling.relay} is not connected${by}: ${signaling.problem}`,
        remedy !== undefined
          ? remedy
          : signaling.state === "refused"
          ? "enrol this node again: run sallyport token create at the relay, set token in this configuration, and empty stateDir"
          : "check that the relay runs and that this machine reaches its HTTPS port"
      )
    )
  }
  if (outage) {
    found.push(
      poor(
        "offline_access",
        `${Outage.text(outage)}; meanwhile this node learns of no changed rule and no removed node`,
        "bring the home relay back; offlineAccess at the connector says how long access goes on"
      )
    )
  }
  if (signaling?.keepaliveMs) {
    found.push(
      poor(
        "idle_timeout",
        `something between this node and the relay closes idle connections early, so this node sends a keepalive every ${
          (signaling.keepaliveMs / 1000).toFixed(1)
        } s`,
        "raise the idle timeout of the load balancer in front of the relay, or of this network's firewall, to at least 60 s"
      )
    )
  }
  const isTold = isForbidden(status) // by the firewall's finding
  if (leg && leg.kind === null && !isTold) {
    found.push(
      broken(
        "no_leg",
        `packets cannot be relayed: ${leg.reason}`,
        LEG_REMEDY[leg.cause ?? ""] ?? "check that this machine reaches the relay's UDP or HTTPS port"
      )
    )
  } else if (leg && !isTold) {
    const { code, more, what } = PathKind.find(leg.kind)?.remedy ?? {}
    const remedy = LEG_REMEDY[leg.cause ?? ""] ?? `${REMEDY.udp_blocked}${more ? `; or, ${more}` : ""}`
    if (code !== undefined) found.push(poor(code, `${what}: ${leg.reason}`, remedy))
  }
  if (nodes?.length === 0) {
    found.push(
      poor("no_node", "no node is connected", "start a connector or a client with a token from sallyport token create")
    )
  }
  return found
}

/**
 * Reports wrong clocks. They do no harm, but they confuse people who compare the logs of two
 * machines.
 */
const ofClock = ({ clockAheadMs = 0, directory, signaling }: Status): ReadonlyArray<Finding> => {
  if (Math.abs(clockAheadMs) > TELL_SKEW_MS) {
    return [
      poor(
        "clock_set",
        clockSetText(clockAheadMs),
        "check this machine's clock; if it is right now, restart this relay at a convenient time"
      )
    ]
  }
  const ahead = signaling?.clockAheadMs ?? directory?.clockAheadMs ?? 0
  if (Math.abs(ahead) <= TELL_SKEW_MS) return []
  return [
    poor(
      "clock_wrong",
      `${skewText(ahead)}; sallyport uses the relay's time, but the times in the logs are wrong`,
      "correct whichever clock is wrong, this machine's or the relay's; NTP keeps clocks right"
    )
  ]
}

/**
 * A node keeps next to nothing after it has enrolled, so that it may even run on a read-only disk.
 */
const ofStateDir = (
  { directoryProblem = null, nodes, slowWriteMs = null, stateTrouble = null }: Status
): ReadonlyArray<Finding> => {
  if (stateTrouble !== null) {
    const [what = "", remedy = ""] = stateTrouble.message.split("; ")
    const found = `the state directory cannot be written: ${what}`
    return [
      nodes === undefined
        ? poor("state_dir", `${found}; nothing is saved until it can`, remedy)
        : broken("state_dir", `${found}; no node, token or rule can be changed until it can`, remedy)
    ]
  }
  if (slowWriteMs !== null) {
    const took = `${(slowWriteMs / 1000).toFixed(1)} s`
    return [poor(
      "slow_disk",
      `the disk of the state directory is slow: one write took ${took}, and each new session waits for a write`,
      "move stateDir to a faster disk, or stop other programs that keep this disk busy"
    )]
  }
  if (directoryProblem === null) return []
  const found = `the directory cannot be written, so no node, token or rule can be changed: ${directoryProblem}`
  return [broken("directory", found, "fix what the message names; the relay tries again by itself")]
}

const ofDrain = ({ draining, stopping = false }: Status): ReadonlyArray<Finding> => {
  if (!draining) return []
  const open = `${draining.flows} ${draining.flows === 1 ? "flow is" : "flows are"} still open`
  return [
    stopping
      ? poor(
        "stopping",
        `this connector was asked to stop and waits for its open flows: ${open}`,
        "nothing; it ends with its last flow, or when drainTimeout is over"
      )
      : poor(
        "draining",
        `somebody took this connector out of service on purpose (sallyport drain); it takes no new flows, and ${open}`,
        "take it back with sallyport drain --cancel when the maintenance is over; a restart does so, too"
      )
  ]
}

const ofConfig = ({ reloadProblem = null, restartNeeded = [] }: Status): ReadonlyArray<Finding> => [
  ...(reloadProblem === null ? [] : [
    broken(
      "reload_failed",
      `the configuration file could not be reloaded, so the old values stay in effect: ${firstLine(reloadProblem)}`,
      "fix what the message names, then reload (SIGHUP)"
    )
  ]),
  ...(restartNeeded.length === 0 ? [] : [
    poor(
      "restart_needed",
      `the configuration was reloaded, but the old values of ${restartNeeded.join(", ")} stay in effect`,
      "restart sallyport"
    )
  ])
]

/** Share of the descriptors for connections above which a shortage is near. */
const NEARLY_ALL = 0.8

const ofDescriptors = ({ descriptors }: Status): ReadonlyArray<Finding> => {
  if (!descriptors || descriptors.limit === null) return []
  const { limit, open, reserve } = descriptors
  if (open < (limit - reserve) * NEARLY_ALL) return []
  return [poor(
    "descriptors_near",
    `${open} of the ${limit} files and sockets that this process may have are open, and the last ${reserve} are kept ` +
      "for the process itself: it will soon refuse connections",
    Limits.TEXT.descriptors.remedy
  )]
}

const ofMissedPorts = ({ missedPorts = [] }: Status): ReadonlyArray<Finding> =>
  missedPorts.map(({ code, family, port }) =>
    poor(
      "udp_port_missed",
      `the configured UDP port ${port} is not available over IPv${family} (${code}), so this node uses another one, ` +
        "and packets that a router forwards to the configured one do not arrive",
      code === "EADDRINUSE"
        ? "stop the program that has the port (ss -lunp shows it), or set another udp.port; sallyport tries this port again every 30 s"
        : "set udp.port to a port above 1023, or grant CAP_NET_BIND_SERVICE; sallyport tries this port again every 30 s"
    )
  )

const isLoopback = (host: string): boolean => host.startsWith("127.") || host === "::1"

const ofAddresses = ({ addresses }: Status): ReadonlyArray<Finding> => {
  if (addresses === undefined) return []
  const { all, serving, skipped, unseen } = addresses
  const found = skipped.map(({ code, host }) =>
    code === "EADDRNOTAVAIL"
      ? (serving.length === 0 ? broken : poor)(
        "address_absent",
        `nodes cannot bind at ${host} by UDP: this machine does not have that address now (${code})`,
        "check that its interface is up and the address is no duplicate (ip addr shows dadfailed), or correct listen.udp; " +
          "the relay uses the address as soon as it is there"
      )
      : poor(
        "address_skipped",
        `nodes cannot bind at ${host} by UDP: the system does not give this relay its port there (${code})`,
        code === "EADDRINUSE"
          ? "stop the other program that has the port (ss -lunp shows it); the relay tries again by itself"
          : "check whether the address is a duplicate (ip addr shows dadfailed); the relay tries again by itself"
      )
  )
  if (unseen) {
    found.push(
      poor(
        "addresses_unseen",
        "this relay cannot see the machine's addresses: the system denies it netlink, and /proc/net cannot be read",
        "allow AF_NETLINK (RestrictAddressFamilies of the systemd unit), or name the address in listen.udp"
      )
    )
  } else if (all && serving.every(isLoopback)) {
    found.push(
      broken(
        "no_address",
        "nodes can bind by UDP at loopback addresses only, because this machine has no other address",
        "check that its network interface is up and has an address (ip addr); the relay uses the address as soon as it is there"
      )
    )
  }
  return found
}

/** Recent breakdowns of an actor or a thread, the latest one last. */
const recentDeaths = (kind: StateEntry["kind"], name: string, { now, states }: Facts): ReadonlyArray<StateEntry> =>
  states.filter((entry) =>
    entry.kind === kind && entry.name === name && entry.state === "restarting" && now - entry.at < RECENT_MS
  )

const firstLine = (text: string | null | undefined): string => text?.split("\n")[0] ?? ""

const ofCrashLoop = (what: string, deaths: ReadonlyArray<StateEntry>): ReadonlyArray<Finding> => {
  if (deaths.length <= MANY_RESTARTS) return []
  const times = `${deaths.length} times in the last 10 minutes`
  return [
    broken(
      "crash_loop",
      `${what} failed ${times}: ${firstLine(deaths.at(-1)?.message)}`,
      "fix the cause that the error names, or report it with the log"
    )
  ]
}

const ofActors = (facts: Facts): ReadonlyArray<Finding> =>
  facts.threads.flatMap((thread) => thread.actors.map((actor) => ({ actor, thread }))).flatMap(({ actor, thread }) => {
    const { lastError, name, queues, state } = actor
    const deaths = recentDeaths("actor", name, facts)
    const why = thread.state === "up" ?
      firstLine(deaths.at(-1)?.message ?? lastError)
      : `its thread ${thread.name} is ${thread.state}: ${firstLine(thread.lastError)}`
    if (state !== "up") {
      return [
        broken(
          "actor_down",
          `actor ${name} is ${state}: ${why}`,
          "look in the log for its error; restart the process if the actor does not come up"
        )
      ]
    }
    const loop = ofCrashLoop(`actor ${name}`, deaths)
    if (loop.length > 0) return loop
    return queues.filter(({ capacity, depth }) => depth > capacity * FULL).map(({ name: queue }) =>
      poor(
        "queue_full",
        `actor ${name} does not keep up: its queue ${queue} is nearly full`,
        "this machine is too busy or too small; stop other programs on it, or move sallyport to another machine"
      )
    )
  })

/**
 * Reports threads that break down repeatedly. They come before their actors' findings, because they
 * are the cause of those.
 */
const ofThreadDeaths = (facts: Facts): ReadonlyArray<Finding> =>
  facts.threads.flatMap(({ actors, name }) =>
    ofCrashLoop(
      `thread ${name} with ${actors.map((actor) => actor.name).join(", ")}`,
      recentDeaths("thread", name, facts)
    )
  )

const ofThreads = (threads: Threads): ReadonlyArray<Finding> =>
  threads.filter(({ health }) => health !== null && health.loopDelayP99Ms > SLOW_LOOP_MS).map(({ health, name }) =>
    poor(
      "thread_late",
      `thread ${name} runs late, by ${Math.round(health?.loopDelayP99Ms ?? 0)} ms or more`,
      "this machine is too busy; stop other programs on it, or move sallyport to another machine"
    )
  )

const isLimit = (name: string): name is Limits.Limit => Object.hasOwn(Limits.TEXT, name)

/** Reports recent limits. A limit that several threads have reached is reported once. */
const ofLimits = (threads: Threads): ReadonlyArray<Finding> => {
  const recent = new Map<Limits.Limit, number>()
  for (const { agoMs, limit, times } of threads.flatMap(({ health }) => health?.limits ?? [])) {
    if (isLimit(limit) && agoMs < RECENT_MS) recent.set(limit, (recent.get(limit) ?? 0) + times)
  }
  return Array.from(recent, ([limit, times]) => {
    const { remedy, what } = Limits.TEXT[limit]
    return poor(
      `limit_${limit}`,
      `${what} (${times} times since the start, most recently in the last 10 minutes)`,
      remedy
    )
  })
}

const ofSlowRelays = ({ peers }: Status): ReadonlyArray<Finding> =>
  peers.flatMap(({ name, path, rttMs }) => {
    if (path === null || PathKind.isDirect(path) || (rttMs ?? 0) <= FAR_MS) return []
    return [
      poor(
        "relay_far",
        `a round trip to ${name} through the relay takes ${Math.round(rttMs ?? 0)} ms: the relay is far away, or busy`,
        "add a relay that is nearer to both sides, or make a direct path possible (sallyport netcheck says what prevents it)"
      )
    ]
  })

const ofPeers = (status: Status): ReadonlyArray<Finding> =>
  status.peers.flatMap(({ name, path, reason }) => {
    const [code = ""] = reason.split(" ")
    if (code === "udp_blocked" && isForbidden(status)) return [] // the firewall's finding says it
    if (!Schema.is(Reason)(code) || (PathKind.isDirect(path) && code !== "nothing_answers")) return []
    const remedy = REMEDY[code]
    if (remedy === undefined) return []
    const found = `${name} is ${path === null ? "not reached" : `reached by ${path}`}: ${TEXT[code]}`
    return [code === "nothing_answers" ? broken(code, found, remedy) : poor(code, found, remedy)]
  })

const ofRefusals = ({ refusals = [] }: Status): ReadonlyArray<Finding> =>
  refusals.slice(0, MAX_REFUSALS).map(({ code, count, forward = null, host, peer, port, why }) => {
    const times = count === 1 ? "a flow" : `${count} flows`
    const who = peer === null ? "" : ` with ${peer}`
    const because = `${code}${why === "" ? "" : `, ${why}`}`
    // The forward's address is not in the finding, because a relay's operator may read it.
    const reset = count === 1 ? "was reset at its forward" : "were reset at their forward"
    const outcome = forward === null ? "failed" : reset
    const found = `${times} to ${host}:${port}${who} ${outcome} in the last 10 minutes: ${because}`
    return poor("flow_refused", found, REFUSAL_REMEDY[code] ?? "look in the connector's log for the cause")
  })

/**
 * Remedy for a refused flow, by the code of its verdict. The reason of the refusal comes before it,
 * and may contain a remedy too.
 */
const REFUSAL_REMEDY: Readonly<Record<string, string>> = {
  refused: "check that the service of this resource runs, and that its address and port are right at the relay",
  unreachable: "check that the connector runs and that its host reaches the resource",
  timed_out: "check that the resource answers the connector's host, and that its name servers answer",
  denied: "check resources and access in the relay's configuration",
  name_not_found: "correct the name, or add the resource at the relay; the connector's host must know its address",
  port_not_listed: "use another port, or add this one under resources at the relay",
  grant_expired: "check that both nodes reach the relay",
  too_many_flows: "close flows, or use another connector"
}

/**
 * Reports advertised addresses that are not offered. The finding contains no address, because a
 * relay's operator may read it.
 */
const ofCandidates = ({ leftOut }: Status): ReadonlyArray<Finding> =>
  (leftOut ?? []).some(({ kind }) => kind === "static")
    ? [
      poor(
        "static_left_out",
        "addresses in udp.advertise are not offered to peers: this node did not get the local port udp.port",
        "free that port (ss -ulpn says which program has it), or set udp.port and the router to another one"
      )
    ]
    : []
