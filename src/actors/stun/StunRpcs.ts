/**
 * Calls of the StunActor, and its calls to the owner of the UDP sockets. This file has no
 * behaviour.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import { Candidate, CandidateList, Mapping } from "../../protocol/candidate/Candidate.ts"
import { MAX_LEFT_OUT } from "../../protocol/candidate/CandidateChoice.ts"
import { Lifetime } from "../../protocol/nat/MappingLifetime.ts"
import { NetReport } from "../../protocol/nat/NatReport.ts"
import * as ActorAddress from "../runtime/actor/ActorAddress.ts"

/** Most servers to ask. More are not needed, and each costs packets at every refresh. */
export const MAX_SERVERS = 8

/**
 * Error when `server` gave no usable answer to `sends` requests. Do not retry at once; try another
 * server.
 */
export class StunTimeout extends Schema.TaggedError<StunTimeout>()("StunTimeout", {
  server: SocketAddr,
  sends: Schema.Int
}) {
  override get message(): string {
    return `no STUN answer from ${this.server.host}:${this.server.port} after ${this.sends} requests; ` +
      `check that UDP to that port is allowed here, or try another server`
  }
}

/**
 * Error when a request was not sent. Either `server` is no literal address, no socket of its IP
 * version is open, or too many requests are in progress.
 */
export class StunUnavailable extends Schema.TaggedError<StunUnavailable>()("StunUnavailable", {
  server: SocketAddr,
  message: Schema.String
}) {}

/** Error when the network could not be checked. `message` says why. */
export class NetCheckFailed extends Schema.TaggedError<NetCheckFailed>()("NetCheckFailed", {
  message: Schema.String
}) {}

/** This host's address as a STUN server sees it. */
export const Mapped = Schema.Struct({ mapped: SocketAddr, rttMs: Schema.Number })
export type Mapped = typeof Mapped.Type

/**
 * Whether UDP reaches STUN servers. `unknown`: no server has answered or failed yet, or none is
 * set. `blocked`: every server stayed silent.
 */
export const UdpReach = Schema.Literal("unknown", "works", "blocked")
export type UdpReach = typeof UdpReach.Type

/** Addresses that this host offers to peers, and the behaviour of its NAT. */
export const LocalCandidates = Schema.Struct({
  candidates: CandidateList,
  /** Usable addresses of this host that are not offered to peers; see `CandidateChoice`. */
  leftOut: Schema.Array(Candidate).pipe(Schema.maxItems(MAX_LEFT_OUT)),
  udp: UdpReach,
  /** How this host's NAT maps addresses. Absent if it is not known. */
  mapping: Schema.optional(Mapping),
  /** How long an idle mapping of this host lasts. Absent if it is not known. */
  lifetime: Schema.optional(Lifetime)
})
export type LocalCandidates = typeof LocalCandidates.Type

/**
 * Reason why the network counts as changed.
 * - `addresses`: this host's addresses changed.
 * - `route`: this host's default route or its UDP port changed.
 * - `woke`: this host was asleep.
 * - `mapping`: a NAT maps this host's packets differently, so peers may know an outdated address.
 */
export const NetworkReason = Schema.Literal("addresses", "route", "woke", "mapping")
/** A change of this host's network. */
export const NetworkChange = Schema.Struct({
  reason: NetworkReason,
  /** This host's addresses now. */
  hosts: Schema.Array(Schema.String),
  /**
   * IP versions whose default route has lost its source address. Answers to packets sent from that
   * address cannot arrive.
   */
  lost: Schema.Array(Schema.Literal(4, 6))
})
export type NetworkChange = typeof NetworkChange.Type

