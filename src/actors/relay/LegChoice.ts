/**
 * The leg that carries a node's relayed packets: UDP if it is bound, otherwise the link, otherwise
 * none. This part owns the leg's state, notifies the data plane when the leg changes or was bound
 * again, and knows since when there is none.
 */
import { Effect, Stream, SubscriptionRef } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import type { LegChoice } from "../mux/StreamMuxRpcs.ts"
import type { BindingLoop } from "./BindingLoop.ts"
import type { LegKind, LegState } from "./RelayRpcs.ts"

/** Why the leg has its kind and not a better one, for programs and for people. */
export type Why = Pick<LegState, "cause" | "reason">

/** The reason while nothing is known yet. */
export const WAITING: Why = { cause: "waiting", reason: "waiting for signaling" }
/** The reason while UDP is bound. */
export const WORKS: Why = { cause: "works", reason: "UDP to the relay works" }
const MUX_STARTED: Why = { cause: "waiting", reason: "the data plane has just started" }

/** The carriers among which {@link make} chooses. */
export interface Carriers {
  readonly udp: Pick<BindingLoop, "phase" | "address" | "mapped">
  readonly link: {
    /** Kind of the link that is bound. `null` if none is. */
    readonly bound: LegKind | null
  }
}

/** Options of {@link make}. */
export interface Options {
  readonly carriers: Carriers
  /** Makes the data plane use the leg, or none if it is `null`. */
  readonly useLeg: (leg: LegChoice | null) => Effect.Effect<void>
  /** Notifies signaling that the relay answers, after each new binding. It must not wait. */
  readonly relayAnswers: Effect.Effect<void>
}

/** Makes the choice. There is no leg until `settle` finds a bound carrier. */
export const make = Effect.fnUntraced(function*({ carriers: { link, udp }, relayAnswers, useLeg }: Options) {
  const state = yield* SubscriptionRef.make<LegState>({ ...NONE, ...WAITING })
  let lostAt = -Infinity

  return {
    state: SubscriptionRef.get(state),
    /** Waits until a leg is bound. */
    awaitBound: Effect.asVoid(Stream.runHead(Stream.filter(state.changes, ({ kind }) => kind !== null))),
    /** When the last leg was lost, in ms (monotonic). `-Infinity` if none was yet. */
    get lostAt() {
      return lostAt
    },
    /**
     * Chooses again, after the state of a carrier changed. `again` says whether a carrier was bound
     * again, which notifies the data plane even if the leg stays the same.
     */
    settle: Effect.fnUntraced(function*(why: Why, again = false) {
      const kind: LegKind | null = udp.phase === "bound" ? "relay-udp" : link.bound
      const { address: relay, mapped } = udp
      const before = yield* SubscriptionRef.get(state)
      yield* SubscriptionRef.set(state, { kind, relay, mapped, ...why })
      const changed = before.kind !== kind || !isSamePlace(before.relay, relay)
      if (before.kind !== null && kind === null) lostAt = yield* nowMs
      if (kind !== null && (again || before.kind === null)) yield* relayAnswers
      if (!changed && !again) return
      yield* useLeg(kind === null ? null : kind === "relay-udp" && relay !== null ? { kind, relay } : { kind: "link" })
      if (!changed) return
      yield* Effect.logInfo("relay leg").pipe(Effect.annotateLogs({ kind: kind ?? "none", reason: why.reason }))
    }),
    /** Notes that a new data plane has no leg yet. */
    onMuxStarted: SubscriptionRef.set(state, { ...NONE, ...MUX_STARTED })
  } as const
})

const NONE = { kind: null, relay: null, mapped: null }

/** Whether both addresses are the same, or both are `null`. */
export const isSamePlace = (a: SocketAddr | null, b: SocketAddr | null): boolean =>
  a?.host === b?.host && a?.port === b?.port
