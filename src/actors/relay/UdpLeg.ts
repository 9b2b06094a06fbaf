/**
 * The binding at the home relay over UDP. It binds again when this machine's firewall refuses a
 * datagram, and notices when a NAT gave this node another address.
 */
import { Effect } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type { BindingLoop } from "./BindingLoop.ts"
import { isSamePlace } from "./LegChoice.ts"

/**
 * Least time between two new bindings after refused datagrams. It is longer than an unanswered one
 * takes.
 */
const FORBIDDEN_GAP_MS = 5000

/** Makes the leg around its binding. */
export const make = (binding: BindingLoop) => {
  /**
   * This node's address as the relay last saw it. `null` if it has not yet, or not since this
   * host's own network changed; the next address is then taken as it is.
   */
  let lastMapped: SocketAddr | null = null
  /** When the binding was last started again because of a refused datagram. */
  let forbiddenAt = -Infinity

  return {
    binding,
    /**
     * Compares the mapped address with the one before. Returns `true` if it changed although this
     * host did not move: a NAT dropped the old mapping. Peers see the new address, too.
     */
    isRemapped: (mapped: SocketAddr | null): boolean => {
      const before = lastMapped
      lastMapped = mapped
      return before !== null && mapped !== null && !isSamePlace(before, mapped)
    },
    /**
     * Binds again, because the firewall of this machine has just refused a datagram: without an
     * answer the leg moves to a link at once, and not only when a keepalive fails.
     */
    onForbidden: Effect.fnUntraced(function*(now: number) {
      if (binding.phase !== "bound" || now - forbiddenAt < FORBIDDEN_GAP_MS) return
      forbiddenAt = now
      yield* binding.onNetworkChanged(now)
    }),
    /** Proves the binding again after this host's own network changed. */
    onNetworkChanged: (now: number) =>
      Effect.suspend(() => {
        lastMapped = null
        return binding.onNetworkChanged(now)
      }),
    /** Starts over, because the sockets of a new data plane are bound nowhere. */
    onMuxStarted: (now: number) =>
      Effect.suspend(() => {
        lastMapped = null
        return binding.start(now)
      })
  } as const
}