/** Calls of the StunActor. */
export class StunRpcs extends RpcGroup.make(
  /**
   * This host's candidates and each later change. The first element comes at once, or as soon as
   * the UDP sockets are known.
   */
  Rpc.make("Candidates", { success: LocalCandidates, stream: true }),
  /** Asks a STUN server for this host's mapped address. `server` must be a literal address. */
  Rpc.make("Discover", {
    payload: { server: SocketAddr },
    success: Mapped,
    error: Schema.Union(StunTimeout, StunUnavailable)
  }),
  /**
   * Replaces the servers (literal addresses). `relayHost` is the literal address of the relay. If
   * that is a loopback address, loopback addresses are offered as candidates, too.
   */
  Rpc.make("SetServers", {
    payload: {
      servers: Schema.Array(SocketAddr).pipe(Schema.maxItems(MAX_SERVERS)),
      relayHost: Schema.NullOr(Schema.String)
    }
  }),
  /**
   * Answers with the last element of `Candidates`, or `null` while the UDP sockets are not known.
   */
  Rpc.make("Local", { success: Schema.NullOr(LocalCandidates) }),
  /** Answers with the servers that this host can ask now. */
  Rpc.make("Servers", { success: Schema.Array(SocketAddr) }),
  /**
   * Checks how the network treats UDP, by asking the relay. A check takes up to 4 s. Checks run one
   * at a time, in order of the calls.
   */
  Rpc.make("NetCheck", { success: NetReport, error: NetCheckFailed }),
  /**
   * Reports how many sessions are up. Mappings are refreshed only while there are some. `flowing`
   * of them have flows. Only while none has, this host measures how long idle mappings last.
   */
  Rpc.make("SetActiveSessions", {
    payload: {
      count: Schema.NonNegativeInt,
      flowing: Schema.NonNegativeInt
    }
  }),
  /**
   * Changes of the network from now on. When a change is emitted, the UDP sockets have already been
   * reopened if necessary.
   */
  Rpc.make("NetworkChanges", { success: NetworkChange, stream: true }),
  /**
   * Reports that the relay sees this node at another address, although no address of this host has
   * changed.
   */
  Rpc.make("MappingChanged", {}),
  /**
   * Says whether the UDP port is to be mapped at the gateway. It has no effect if the configuration
   * turns port mapping off.
   */
  Rpc.make("MapPort", { payload: { wanted: Schema.Boolean } })
) {}

/** Address of the StunActor, by which other actors call it. */
export const Stun = ActorAddress.make("stun", StunRpcs)

// ----------------------------------------------------- calls to the owner of the UDP sockets

/**
 * A datagram that belongs to no session: STUN, or a control message of the relay without its frame
 * header.
 */
export const ControlDatagram = Schema.Struct({ from: SocketAddr, bytes: Schema.Uint8ArrayFromSelf })
export type ControlDatagram = typeof ControlDatagram.Type

/** Error when a firewall on this machine refused the datagram. */
export class SendForbidden extends Schema.TaggedError<SendForbidden>()("SendForbidden", {}) {}

/** Calls of the StunActor to the data plane, which merges them into its own RPCs. */
export class UdpControlRpcs extends RpcGroup.make(
  /**
   * Sends the bytes unchanged from the socket of that IP version. Without such a socket they are
   * dropped.
   */
  Rpc.make("SendControl", {
    payload: { family: Schema.Literal(4, 6), to: SocketAddr, bytes: Schema.Uint8ArrayFromSelf },
    error: SendForbidden
  }),
  /** Datagrams from now on. A slow reader loses the oldest. */
  Rpc.make("ControlDatagrams", {
    payload: { kind: Schema.Literal("stun", "relay") },
    success: ControlDatagram,
    stream: true
  }),
  /**
   * Replaces the socket of each of these IP versions by one on another port, because NATs may keep
   * the old port for an address that this host no longer has. A port that config fixes stays as it
   * is.
   */
  Rpc.make("RebindSockets", { payload: { families: Schema.Array(Schema.Literal(4, 6)) } }),
  /** Answers with the ports of the bound sockets. */
  Rpc.make("LocalPorts", {
    success: Schema.Struct({
      v4: Schema.optional(Schema.Int),
      v6: Schema.optional(Schema.Int),
      /** Sockets that did not get the configured port, and use another one. */
      missed: Schema.optional(
        Schema.Array(Schema.Struct({ family: Schema.Literal(4, 6), port: Schema.Int, code: Schema.String }))
      ),
      /** The latest send that a firewall on this machine forbade. `null` if none was. */
      forbidden: Schema.optional(Schema.NullOr(Schema.Struct({ code: Schema.String, agoMs: Schema.Number })))
    })
  }),
  /**
   * Tries again to bind the configured port where that failed. Answers `true` if a socket now has
   * it in place of another port.
   */
  Rpc.make("TakeConfiguredPort", { success: Schema.Boolean })
) {}
