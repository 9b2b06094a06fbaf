/**
 * Keeps a node bound over UDP at relays other than its home relay. It takes the first ones that the
 * directory lists, which are the same at every node, so two peers have them in common. This is
 * state of the RelayActor, whose loop calls each of these functions in turn.
 */
import { Effect } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type { RelayPoint } from "../../protocol/relay/RelayPoint.ts"
import type * as RelayWire from "../../protocol/relay/RelayWire.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import * as BindingLoop from "./BindingLoop.ts"

/**
 * How many other relays are kept bound. The second one is for the case that the first is dead, too.
 * Each costs a keepalive.
 */
const MAX_SPARES = 2

/** Another relay at which this node is bound, or tries to be. */
interface Spare {
  readonly point: RelayPoint
  readonly binding: BindingLoop.BindingLoop
}

/**
 * Makes the bindings at other relays than the home relay. There are none until `onList` is called.
 */
export const make = (node: BindingLoop.Node) => {
  const spares = new Map<string, Spare>()
  let ways = BindingLoop.NO_WAYS_OUT

  /** Notifies the data plane where the relay is and whether this node is bound there. */
  const tell = ({ binding, point }: Spare) => {
    const [first] = point.addresses
    const at = binding.address ?? { host: first, port: point.port }
    return Effect.ignore(
      node.mux.ask((it) => it.UseRelay({ name: point.name, at, bound: binding.phase === "bound" }))
    )
  }

  const forEach = (input: (binding: BindingLoop.BindingLoop) => Effect.Effect<void>) =>
    Effect.forEach([...spares.values()], ({ binding }) => input(binding), { discard: true })

  const begin = Effect.fnUntraced(function*(point: RelayPoint, now: number) {
    const { addresses, name, port } = point
    const told = Effect.suspend(() => tell(spare))
    const note = (text: string, of: Record<string, unknown> = {}) =>
      Effect.zipRight(told, Effect.logInfo(text).pipe(Effect.annotateLogs({ relay: name, ...of })))
    const binding = BindingLoop.make({
      node,
      carrier: "udp",
      relay: name,
      place: { hosts: addresses, port },
      ways,
      onBound: () => note("bound at another relay"),
      onLost: (reason) => note("another relay was lost", { reason }),
      onBlocked: () => told,
      onForbidden: Effect.void,
      onMoved: told
    })
    const spare: Spare = { point, binding }
    spares.set(name, spare)
    // From now on the data plane accepts answers from this relay.
    yield* told
    yield* binding.start(now)
  })

  const end = (name: string) =>
    Effect.suspend(() => {
      spares.delete(name)
      return Effect.ignore(node.mux.ask((it) => it.UseRelay({ name, at: null, bound: false })))
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
        yield* known === undefined ? begin(point, now) : known.binding.onNetworkChanged(now)
      }
    }),
    onCredential: (now: number) => forEach((binding) => binding.onCredential(now)),
    onTicket: (session: SessionId, ticket: BindingLoop.Ticket, now: number) =>
      forEach((binding) => binding.onTicket(session, ticket, now)),
    onTicketRemoved: (session: SessionId) => forEach((binding) => binding.onTicketRemoved(session)),
    /** Takes a control message. Returns `false` if it is from none of these relays. */
    onMessage: Effect.fnUntraced(function*(from: SocketAddr, message: RelayWire.Message, now: number) {
      for (const { binding, point } of spares.values()) {
        if (point.port !== from.port || !point.addresses.includes(from.host)) continue
        yield* binding.onMessage(message, now)
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
    /** Uses a new keepalive interval, and the IP versions in which this host has an address. */
    onWaysOut: (next: BindingLoop.WaysOut, now: number) =>
      Effect.suspend(() => {
        ways = next
        return forEach((binding) => binding.onWaysOut(next, now))
      }),
    onTick: (now: number) => forEach((binding) => binding.onTick(now))
  } as const
}

const isSame = (a: RelayPoint, b: RelayPoint): boolean =>
  a.name === b.name && a.port === b.port && a.addresses.join() === b.addresses.join()
