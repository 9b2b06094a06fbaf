/** What a started role offers to whoever started it, whichever role it is. */
import type { Effect, Stream } from "effect"
import type { Decided, PingFailed } from "../actors/PathProberRpcs.ts"
import type { ActorUnavailable } from "../actors/runtime/ActorRef.ts"
import type { Supervisor } from "../actors/runtime/Supervisor.ts"
import type { ExamineFailed, HubError, Network, Wanted } from "../actors/SignalingHubRpcs.ts"
import type { SignalingDown } from "../actors/SignalingRpcs.ts"
import type { ListenFailed } from "../actors/StreamMuxRpcs.ts"
import type { NetCheckFailed } from "../actors/StunRpcs.ts"
import type { Resource } from "../protocol/Documents.ts"
import type { NetReport } from "../protocol/NatReport.ts"
import type { Findings } from "../protocol/NodeReport.ts"
import type { PathKind } from "../protocol/PathKind.ts"
import type { Config } from "../services/config/Config.ts"

export interface Peer {
  readonly name: string
  readonly path: PathKind
  /** The relay by which its packets go, if it is another one than the node's own; null: none, or the node's own. */
  readonly relay: string | null
  readonly rttMs: number | null
  /** Why it is this path; never empty. */
  readonly reason: string
  readonly flows: number
  readonly bytesIn: number
  readonly bytesOut: number
}

/** One round trip, just made. */
export interface Ping {
  readonly peer: string
  readonly rttMs: number
  readonly path: PathKind
  /** As in `Peer`. */
  readonly relay: string | null
  readonly reason: string
}

export interface Running {
  readonly supervisor: Supervisor
  /** Names and addresses of what listens, with real ports. */
  readonly listen: Readonly<Record<string, string>>
  /** Who this process is. */
  readonly self: {
    readonly role: Config["role"]
    readonly name: string
    /** `null` for every role but a connector. */
    readonly network: string | null
    /** The relay that this node enrolled at, as `host:port`. `null` for the relay with the directory. */
    readonly relay: string | null
  }
  /** `peers`, and what else there is to say. */
  readonly status: Effect.Effect<{ readonly peers: ReadonlyArray<Peer> }, ActorUnavailable>
  /** What keeps it from doing its work now, each in words with what to see to; empty: nothing. */
  readonly unready: Effect.Effect<ReadonlyArray<string>, ActorUnavailable>
  /** Decisions about paths, as they are made. */
  readonly decisions: Stream.Stream<Decided, ActorUnavailable>
  /** What this client may use now, as its relay says. `null` for the other roles. */
  readonly resources: Effect.Effect<ReadonlyArray<Resource>, ActorUnavailable | SignalingDown> | null
  /** How the network treats UDP; null for a relay, which has nobody to ask. */
  readonly netcheck: Effect.Effect<NetReport, ActorUnavailable | NetCheckFailed> | null
  /** Null for a relay, which has no sessions of its own. */
  readonly ping: ((peer: string) => Effect.Effect<Ping, ActorUnavailable | PingFailed>) | null
  /** The network as its nodes report it, and what the doctor of a node says; null but for the relay of the directory. */
  readonly network: {
    readonly overview: (wanted: Wanted) => Effect.Effect<Network, ActorUnavailable | HubError>
    readonly examine: (node: string) => Effect.Effect<Findings, ActorUnavailable | ExamineFailed>
  } | null
  /** Takes over the keys of this role that `Reload` calls live. All of them, or none if it fails. */
  readonly reload: (config: Config) => Effect.Effect<void, ActorUnavailable | HubError | ListenFailed>
}
