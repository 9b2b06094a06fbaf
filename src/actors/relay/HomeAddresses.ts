/**
 * The home relay's addresses: the stored ones first, then those that DNS gives. This part owns what
 * DNS and UDP have shown about them, and so says why UDP does not work.
 */
import { Effect } from "effect"
import { isIP } from "node:net"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type { BlockedReason } from "../../protocol/relay/RelayBinding.ts"
import * as RelayWire from "../../protocol/relay/RelayWire.ts"
import type { RelayInfo } from "../signaling/RelaySignalingRpcs.ts"
import type { Place } from "./BindingLoop.ts"
import { WAITING, type Why } from "./LegChoice.ts"

/** Most addresses of the relay that the StunActor is given. */
const MAX_SERVERS = 8

/** Options of {@link make}. */
export interface Options {
  /** Returns the stored addresses of a name. Empty if there are none. */
  readonly remembered: (host: string) => Effect.Effect<ReadonlyArray<string>>
  /**
   * Asks DNS for a name, without waiting. The answer comes to `onResolved`, and there is always
   * one.
   */
  readonly lookUp: (host: string) => Effect.Effect<void>
}

/** The home relay and its addresses, as {@link make} returns them. */
export type HomeAddresses = ReturnType<typeof make>

/** Result of an answer of DNS. It is `stale` if it is for another name than the relay's. */
export type Resolved = "stale" | "same" | "changed"

/** Makes the addresses. There are none until `onInfo` is called. */
export const make = ({ lookUp, remembered }: Options) => {
  let relay: RelayInfo | null = null
  /** Addresses of the relay's name, IPv4 first. Empty if none is known. */
  let hosts: ReadonlyArray<string> = []
  /** Addresses that answered only small packets. */
  const tooSmall = new Set<string>()
  /**
   * Whether DNS is being asked. There is one query at a time, because a dead name server holds each
   * for many seconds.
   */
  let resolving = false
  /** Whether DNS had no answer last time. */
  let unresolved = false

  /** Addresses for UDP. Empty if none is known, or if the relay takes packets over links only. */
  const usable = (): ReadonlyArray<string> => (relay === null || relay.udpPort === 0 ? [] : hosts)

  const resolve = Effect.suspend(() => {
    if (relay === null || resolving || isIP(relay.host) !== 0) return Effect.void
    resolving = true
    return lookUp(relay.host)
  })

  return {
    /** The home relay. `null` until signaling has named it. */
    get relay() {
      return relay
    },
    /** Addresses at which UDP reaches the relay. */
    get place(): Place {
      return { hosts: usable(), port: relay?.udpPort ?? 0 }
    },
    /** Servers that the StunActor can ask. `null` until signaling has named the relay. */
    get servers() {
      if (relay === null) return null
      const { udpPort: port } = relay
      return { servers: usable().slice(0, MAX_SERVERS).map((host) => ({ host, port })), relayHost: hosts[0] ?? null }
    },
    /** Whether a datagram from `from` is from the home relay. */
    isFrom: ({ host, port }: SocketAddr) => usable().includes(host) && port === relay?.udpPort,
    /** Asks DNS for the relay's name, unless it is being asked or the name is an address. */
    resolve,
    /** Takes what signaling says of the relay. Returns whether it has moved by that. */
    onInfo: Effect.fnUntraced(function*(info: RelayInfo) {
      const isSame = relay !== null && relay.host === info.host && relay.udpPort === info.udpPort
      if (!isSame) hosts = yield* remembered(info.host)
      relay = info
      return !isSame
    }),
    /**
     * Takes the answer of DNS, `null` if there was none. The address in use is kept while it
     * answers, whatever DNS says. An address that is gone is left at once. `inUse` is `null` while
     * UDP is not bound.
     */
    onResolved: Effect.fnUntraced(function*(host: string, found: ReadonlyArray<string> | null, inUse: string | null) {
      resolving = false
      if (relay?.host !== host) {
        yield* resolve
        return "stale" satisfies Resolved
      }
      if (found === null && !unresolved) {
        const what = hosts.length > 0 ? "its last addresses are used" : "relayed packets go over TLS"
        yield* Effect.logWarning(`DNS gives no address for the relay's name; ${what}; check this machine's DNS`).pipe(
          Effect.annotateLogs({ host })
        )
      }
      unresolved = found === null
      const next = found === null ? hosts : [...new Set([...(inUse === null ? [] : [inUse]), ...found])]
      if (next.join() === hosts.join()) return "same" satisfies Resolved
      hosts = next
      tooSmall.clear()
      yield* Effect.logInfo("the relay's name has new addresses").pipe(Effect.annotateLogs({ host, hosts }))
      return "changed" satisfies Resolved
    }),
    /** Notes why UDP does not reach the relay at `host`. */
    onBlocked: (reason: BlockedReason, host: string) => {
      if (reason === "too_small") tooSmall.add(host)
      else tooSmall.delete(host)
    },
    /** Notes that UDP works. */
    onUdpBound: () => tooSmall.clear(),
    /** Says why relayed packets do not travel by UDP. Only for when UDP is not bound. */
    whyNotUdp: (): Why => {
      if (relay === null) return WAITING
      const { host, udpPort } = relay
      if (udpPort === 0) return { cause: "no_udp", reason: "the relay takes packets over links only" }
      if (hosts.length === 0) return { cause: "name", reason: `DNS gives no address for the relay's name ${host}` }
      if (unresolved) {
        const reason = `UDP to the relay gets no answer at its last address, and DNS gives none for ${host}`
        return { cause: "name", reason }
      }
      if (tooSmall.size > 0) {
        const reason =
          `UDP to the relay carries small packets only: those of ${RelayWire.PROOF_BYTES} bytes get no answer`
        return { cause: "udp_too_small", reason }
      }
      return { cause: "udp_unanswered", reason: "UDP to the relay gets no answer" }
    }
  } as const
}
