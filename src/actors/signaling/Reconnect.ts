/**
 * Keeps a link to the relay open: makes the next one when one has ended or failed. The delay before
 * a new link has jitter and doubles with each failure. It starts short again after a link that
 * lasted.
 */
import { Duration, Effect, Random, Stream } from "effect"

/** Upper bound of the delay before a new link, however often it has failed. */
const MAX_DELAY_MS = 15_000
/** How long a link must last to count as good. After a good link, the next try comes soon. */
const GOOD_LINK = Duration.seconds(20)

/** Notice to the owner of a link that the link has ended, or could not be made. */
export interface Down<E> {
  readonly problem: string
  /** The failure. `null` if the link did not fail: either side ended it. */
  readonly error: E | null
  /** Whether the try before failed with the same problem, so that people know of it already. */
  readonly known: boolean
}

/** Notices that end a pause early, because a new link may succeed now. */
export interface Cue {
  readonly notices: Stream.Stream<unknown>
  /** Delay between the notice and the try, in ms. */
  readonly delayMs: Effect.Effect<number>
  /** Whether the notice also forgives earlier failures: further delays start short again. */
  readonly forgives: boolean
}

/** How a link ended that did not fail. */
export interface Ended {
  /** Who ended the link and why, for people. */
  readonly why: string
  /** Delay before the next link, in ms. `null` if the back-off decides. */
  readonly delayMs: number | null
}

/** {@link Ended} if the relay ended the link. */
export const BY_RELAY: Ended = { why: "the relay ended the connection", delayMs: null }

/** Options of {@link keep}. */
export interface Options<E extends { readonly message: string }, R> {
  /** Longest delay before a new link after a good one ended, in ms. */
  readonly firstDelayMs: number
  /** Runs one link, from connecting to its end. It calls `onUp` when the link works. */
  readonly run: (onUp: Effect.Effect<void>) => Effect.Effect<Ended, E, R>
  readonly onDown: (down: Down<E>) => Effect.Effect<void>
  readonly cues?: ReadonlyArray<Cue>
}

/** Keeps a link open for as long as the caller's fiber runs. */
export const keep = Effect.fnUntraced(function*<E extends { readonly message: string }, R>(
  { cues = [], firstDelayMs, onDown, run }: Options<E, R>
) {
  let delayMs = firstDelayMs
  /** The last try's problem. `null` once a link works. */
  let lastProblem: string | null = null
  const onUp = Effect.sync(() => void (lastProblem = null))

  const down = (problem: string, error: E | null) =>
    Effect.suspend(() => {
      const known = lastProblem === problem
      lastProblem = problem
      return onDown({ problem, error, known })
    })

  const one = run(onUp).pipe(
    Effect.flatMap(({ delayMs, why }) => Effect.as(down(`${why}; connecting again`, null), delayMs)),
    Effect.catchAll((error) => Effect.as(down(error.message, error), null))
  )

  const onCue = ({ delayMs: wait, forgives, notices }: Cue) =>
    Stream.runHead(notices).pipe(
      Effect.zipRight(wait),
      Effect.flatMap((ms) => Effect.sleep(Math.round(ms))),
      Effect.tap(() => {
        if (forgives) delayMs = firstDelayMs
      })
    )
  const anyCue = cues.map(onCue).reduce((one, other) => Effect.raceFirst(one, other), Effect.never)

  while (true) {
    const [lasted, asked] = yield* Effect.timed(one)
    delayMs = Duration.greaterThan(lasted, GOOD_LINK) ? firstDelayMs : Math.min(delayMs * 2, MAX_DELAY_MS)
    // The jitter spreads the nodes of a relay that restarts.
    const spread = yield* Random.nextRange(0.5, 1)
    const pauseMs = Math.round(asked ?? delayMs * spread)
    yield* Effect.raceFirst(Effect.sleep(pauseMs), anyCue)
  }
})
