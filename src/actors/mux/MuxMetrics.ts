/** Metrics of a node's data plane. The router counts packets. Everything else is counted here. */
import type { VerdictCode } from "../../protocol/flow/FlowWire.ts"
import * as PathKind from "../../protocol/path/PathKind.ts"
import type { Reason } from "../../protocol/path/PathRef.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { FlowSession } from "../../transport/plane/FlowSession.ts"
import type { PacketRouter } from "../../transport/plane/PacketRouter.ts"
import { ResourceMetrics } from "./ResourceMetrics.ts"

/** Objects whose counters {@link MuxMetrics} reads. */
export interface Options {
  readonly router: PacketRouter
  readonly sessions: () => ReadonlyArray<FlowSession>
  readonly kindOf: (session: FlowSession) => PathKind.PathKind
}

export class MuxMetrics {
  readonly resources = new ResourceMetrics()
  readonly #verdicts = new Metrics.Counts<VerdictCode>()
  readonly #resets = new Metrics.Counts<`${string} ${string} ${VerdictCode}`>()
  readonly #openTimes = new Metrics.Distribution()
  readonly #switches = new Metrics.Counts<`${PathKind.PathKind} ${Reason}`>()
  readonly #roundTrips = new Map<PathKind.PathKind, Metrics.Distribution>()
  readonly #directTimes = new Metrics.Distribution()

  /**
   * Counts a flow that was accepted or refused. `seconds` is the time since the application asked,
   * or `null` if it is not known here.
   */
  onFlow(verdict: VerdictCode, seconds: number | null): void {
    this.#verdicts.add(verdict)
    if (seconds !== null && verdict === "accepted") this.#openTimes.observe(seconds)
  }

  /**
   * Counts a connection that a forward accepted and then reset, because its flow was not opened.
   * `forward` is the forward's address, and `target` its resource with the port.
   */
  onForwardReset(forward: string, target: string, code: VerdictCode): void {
    this.#resets.add(`${forward} ${target} ${code}`)
  }

  onSwitch(to: PathKind.PathKind, reason: Reason): void {
    this.#switches.add(`${to} ${reason}`)
  }

  /** Records how long after its start a session had its first direct path. */
  onFirstDirect(seconds: number): void {
    this.#directTimes.observe(seconds)
  }

  onPong(kind: PathKind.PathKind, rttMs: number): void {
    const known = this.#roundTrips.get(kind) ?? new Metrics.Distribution()
    this.#roundTrips.set(kind, known)
    known.observe(rttMs / 1000)
  }

  read(options: Options): ReadonlyArray<Metrics.Family> {
    return [...ofTraffic(options.router), ...ofSessions(options), ...this.#counted(), ...this.resources.read()]
  }

  #counted(): ReadonlyArray<Metrics.Family> {
    return [
      Metrics.counter(
        { name: "sallyport_flow_opens", help: "Flows that were asked for, by the answer." },
        this.#verdicts.points("code")
      ),
      Metrics.counter(
        {
          name: "sallyport_forward_resets",
          help: "Connections that a forward accepted and reset, by forward, target and answer."
        },
        this.#resets.points("all").map(({ labels, value }) => {
          const [forward = "", target = "", code = ""] = (labels["all"] ?? "").split(" ")
          return { labels: { forward, target, code }, value }
        })
      ),
      Metrics.histogram({
        name: "sallyport_flow_open_seconds",
        unit: "seconds",
        help: "From an application's question until the resource had accepted."
      }, [{ labels: {}, of: this.#openTimes }]),
      Metrics.counter(
        { name: "sallyport_path_switches", help: "Moves of a session to another path, by where to and why." },
        this.#switches.points("both").map(({ labels, value }) => {
          const [path = "", reason = ""] = (labels["both"] ?? "").split(" ")
          return { labels: { path, reason }, value }
        })
      ),
      Metrics.histogram({
        name: "sallyport_path_rtt_seconds",
        unit: "seconds",
        help: "Round trips of probes that were answered."
      }, Array.from(this.#roundTrips, ([path, of]) => ({ labels: { path }, of }))),
      Metrics.histogram({
        name: "sallyport_session_direct_seconds",
        unit: "seconds",
        help: "From a session's start to its first direct path."
      }, [{ labels: {}, of: this.#directTimes }])
    ]
  }
}

const ofTraffic = ({ counters, traffic }: PacketRouter): ReadonlyArray<Metrics.Family> => {
  const each = (read: (kind: PathKind.PathKind) => readonly [received: number, sent: number]) =>
    PathKind.PATH_KINDS.flatMap((path) => {
      const [received, sent] = read(path)
      return [
        { labels: { path, direction: "receive" }, value: received },
        { labels: { path, direction: "transmit" }, value: sent }
      ]
    })
  return [
    Metrics.counter(
      { name: "sallyport_path_bytes", unit: "bytes", help: "Bytes of sessions' packets, by path and direction." },
      each((kind) => [traffic[kind].bytesIn, traffic[kind].bytesOut])
    ),
    Metrics.counter(
      { name: "sallyport_path_packets", help: "Packets of sessions, by path and direction." },
      each((kind) => [traffic[kind].packetsIn, traffic[kind].packetsOut])
    ),
    Metrics.counter({
      name: "sallyport_path_dropped_packets",
      help: "Packets that came and were dropped, by cause."
    }, [
      { labels: { cause: "malformed" }, value: counters.strays },
      { labels: { cause: "unproved_address" }, value: counters.unproved },
      { labels: { cause: "unknown_tag" }, value: counters.unknownTag },
      { labels: { cause: "unknown_hint" }, value: counters.unknownHint },
      { labels: { cause: "relay_only" }, value: counters.relayOnly }
    ])
  ]
}

const ofSessions = ({ kindOf, sessions }: Options): ReadonlyArray<Metrics.Family> => {
  const up = sessions().filter(({ peer }) => peer.up)
  const kinds = new Metrics.Counts<PathKind.PathKind>()
  for (const kind of PathKind.PATH_KINDS) kinds.add(kind, 0)
  for (const session of up) kinds.add(kindOf(session))
  const flows = up.reduce((total, session) => total + session.flows, 0)
  return [
    Metrics.gauge({ name: "sallyport_sessions", help: "Sessions with peers, by path." }, kinds.points("path")),
    Metrics.gauge({ name: "sallyport_flows", help: "Flows that are open or being opened." }, [{
      labels: {},
      value: flows
    }])
  ]
}
