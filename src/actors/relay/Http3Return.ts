/**
 * Brings a node back to HTTP/3 that relays by TCP although its relay has HTTP/3: HTTP/3 did not
 * answer in time when the link was opened, or the relay's HTTP/3 was not up yet. HTTP/3 is tried
 * beside the link in use, which is replaced when that has succeeded.
 */
import { Duration, Effect } from "effect"
import type { LegKind } from "./RelayRpcs.ts"

/** Delay before HTTP/3 is tried for the first time. It doubles with each try. */
const FIRST_TRY = Duration.seconds(10)
/** Longest delay between two tries. */
const SLOWEST_TRY = Duration.minutes(10)

/** Options of {@link make}. */
export interface Options {
  readonly link: {
    /** Kind of the link that is bound. `null` if none is. */
    readonly bound: LegKind | null
  }
  /** Whether the relay says that it has HTTP/3. */
  readonly hasHttp3: () => boolean
  /** Replaces the link by one over HTTP/3. Takes up to ten seconds. A failure changes nothing. */
  readonly replace: Effect.Effect<void, { readonly message: string }>
  /** Runs an effect in a fiber of its own, which ends with the actor. */
  readonly fork: (effect: Effect.Effect<void>) => Effect.Effect<void>
  /** Calls `onDue` after the delay. A later call replaces an earlier one. */
  readonly wake: (delay: Duration.Duration) => Effect.Effect<void>
}

/** Makes the part, which waits for `onOpened`. */
export const make = ({ fork, hasHttp3, link, replace, wake }: Options) => {
  let delay = FIRST_TRY
  const later = Effect.suspend(() => wake(delay))
  const tryNow = replace.pipe(
    Effect.catchAll(({ message }) =>
      Effect.zipRight(Effect.logDebug(`still no HTTP/3 to the relay: ${message}`), later)
    )
  )

  return {
    /** Notes the kind of a link that was opened. */
    onOpened: (kind: LegKind) => (kind === "relay-tcp" && hasHttp3() ? later : Effect.void),
    /** Tries HTTP/3 if it would be better than the link in use. */
    onDue: Effect.suspend(() => {
      if (link.bound !== "relay-tcp" || !hasHttp3()) return Effect.void
      delay = Duration.min(Duration.times(delay, 2), SLOWEST_TRY)
      return fork(tryNow)
    }),
    /** Tries soon, because another network may let HTTP/3 through. */
    onNetworkChanged: Effect.suspend(() => {
      delay = FIRST_TRY
      return link.bound === "relay-tcp" && hasHttp3() ? later : Effect.void
    })
  } as const
}
