/** What other actors may ask of the StunActor, and what it asks of the owner of the UDP sockets. No behaviour here. */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { Candidate, CandidateList, Mapping } from "../protocol/Candidate.ts"
import { MAX_LEFT_OUT } from "../protocol/CandidateChoice.ts"
import { Lifetime } from "../protocol/MappingLifetime.ts"
import { NetReport } from "../protocol/NatReport.ts"
import { SocketAddr } from "../protocol/SocketAddr.ts"
import * as ActorAddress from "./runtime/ActorAddress.ts"

/** Servers to ask; more are not needed, and each costs packets at every refresh. */
export const MAX_SERVERS = 8

/** No usable answer from `server` after `sends` requests. Retrying at once is useless; try another server. */
export class StunTimeout extends Schema.TaggedError<StunTimeout>()("StunTimeout", {
  server: SocketAddr,
  sends: Schema.Int
}) {
  override get message(): string {
    return `no STUN answer from ${this.server.host}:${this.server.port} after ${this.sends} requests; ` +
      `check that UDP to that port is allowed here, or try another server`
  }
}

/** The request could not be asked: no socket of the server's family, or the data plane is being restarted. */
export class StunUnavailable extends Schema.TaggedError<StunUnavailable>()("StunUnavailable", {
  server: SocketAddr,
  message: Schema.String
}) {}

/** The network could not be checked; `message` says why. */
export class NetCheckFailed extends Schema.TaggedError<NetCheckFailed>()("NetCheckFailed", {
  message: Schema.String
}) {}

/** The address that a server sees this host's socket at. */
export const Mapped = Schema.Struct({ mapped: SocketAddr, rttMs: Schema.Number })
export type Mapped = typeof Mapped.Type

/** `unknown`: no server has answered or failed yet, or none is set. `blocked`: every server stayed silent. */
export const UdpReach = Schema.Literal("unknown", "works", "blocked")
export type UdpReach = typeof UdpReach.Type

export const LocalCandidates = Schema.Struct({
  candidates: CandidateList,
  /** Usable addresses of this host that are not offered to peers; see `CandidateChoice`. */
  leftOut: Schema.Array(Candidate).pipe(Schema.maxItems(MAX_LEFT_OUT)),
  udp: UdpReach,
  /** Absent: not known. */
  mapping: Schema.optional(Mapping),
  /** How long an idle mapping of this host lasts. Absent: not known. */
  lifetime: Schema.optional(Lifetime)
})
export type LocalCandidates = typeof LocalCandidates.Type

/**
 * `addresses` or `route`: of this host. `woke`: it was asleep. `mapping`: a translator before it maps its packets otherwise than
 * before, so what is beyond may have forgotten it.
 */
export const NetworkReason = Schema.Literal("addresses", "route", "woke", "mapping")
export const NetworkChange = Schema.Struct({
  reason: NetworkReason,
  /** This host's addresses now. */
  hosts: Schema.Array(Schema.String),
  /** IP versions whose way out has lost its address: what was sent by it has no way back. */
  lost: Schema.Array(Schema.Literal(4, 6))
})
export type NetworkChange = typeof NetworkChange.Type

export class StunRpcs extends RpcGroup.make(
  /** This host's candidates: a snapshot, at once or as soon as the UDP sockets are known, and then each change. */
  Rpc.make("Candidates", { success: LocalCandidates, stream: true }),
  Rpc.make("Discover", {
    payload: { server: SocketAddr },
    success: Mapped,
    error: Schema.Union(StunTimeout, StunUnavailable)
  }),
  /**
   * Replaces the servers (literal addresses). `relayHost`: the literal address at which the relay was reached; where it is a
   * loopback address, loopback is offered as a candidate, too.
   */
  Rpc.make("SetServers", {
    payload: {
      servers: Schema.Array(SocketAddr).pipe(Schema.maxItems(MAX_SERVERS)),
      relayHost: Schema.NullOr(Schema.String)
    }
  }),
  /** What `Candidates` told last; `null` while the UDP sockets are not known. */
  Rpc.make("Local", { success: Schema.NullOr(LocalCandidates) }),
  /** Those that this host can ask now. */
  Rpc.make("Servers", { success: Schema.Array(SocketAddr) }),
  /** How the network treats UDP, asked of the relay. Takes up to 4 s; those who ask at the same time wait in turn. */
  Rpc.make("NetCheck", { success: NetReport, error: NetCheckFailed }),
  /**
   * How many sessions are up: mappings are kept fresh only while there are some. `flowing`: so many of them have flows, and only
   * while none has does this host look how long idle mappings last.
   */
  Rpc.make("SetActiveSessions", {
    payload: {
      count: Schema.NonNegativeInt,
      flowing: Schema.NonNegativeInt
    }
  }),
  /** From now on. When it is told, the UDP sockets have been opened anew if they had to be. */
  Rpc.make("NetworkChanges", { success: NetworkChange, stream: true }),
  /** The relay sees this node at another address than before, though no address of this host has changed. */
  Rpc.make("MappingChanged", {})
) {}

export const Stun = ActorAddress.make("stun", StunRpcs)

// ------------------------------------------------------------------------------- what the owner of the UDP sockets serves

/** A datagram that is no session's: STUN, or the relay's control messages (their frame's head is taken off). */
export const ControlDatagram = Schema.Struct({ from: SocketAddr, bytes: Schema.Uint8ArrayFromSelf })
export type ControlDatagram = typeof ControlDatagram.Type

/** To be merged into the data plane's RPCs. */
export class UdpControlRpcs extends RpcGroup.make(
  /** Sends the bytes as they are, from the socket of that family. Without such a socket they are dropped. */
  Rpc.make("SendControl", {
    payload: { family: Schema.Literal(4, 6), to: SocketAddr, bytes: Schema.Uint8ArrayFromSelf }
  }),
  /** From now on. A slow reader loses the oldest. */
  Rpc.make("ControlDatagrams", {
    payload: { kind: Schema.Literal("stun", "relay") },
    success: ControlDatagram,
    stream: true
  }),
  /**
   * Opens another socket of each IP version in place of the one there is, on another port: translators may hold the old port for
   * an address that this host no longer has. A port that config fixes stays as it is.
   */
  Rpc.make("RebindSockets", { payload: { families: Schema.Array(Schema.Literal(4, 6)) } }),
  /** The ports of the bound sockets. */
  Rpc.make("LocalPorts", {
    success: Schema.Struct({
      v4: Schema.optional(Schema.Int),
      v6: Schema.optional(Schema.Int),
      /** Where the configured port could not be had, and another one is used. */
      missed: Schema.optional(
        Schema.Array(Schema.Struct({ family: Schema.Literal(4, 6), port: Schema.Int, code: Schema.String }))
      )
    })
  }),
  /** Tries again to take the configured port where it was missed. `true` if a socket has it now in place of its port before. */
  Rpc.make("TakeConfiguredPort", { success: Schema.Boolean })
) {}
