/**
 * Rounds of questions to all STUN servers. There is one when something changed, and while sessions
 * are up, one before a NAT would drop the mapping.
 */
import { Effect, Random } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type * as CandidateFeed from "./CandidateFeed.ts"
import type * as StunQuestions from "./StunQuestions.ts"

/**
 * Shortest time between two refreshes while sessions are up. Many NATs drop a mapping after 30 s,
 * so this and {@link REFRESH_MAX_MS} are shorter.
 */
const REFRESH_MIN_MS = 20_000
/** Longest time between two refreshes while sessions are up. */
const REFRESH_MAX_MS = 26_000

/** Options of {@link make}. */
export interface Options {
  readonly questions: Pick<ReturnType<typeof StunQuestions.make>, "ask" | "dropOwn">
  readonly feed: {
    readonly gathering: Pick<CandidateFeed.CandidateFeed["gathering"], "askable">
    readonly publish: Effect.Effect<void>
  }
  /** Called with the servers of each round. */
  readonly onServers: (servers: ReadonlyArray<SocketAddr>) => Effect.Effect<void>
  /** Looks for the way to the servers of each round, without waiting. */
  readonly look: (servers: ReadonlyArray<SocketAddr>) => Effect.Effect<unknown>
  /** Has `gather` called after the delay. A new timer replaces the one before. */
  readonly setTimer: (delayMs: number) => Effect.Effect<void>
  readonly clearTimer: Effect.Effect<void>
}

/** Makes the rounds. There is none until `gather` is called. */
export const make = ({ clearTimer, feed, look, onServers, questions, setTimer }: Options) => {
  /** Number of sessions that are up. */
  let active = 0

  /**
   * Asks every server again. Requests in progress are dropped, because their answers would only
   * describe the network before.
   */
  const gather = Effect.gen(function*() {
    yield* questions.dropOwn
    const { askable } = feed.gathering
    for (const server of askable) yield* questions.ask({ server, reply: null, of: null })
    yield* feed.publish
    yield* onServers(askable)
    yield* look(askable)
    yield* active === 0
      ? clearTimer
      : Effect.flatMap(Random.nextIntBetween(REFRESH_MIN_MS, REFRESH_MAX_MS), setTimer)
  })

  return {
    gather,
    /** Notes how many sessions are up. The first one needs the mapped addresses of this moment. */
    onActive: (count: number) =>
      Effect.suspend(() => {
        const woke = active === 0 && count > 0
        active = count
        return woke ? gather : count === 0 ? clearTimer : Effect.void
      })
  } as const
}
