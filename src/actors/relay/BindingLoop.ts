/**
 * Keeps a node bound at one relay: does what `RelayBinding` decides, and chooses which of the
 * relay's addresses is used. This is state of the RelayActor, whose loop calls each of these
 * functions in turn.
 */
import { Effect } from "effect"
import { familyOf, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import {
  type BlockedReason,
  KEEPALIVE_MS,
  type LostReason,
  type Output,
  RelayBinding
} from "../../protocol/relay/RelayBinding.ts"
import * as RelayWire from "../../protocol/relay/RelayWire.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import { LINK_ADDRESS, type StreamMux } from "../mux/StreamMuxRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"

/** How control messages reach the relay. */
export type Carrier = "udp" | "link"

/** A session's ticket, and this node's tag in it. */
export interface Ticket {
  /** Tag of the relayed frames that this node sends. */
  readonly tag: number
  readonly ticket: Signed
}

/** State that all bindings of a node share. */
export interface Node {
  readonly mux: ActorRef<RpcsOf<typeof StreamMux>>
  readonly identity: { readonly key: NodeKey; readonly sign: (message: Uint8Array) => Uint8Array }
  /** Tickets of the sessions that are open now. The RelayActor changes this map. */
  readonly tickets: ReadonlyMap<SessionId, Ticket>
  /** Credential with which the node binds. `null` if it has none yet. */
  readonly credential: () => Signed | null
}

/** This host's connection to the internet, as the StunActor reports it. */
export interface WaysOut {
  /** Time between keepalives that NATs need. */
  readonly keepaliveMs: number
  /** IP versions in which this host has an address. */
  readonly families: ReadonlyArray<4 | 6>
}
/** Assumption about this host until the StunActor has reported. */
export const NO_WAYS_OUT: WaysOut = { keepaliveMs: KEEPALIVE_MS, families: [] }

/** UDP addresses of a relay. */
export interface Place {
  /** Empty if none is known. */
  readonly hosts: ReadonlyArray<string>
  readonly port: number
}

/** Options of {@link make}. */
export interface Options {
  readonly node: Node
  readonly carrier: Carrier
  /** Name of the relay in the directory. `null` for the home relay, which nodes bind without it. */
  readonly relay: string | null
  readonly place: Place
  readonly ways: WaysOut
  readonly onBound: (mapped: SocketAddr | null) => Effect.Effect<void>
  readonly onLost: (reason: LostReason) => Effect.Effect<void>
  /**
   * UDP does not reach the relay at `host`. The next address is in use already. `again` says
   * whether UDP was blocked before this try, too.
   */
  readonly onBlocked: (reason: BlockedReason, host: string, again: boolean) => Effect.Effect<void>
  /** The firewall of this machine refused a datagram. */
  readonly onForbidden: Effect.Effect<void>
  /** Another address of the relay is in use, because this host's IP versions changed. */
  readonly onMoved: Effect.Effect<void>
}

/** A node's binding at one relay. */
export type BindingLoop = ReturnType<typeof make>

/** Makes a binding, which sends nothing until `start` is called. */
export const make = (
  { carrier, node, onBlocked, onBound, onForbidden, onLost, onMoved, relay, ...initial }: Options
) => {
  let { place, ways } = initial
  let binding = newBinding(carrier)
  /** Index of the address in use, modulo their number. */
  let chosen = 0

  const address = (): SocketAddr | null => {
    if (carrier === "link") return LINK_ADDRESS
    const hosts = Candidate.reachable(place.hosts, ways.families)
    const host = hosts[chosen % hosts.length]
    return host === undefined ? null : { host, port: place.port }
  }

  const send = (message: RelayWire.Message, padTo = 0) => {
    const to = address()
    if (to === null) return Effect.void
    const family = familyOf(to.host)
    return node.mux.ask((it) => it.SendControl({ family, to, bytes: RelayWire.encode(message, padTo) })).pipe(
      Effect.catchTag("SendForbidden", () => onForbidden),
      Effect.ignore
    )
  }

  const blocked = (reason: BlockedReason, again: boolean) =>
    Effect.suspend(() => {
      const host = address()?.host ?? ""
      chosen++
      return onBlocked(reason, host, again)
    })

  const obey = (outputs: ReadonlyArray<Output>): Effect.Effect<void> =>
    Effect.forEach(outputs, obeyOne, { discard: true })

  const obeyOne = (output: Output): Effect.Effect<void> => {
    switch (output._tag) {
      case "Send":
        return send(output.message, output.padTo)
      case "SendBind": {
        const credential = node.credential()
        if (credential === null) return Effect.void
        const { cookie, nonce } = output
        const signature = node.identity.sign(RelayWire.bindText(cookie, relay ?? ""))
        return send({ _tag: "Bind", nonce, cookie, signature, credential })
      }
      case "Bound":
        return onBound(output.mapped)
      case "Lost":
        return onLost(output.reason)
      case "UdpBlocked":
        return blocked(output.reason, false)
      case "StillBlocked":
        return blocked(output.reason, true)
      case "TicketRefused":
        return warn(relay, "refused a session", { session: output.session, reason: output.reason })
      case "RateLimited":
        return warn(relay, "limits this node's rate", { retryAfterMs: output.retryAfterMs })
      case "NeedCredential":
        return Effect.logDebug("waiting for a relay credential")
      case "Opened":
      // The peer reports this itself, on the control stream.
      case "PeerLeg":
        return Effect.void
    }
  }

  return {
    get phase() {
      return binding.phase
    },
    /** Address at which the relay sees this node. `null` while not bound, and over a link. */
    get mapped() {
      return binding.mapped
    },
    /** When `onTick` must be called next, in ms (monotonic). `Infinity` if nothing is due. */
    get wakeAt() {
      return binding.wakeAt
    },
    /** Address of the relay that is in use. `null` if none is known. */
    get address() {
      return address()
    },
    /** Takes the relay's new addresses, and begins with the first of them. */
    setPlace: (next: Place) => {
      place = next
      chosen = 0
    },
    /** Starts a new binding that knows the open sessions. The sockets before are bound no more. */
    start: (now: number) =>
      Effect.suspend(() => {
        binding = newBinding(carrier)
        binding.onKeepalive(ways.keepaliveMs, now)
        for (const [session, { tag, ticket }] of node.tickets) binding.onTicket(session, tag, ticket, now)
        return node.credential() === null ? Effect.void : obey(binding.onCredential(true, now))
      }),
    onCredential: (now: number) => Effect.suspend(() => obey(binding.onCredential(true, now))),
    onMessage: (message: RelayWire.Message, now: number) => Effect.suspend(() => obey(binding.onMessage(message, now))),
    onNetworkChanged: (now: number) => Effect.suspend(() => obey(binding.onNetworkChanged(now))),
    onTicket: (session: SessionId, { tag, ticket }: Ticket, now: number) =>
      Effect.suspend(() => obey(binding.onTicket(session, tag, ticket, now))),
    onTicketRemoved: (session: SessionId) => Effect.suspend(() => obey(binding.onTicketRemoved(session))),
    onTick: (now: number) => Effect.suspend(() => obey(binding.onTick(now))),
    /**
     * Uses the new keepalive interval and IP versions. A host that has moved between IPv4 and IPv6
     * tries the relay's other address at once.
     */
    onWaysOut: (next: WaysOut, now: number) =>
      Effect.suspend(() => {
        const before = address()?.host
        ways = next
        binding.onKeepalive(ways.keepaliveMs, now)
        if (address()?.host === before) return Effect.void
        chosen = 0
        return Effect.zipRight(onMoved, obey(binding.onNetworkChanged(now)))
      }),
    /** Notes that the link has ended, so that nothing more is sent by it. */
    onLinkClosed: () => void binding.onLinkClosed()
  } as const
}

const newBinding = (carrier: Carrier) =>
  new RelayBinding({ carrier, newNonce: () => Crypto.randomBytes(RelayWire.NONCE_BYTES) })

const warn = (relay: string | null, what: string, of: Record<string, unknown>) =>
  Effect.logWarning(`${relay === null ? "the relay" : "another relay"} ${what}`).pipe(
    Effect.annotateLogs(relay === null ? of : { relay, ...of })
  )
