/** The interface of a started role. It is the same for every role. */
import type { Effect, Stream } from "effect"
import type { ExamineFailed, HubError, Network, Wanted } from "../actors/hub/SignalingHubRpcs.ts"
import type { Draining, ListenFailed } from "../actors/mux/StreamMuxRpcs.ts"
import type { Decided, PingFailed } from "../actors/path/PathProberRpcs.ts"
import type { ActorUnavailable } from "../actors/runtime/actor/ActorRef.ts"
import type { Supervisor } from "../actors/runtime/supervisor/Supervisor.ts"
import type { SignalingDown } from "../actors/signaling/SignalingRpcs.ts"
import type { NetCheckFailed } from "../actors/stun/StunRpcs.ts"
import type { NetReport } from "../protocol/nat/NatReport.ts"
import type { PathKind } from "../protocol/path/PathKind.ts"
import type { Findings } from "../protocol/relay/NodeReport.ts"
import type { Resource } from "../protocol/trust/Documents.ts"
import type { Config } from "../services/config/Config.ts"

/**
 * How long a reload waits for an actor to take the new settings. It is long, because the removal of
 * an access rule must also arrive on a host that is too busy to answer soon.
 */
export const RELOAD = { deadline: "1 minute" } as const

/** A peer with an open session, as `sallyport status` shows it. */
export interface Peer {
  /** Name of the peer. */
  readonly name: string
  /** Kind of the path that the session's packets take now. */
  readonly path: PathKind
  /**
   * Name of the relay that carries the session's packets, if it is another one than the node's home
   * relay. `null` if the home relay carries them, or no relay does.
   */
  readonly relay: string | null
  /**
   * Last round trip measured on this path, in milliseconds. `null` if none has been measured yet.
   */
  readonly rttMs: number | null
  /** Why the session uses this path. Never empty. */
  readonly reason: string
  /** Number of flows that are open now. */
  readonly flows: number
  /** Bytes received in this session. */
  readonly bytesIn: number
  /** Bytes sent in this session. */
  readonly bytesOut: number
}

/** Whether a connector is draining, and what is open at it. */
export interface DrainState extends Draining {
  readonly draining: boolean
}

/** Result of one round trip to a peer. */
export interface Ping {
  readonly peer: string
  /** Round trip in milliseconds. */
  readonly rttMs: number
  readonly path: PathKind
  /** Same meaning as {@link Peer.relay}. */
  readonly relay: string | null
  readonly reason: string
}

/** A started role. It stops when the scope in which it was started closes. */
export interface Running {
  readonly supervisor: Supervisor
  /** Listeners by name, with their addresses and actual ports. */
  readonly listen: Readonly<Record<string, string>>
  /** Identity of this process. */
  readonly self: {
    readonly role: Config["role"]
    readonly name: string
    /** The connector's network. `null` for every other role. */
    readonly network: string | null
    /**
     * The relay at which this node enrolled, as `host:port`. `null` for the relay with the
     * directory.
     */
    readonly relay: string | null
  }
  /** Current status: `peers`, and more fields that depend on the role. */
  readonly status: Effect.Effect<{ readonly peers: ReadonlyArray<Peer> }, ActorUnavailable>
  /** Reasons why the process cannot do its work now, in words for the operator. Empty if it can. */
  readonly unready: Effect.Effect<ReadonlyArray<string>, ActorUnavailable>
  /** Decisions of the path prober, as they are made. Empty for a relay. */
  readonly decisions: Stream.Stream<Decided, ActorUnavailable>
  /** Resources that this client may use now, as its relay says. `null` for other roles. */
  readonly resources: Effect.Effect<ReadonlyArray<Resource>, ActorUnavailable | SignalingDown> | null
  /** Checks how the network treats UDP. `null` for a relay, which has no server to ask. */
  readonly netcheck: Effect.Effect<NetReport, ActorUnavailable | NetCheckFailed> | null
  /** Measures a round trip to a peer. `null` for a relay, which has no sessions of its own. */
  readonly ping: ((peer: string) => Effect.Effect<Ping, ActorUnavailable | PingFailed>) | null
  /**
   * Network overview built from node reports, and the result of running `doctor` on a node. `null`
   * except on the relay that holds the directory.
   */
  readonly network: {
    readonly overview: (wanted: Wanted) => Effect.Effect<Network, ActorUnavailable | HubError>
    readonly examine: (node: string) => Effect.Effect<Findings, ActorUnavailable | ExamineFailed>
  } | null
  /** Takes a connector out of service and back. `null` for roles that serve no flows. */
  readonly drain: {
    /**
     * Takes no new flows from now on and asks clients to use another connector, or takes new flows
     * again. It may be repeated. If it fails, the part that did not answer follows after its
     * restart.
     */
    readonly set: (wanted: boolean) => Effect.Effect<DrainState, ActorUnavailable>
    readonly state: Effect.Effect<DrainState, ActorUnavailable>
  } | null
  /**
   * Applies the keys of this role that take effect while it runs (`live` in `Reload`). If it fails,
   * none is applied.
   */
  readonly reload: (config: Config) => Effect.Effect<void, ActorUnavailable | HubError | ListenFailed>
}
