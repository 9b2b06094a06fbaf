/**
 * The events from the relay, for the actors that subscribe. A subscriber begins with what is known:
 * whether the directory is reached, its time, the last snapshot, and the invitations that may still
 * be answered.
 */
import { Effect, Option, PubSub, Stream } from "effect"
import { Invitations } from "./Invitations.ts"
import { LastSnapshot } from "./LastSnapshot.ts"
import type { SessionId, SignalingEvent } from "./RelaySignalingRpcs.ts"
import type { NodeEvent, ReachChanged, Wanted } from "./SignalingRpcs.ts"
import type { TimeLearned } from "./TimeKeeper.ts"

/**
 * How many events one slow subscriber may fall behind. Then it loses the oldest, and learns the
 * state from the next snapshot.
 */
const EVENTS_CAPACITY = 1024

/** Options of {@link make}. */
export interface Options {
  /** Time of `HostClock`, in ms. */
  readonly hostMs: () => number
  /** Returns the directory's time. `null` if it is not known yet. */
  readonly learned: () => TimeLearned | null
}

/** Makes the feed, which knows nothing yet. */
export const make = Effect.fnUntraced(function*({ hostMs, learned }: Options) {
  const events = yield* PubSub.sliding<NodeEvent>(EVENTS_CAPACITY)
  const snapshot = new LastSnapshot()
  const invitations = new Invitations()
  let reach: ReachChanged = { _tag: "ReachChanged", reached: false, sinceMs: hostMs() }
  const publish = (event: NodeEvent) => Effect.asVoid(PubSub.publish(events, event))

  /** The state that is known now, and all later events. */
  const begin = (known: () => ReadonlyArray<NodeEvent>) =>
    Stream.unwrapScoped(Effect.gen(function*() {
      const later = yield* PubSub.subscribe(events)
      const first: ReadonlyArray<NodeEvent> = [reach, learned(), snapshot.read()].filter((event) => event !== null)
      return Stream.concat(Stream.fromIterable([...first, ...known()]), Stream.fromQueue(later))
    }))

  return {
    /** Passes on an event that this node derived itself. */
    publish,
    /** Notes whether the directory is reached. */
    onReach: (reached: boolean) =>
      Effect.suspend(() => {
        if (reach.reached === reached) return Effect.void
        reach = { _tag: "ReachChanged", reached, sinceMs: hostMs() }
        return publish(reach)
      }),
    /** Takes an event from the relay. */
    onEvent: (event: SignalingEvent) =>
      Effect.suspend(() => {
        snapshot.onEvent(event)
        if (event._tag === "Invite") invitations.add(event, hostMs())
        return publish(event)
      }),
    /** Notes that a data plane has answered an invitation. */
    onAnswered: (session: SessionId) => Effect.sync(() => invitations.answered(session)),
    events: begin(() => invitations.waiting(hostMs())),
    /** Questions of the relay about this node. */
    wanted: begin(() => []).pipe(
      Stream.filterMap((event): Option.Option<Wanted> =>
        event._tag === "Examine"
          ? Option.some(event)
          : event._tag === "Snapshot" && event.reports === true
          ? Option.some({ _tag: "ReportWanted" })
          : Option.none()
      )
    )
  } as const
})

/** The feed, as {@link make} returns it. */
export type EventFeed = Effect.Effect.Success<ReturnType<typeof make>>
