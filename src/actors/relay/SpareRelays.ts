/**
 * Keeps a node bound over UDP at relays other than its home relay. It takes the first ones that the
 * directory lists, which are the same at every node, so two peers have them in common. This is
 * state of the RelayActor, whose loop calls each of these functions in turn.
 */
import { Effect } from "effect"
import { familyOf, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import { KEEPALIVE_MS, type Output, RelayBinding } from "../../protocol/relay/RelayBinding.ts"
import type { RelayPoint } from "../../protocol/relay/RelayPoint.ts"
import * as RelayWire from "../../protocol/relay/RelayWire.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import type { StreamMux } from "../mux/StreamMuxRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"

/**
 * How many other relays are kept bound. The second one is for the case that the first is dead, too.
 * Each costs a keepalive.
 */
const MAX_SPARES = 2

/** A session's ticket, and this node's tag in it. */
export interface Ticket {
  /** Tag of the relayed frames that this node sends. */
  readonly tag: number
  readonly ticket: Signed
}

/** Another relay at which this node is bound, or tries to be. */
interface Spare {
  readonly point: RelayPoint
  readonly binding: RelayBinding
  /** Index of the address in use, modulo their number. */
  chosen: number
}

/** Options of {@link make}. */
export interface Options {
  readonly mux: ActorRef<RpcsOf<typeof StreamMux>>
  readonly identity: { readonly key: NodeKey; readonly sign: (message: Uint8Array) => Uint8Array }
  /** Tickets of the sessions that are open now. The RelayActor changes this map. */
  readonly tickets: ReadonlyMap<SessionId, Ticket>
}

/**
 * Makes the bindings at other relays than the home relay. There are none until `onList` is called.
 */
export const make = ({ identity, mux, tickets }: Options) => {
  const spares = new Map<string, Spare>()
  let credential: Signed | null = null
  let keepaliveMs = KEEPALIVE_MS
  let families: ReadonlyArray<4 | 6> = []

  const addressOf = ({ chosen, point }: Spare): SocketAddr => {
    const hosts = Candidate.reachable(point.addresses, families)
    return { host: hosts[chosen % hosts.length] ?? point.addresses[0], port: point.port }
  }

  const send = (spare: Spare, message: RelayWire.Message, padTo = 0) => {
    const to = addressOf(spare)
    const family = familyOf(to.host)
    return Effect.ignore(mux.ask((it) => it.SendControl({ family, to, bytes: RelayWire.encode(message, padTo) })))
  }

  /** Notifies the data plane where the relay is and whether this node is bound there. */
  const tell = (spare: Spare) =>
    Effect.ignore(
      mux.ask((it) =>
        it.UseRelay({ name: spare.point.name, at: addressOf(spare), bound: spare.binding.phase === "bound" })
      )
    )

  const obey = (spare: Spare, outputs: ReadonlyArray<Output>): Effect.Effect<void> =>
    Effect.forEach(outputs, (output) => obeyOne(spare, output), { discard: true })

  const obeyOne = (spare: Spare, output: Output): Effect.Effect<void> => {
    const { name } = spare.point
    switch (output._tag) {
      case "Send":
        return send(spare, output.message, output.padTo)
      case "SendBind": {
        if (credential === null) return Effect.void
        const { cookie, nonce } = output
        const signature = identity.sign(RelayWire.bindText(cookie, name))
        return send(spare, { _tag: "Bind", nonce, cookie, signature, credential })
      }
      case "Bound":
        return Effect.zipRight(
          tell(spare),
          Effect.logInfo("bound at another relay").pipe(Effect.annotateLogs({ relay: name }))
        )
      case "Lost":
        return Effect.zipRight(
          tell(spare),
          Effect.logInfo("another relay was lost").pipe(Effect.annotateLogs({ relay: name, reason: output.reason }))
        )
      case "UdpBlocked":
      case "StillBlocked":
        // Another address of the relay may answer.
        spare.chosen++
        return tell(spare)
      case "TicketRefused":
        return Effect.logWarning("another relay refused a session").pipe(
          Effect.annotateLogs({ relay: name, session: output.session, reason: output.reason })
        )
      case "RateLimited":
        return Effect.logWarning("another relay limits this node's rate").pipe(
          Effect.annotateLogs({ relay: name, retryAfterMs: output.retryAfterMs })
        )
      case "NeedCredential":
      case "Opened":
      // Probes find out whether the peer is bound there, too.
      case "PeerLeg":
        return Effect.void
    }
  }

  const forEach = (input: (binding: RelayBinding) => ReadonlyArray<Output>) =>
    Effect.forEach([...spares.values()], (spare) => obey(spare, input(spare.binding)), { discard: true })

  const begin = Effect.fnUntraced(function*(point: RelayPoint, now: number) {
    const binding = new RelayBinding({
      carrier: "udp",
      newNonce: () => Crypto.randomBytes(RelayWire.NONCE_BYTES)
    })
    binding.onKeepalive(keepaliveMs, now)
    const spare: Spare = { point, binding, chosen: 0 }
    spares.set(point.name, spare)
    // From now on the data plane accepts answers from this relay.
    yield* tell(spare)
    for (const [session, { tag, ticket }] of tickets) yield* obey(spare, binding.onTicket(session, tag, ticket, now))
    if (credential !== null) yield* obey(spare, binding.onCredential(true, now))
  })

  const end = (name: string) =>
    Effect.suspend(() => {
      spares.delete(name)
      return Effect.ignore(mux.ask((it) => it.UseRelay({ name, at: null, bound: false })))
    })

  return {
    /** When `onTick` must be called next, in ms (monotonic). `Infinity` if nothing is due. */
    get wakeAt(): number {
      let at = Infinity
      for (const { binding } of spares.values()) at = Math.min(at, binding.wakeAt)
      return at
    },
    /**
     * Takes the directory's whole list. A relay with an unchanged entry may have been restarted, so
     * it is asked again.
     */
    onList: Effect.fnUntraced(function*(points: ReadonlyArray<RelayPoint>, now: number) {
      const wanted = points.slice(0, MAX_SPARES)
      for (const [name, { point }] of spares) {
        if (!wanted.some((one) => isSame(one, point))) yield* end(name)
      }
      for (const point of wanted) {
        const known = spares.get(point.name)
        if (known === undefined) yield* begin(point, now)
        else yield* obey(known, known.binding.onNetworkChanged(now))
      }
    }),
    onCredential: (signed: Signed, now: number) => {
      credential = signed
      return forEach((binding) => binding.onCredential(true, now))
    },
    onTicket: (session: SessionId, { tag, ticket }: Ticket, now: number) =>
      forEach((binding) => binding.onTicket(session, tag, ticket, now)),
    onTicketRemoved: (session: SessionId) => forEach((binding) => binding.onTicketRemoved(session)),
    /** Takes a control message. Returns `false` if it is from none of these relays. */
    onMessage: Effect.fnUntraced(function*(from: SocketAddr, message: RelayWire.Message, now: number) {
      for (const spare of spares.values()) {
        const { addresses, port } = spare.point
        if (port !== from.port || !addresses.includes(from.host)) continue
        yield* obey(spare, spare.binding.onMessage(message, now))
        return true
      }
      return false
    }),
    onNetworkChanged: (now: number) => forEach((binding) => binding.onNetworkChanged(now)),
    /** Starts all bindings again, because the sockets of a new data plane are bound nowhere. */
    onMuxStarted: Effect.fnUntraced(function*(now: number) {
      const points = [...spares.values()].map(({ point }) => point)
      spares.clear()
      for (const point of points) yield* begin(point, now)
    }),
    /**
     * Uses a new keepalive interval (`gapMs`), and the IP versions in which this host has an
     * address.
     */
    onWaysOut: Effect.fnUntraced(function*(gapMs: number, versions: ReadonlyArray<4 | 6>, now: number) {
      const before = new Map([...spares.values()].map((spare) => [spare, addressOf(spare).host]))
      keepaliveMs = gapMs
      families = versions
      for (const [spare, host] of before) {
        spare.binding.onKeepalive(gapMs, now)
        if (addressOf(spare).host === host) continue
        spare.chosen = 0
        yield* tell(spare)
        yield* obey(spare, spare.binding.onNetworkChanged(now))
      }
    }),
    onTick: (now: number) => forEach((binding) => binding.onTick(now))
  } as const
}

const isSame = (a: RelayPoint, b: RelayPoint): boolean =>
  a.name === b.name && a.port === b.port && a.addresses.join() === b.addresses.join()
