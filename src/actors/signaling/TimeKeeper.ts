/**
 * Learns the directory's time over a link and keeps it right. All code that judges documents takes
 * the time from here.
 */
import { Duration, Effect, Random, Stream } from "effect"
import * as DirectoryTime from "../../protocol/trust/DirectoryTime.ts"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"

/**
 * How often the directory is asked for its time. This covers what the host's clock cannot see: a
 * virtual machine that was paused, here or at the relay.
 */
const ASK_EVERY = Duration.seconds(LIFETIMES.timeCheck)

/** How far the directory's clock is ahead of `HostClock`, in ms. */
export interface TimeLearned {
  readonly _tag: "TimeLearned"
  readonly offsetMs: number
}

/** Options of {@link make}. */
export interface Options {
  /** Time of `HostClock`, in ms. */
  readonly hostMs: () => number
  readonly onLearned: (event: TimeLearned) => Effect.Effect<unknown>
}

/**
 * Makes a time keeper, which does not know the directory's time yet. It calls `onLearned` each time
 * that it has learned the time.
 */
export const make = Effect.fnUntraced(function*({ hostMs, onLearned }: Options) {
  const clock = yield* Effect.clock
  let estimate: DirectoryTime.Estimate | null = null
  let told = false

  const aheadMs = (): number | null =>
    estimate === null
      ? null
      : Math.round(clock.unsafeCurrentTimeMillis() - hostMs() - DirectoryTime.offsetOf(estimate))

  const tellSkew = Effect.suspend(() => {
    const ahead = aheadMs() ?? 0
    const isSkewed = Math.abs(ahead) > DirectoryTime.TELL_SKEW_MS
    if (isSkewed === told) return Effect.void
    told = isSkewed
    return isSkewed
      ? Effect.logWarning(
        `${DirectoryTime.skewText(ahead)}; sallyport uses the relay's time, but the times in this log are wrong`
      )
      : Effect.logInfo("this machine's clock agrees with the relay's again")
  })

  const learn = (sample: DirectoryTime.Sample): Effect.Effect<void> =>
    Effect.suspend(() => {
      estimate = DirectoryTime.learn(estimate, sample)
      return Effect.zipRight(onLearned({ _tag: "TimeLearned", offsetMs: DirectoryTime.offsetOf(estimate) }), tellSkew)
    })

  const sample = <E>(ask: Effect.Effect<number, E>) =>
    Effect.suspend(() => {
      const sentAt = hostMs()
      return Effect.flatMap(ask, (directoryMs) => learn({ directoryMs, sentAt, receivedAt: hostMs() }))
    })

  return {
    learn,
    /**
     * Asks again from time to time, and at each of `changes`, for example after a sleep. Ends with
     * the link.
     */
    keep: <E>(ask: Effect.Effect<number, E>, changes: Stream.Stream<unknown>) => {
      // Spread over time, because the nodes of a restarted relay sign in together.
      const pause = Effect.flatMap(
        Random.nextRange(0.75, 1.25),
        (spread) => Effect.sleep(Duration.times(ASK_EVERY, spread))
      )
      return Effect.raceFirst(pause, Stream.runHead(changes)).pipe(
        Effect.zipRight(sample(ask)),
        Effect.forever,
        Effect.ignore
      )
    },
    /** Last learned time. `null` before the directory has answered. */
    get learned(): TimeLearned | null {
      return estimate === null ? null : { _tag: "TimeLearned", offsetMs: DirectoryTime.offsetOf(estimate) }
    },
    /**
     * How far this machine's clock is ahead of the directory's now, in ms. `null` if that is not
     * known.
     */
    clockAheadMs: Effect.sync(aheadMs)
  }
})
