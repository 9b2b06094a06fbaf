/**
 * This host's candidates as the other actors see them: what `CandidateGathering` has found, and the
 * measured lifetime of idle mappings. They are published when they are complete for the first time,
 * and then whenever they change.
 */
import { Effect, Either, Predicate, Stream, SubscriptionRef } from "effect"
import * as CandidateGathering from "../../protocol/nat/CandidateGathering.ts"
import type { Lifetime } from "../../protocol/nat/MappingLifetime.ts"
import type { Answer, Question } from "./StunQuestions.ts"
import type { LocalCandidates } from "./StunRpcs.ts"

/** Makes the feed. `outside` holds this node's configured addresses. */
export const make = Effect.fnUntraced(function*(outside: CandidateGathering.Static) {
  const gathering = new CandidateGathering.CandidateGathering(outside)
  const published = yield* SubscriptionRef.make<LocalCandidates | null>(null)
  let lifetime: Lifetime | null = null

  const publish = Effect.gen(function*() {
    const next: LocalCandidates = { ...gathering.local(), ...(lifetime === null ? {} : { lifetime }) }
    const before = yield* SubscriptionRef.get(published)
    if (!gathering.isReady || (before !== null && isSame(before, next))) return
    yield* Effect.logDebug("candidates changed").pipe(
      Effect.annotateLogs({ count: next.candidates.length, udp: next.udp })
    )
    yield* SubscriptionRef.set(published, next)
  })

  return {
    /** Collects the facts about this host. Call `publish` after a change. */
    gathering,
    publish,
    /** Takes the answer to a request of this host's own gathering. */
    onAnswer: ({ of, server }: Question, answer: Answer) =>
      Effect.suspend(() => {
        if (of !== null) {
          if (Either.isRight(answer)) gathering.onMappedElsewhere(of, answer.right.mapped)
        } else if (Either.isRight(answer)) gathering.onMapped(server, answer.right.mapped)
        else gathering.onSilent(server)
        return publish
      }),
    onLifetime: (found: Lifetime | null) =>
      Effect.suspend(() => {
        lifetime = found
        return publish
      }),
    /** The candidates that were published last. `null` if none were yet. */
    now: SubscriptionRef.get(published),
    /** The published candidates, and each later change. */
    changes: Stream.changesWith(Stream.filter(published.changes, Predicate.isNotNull), isSame)
  } as const
})

/** The feed, as {@link make} returns it. */
export type CandidateFeed = Effect.Effect.Success<ReturnType<typeof make>>

const isSame = (a: LocalCandidates, b: LocalCandidates): boolean =>
  CandidateGathering.isSame(a, b) && a.lifetime === b.lifetime
